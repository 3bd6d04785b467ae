// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <troika/device/cuda/device.hpp>
#include <troika/device/rotary_table.hpp>

#include "runtime.hpp"

namespace troika::cuda {

class Graphs;
class Products;

// What a device has of the CUDA runtime: its streams, cuBLASLt, and copies of small things that the host knows. One
// thread at a time.
class Queue {
 public:
  Queue(int gpu, std::shared_ptr<CudaPool> memory, std::shared_ptr<CudaPool> pinned);
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  ~Queue();

  // The stream, with its GPU as the one that the calling thread works on, for work that may be captured: in a step it is,
  // and is not done before launch().
  cudaStream_t stream();
  // The same for what cannot be captured, or is waited for by the host: what was captured is launched.
  cudaStream_t direct();
  void synchronize();

  // Of CudaSecondStream, which says what they are for. Between enter(true) and enter(false) the second stream is what
  // stream() and direct() give, and what synchronize() waits for.
  void follow();
  void lead();
  void enter(bool second) noexcept { in_second_ = second; }
  void synchronize_second() noexcept;

  // Of what other devices wait for, so much may be told to this one before it has done any of it: the thread that tells
  // it waits then, but not while it captures. A graph counts as `counted_at_once`.
  static constexpr std::size_t counted_at_once = 16, kept_ahead = 4;
  void keep_pace();

  // From here to end_step(), work is captured, if that is what `graphs` wants.
  void begin_step(Graphs& graphs);
  bool in_step() const { return graphs_; }
  bool end_piece();
  // Work that waits for other devices is given now.
  void give_collective();
  // What is captured so far is a graph that can be launched. Whether there are collectives in it.
  bool prepare();
  void launch();
  bool submit();  // both; whether there was anything
  // What is not launched is forgotten.
  void end_step() noexcept;

  void guard(std::weak_ptr<StreamGuard> guard);
  int multiprocessors() const { return multiprocessors_; }
  Products& products() { return *products_; }

  // The same values in memory of the GPU: positions, pages, which head reads which. They are the same in layer after
  // layer, and often in token after token, so copies are kept and found by what is in them. Good until
  // `arrays_kept` others were asked for: use it in the next kernel. Memory for them is taken at the start; only one
  // that is longer than `array_bytes`, or a step that captures more of them, takes more.
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
    bool captured = false;         // its copy is, and not launched
    std::uint64_t used = 0;
  };
  struct Table {
    std::shared_ptr<const void> identity;
    CudaPool::Buffer cos, sin;
  };
  static constexpr std::size_t tables_kept = 16;

  struct Stream {
    // `first`: its work goes before that of others, as far as there is room for one of them only.
    explicit Stream(int gpu, bool first = false);
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream();
    cudaStream_t handle = nullptr;
  };
  struct Second {
    explicit Second(int gpu) : stream(gpu, true) {}
    Stream stream;
    Event stream_done{}, second_done{};  // where one of the two waits for the other
  };

  bool in_graphs() const;
  Second& second();
  cudaStream_t current() const { return in_second_ ? second_->stream.handle : stream_.handle; }
  void check_guards();
  void wait_for_pace();
  void count_pace();
  void begin_capture();
  void end_capture() noexcept;
  const std::byte* find_array(std::span<const std::byte> values);
  Array& array_to_fill();

  int gpu_;
  int multiprocessors_ = 0;
  std::shared_ptr<CudaPool> memory_, pinned_;
  Stream stream_;
  std::optional<Second> second_;  // made when it is wanted first
  bool in_second_ = false;
  std::array<Event, kept_ahead> pace_{};
  std::size_t counted_ = 0, next_pace_ = 0;
  std::unique_ptr<Products> products_;
  std::vector<std::weak_ptr<StreamGuard>> guards_;
  std::vector<Array> arrays_;
  std::vector<Table> tables_;
  std::uint64_t uses_ = 0;
  std::vector<std::int32_t> scratch_;
  Graphs* graphs_ = nullptr;  // of the step that is on
  bool capturing_ = false, collective_ = false;
  cudaGraphExec_t prepared_ = nullptr;
};

inline cudaStream_t stream_of(const CudaStream& stream) { return stream.device().queue().stream(); }

}  // namespace troika::cuda
