// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <troika/device/cuda/device.hpp>
#include <troika/device/rotary_table.hpp>

#include "runtime.hpp"

namespace troika::cuda {

class Products;

// What a device has of the CUDA runtime: its stream, cuBLASLt, and copies of small things that the host knows. One
// thread at a time.
class Queue {
 public:
  Queue(int gpu, std::shared_ptr<CudaPool> memory, std::shared_ptr<CudaPool> pinned);
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  ~Queue();

  // The stream, with its GPU as the one that the calling thread works on.
  cudaStream_t stream() const;
  void synchronize();
  void guard(std::weak_ptr<StreamGuard> guard);
  int multiprocessors() const { return multiprocessors_; }
  Products& products() { return *products_; }

  // The same values in memory of the GPU: positions, pages, which head reads which. They are the same in layer after
  // layer, and often in token after token, so copies are kept and found by what is in them. Good until
  // `arrays_kept` others were asked for: use it in the next kernel. Memory for them is taken at the start; only one
  // that is longer than `array_bytes` takes more.
  template <class T>
  const T* on_device(std::span<const T> values) {
    return reinterpret_cast<const T*>(find_array(std::as_bytes(values)));
  }
  static constexpr std::size_t arrays_kept = 64, array_bytes = 4096;

  struct Angles {
    const float *cos, *sin;  // (positions, head_dim / 2)
  };
  Angles angles(const RotaryTable& table);

  // Of whoever needs some for a moment on the host; keeps its memory.
  std::vector<std::int32_t>& scratch() { return scratch_; }

 private:
  struct Array {
    CudaPool::Buffer host, device;
    std::size_t bytes = SIZE_MAX;  // of its values; SIZE_MAX: nothing is in it
    Event copied{};                // from then on `host` may be overwritten
    std::uint64_t used = 0;
  };
  struct Table {
    std::shared_ptr<const void> identity;
    CudaPool::Buffer cos, sin;
  };
  static constexpr std::size_t tables_kept = 16;

  struct Stream {
    explicit Stream(int gpu);
    ~Stream();
    cudaStream_t handle = nullptr;
  };

  const std::byte* find_array(std::span<const std::byte> values);

  int gpu_;
  int multiprocessors_ = 0;
  std::shared_ptr<CudaPool> memory_, pinned_;
  Stream stream_;
  std::unique_ptr<Products> products_;
  std::vector<std::weak_ptr<StreamGuard>> guards_;
  std::vector<Array> arrays_;
  std::vector<Table> tables_;
  std::uint64_t uses_ = 0;
  std::vector<std::int32_t> scratch_;
};

inline cudaStream_t stream_of(const CudaStream& stream) { return stream.device().queue().stream(); }

}  // namespace troika::cuda
