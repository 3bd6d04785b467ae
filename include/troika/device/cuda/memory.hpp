// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include <troika/device/pool_buffer.hpp>

namespace troika {

// Memory of a GPU, or of the host where the GPU copies to and from it (pinned). What is given back is kept for the next
// buffer of its size, or of down to a sixteenth: a steady state asks the driver for nothing, since that may wait for all
// that runs on the GPU, and must not happen while GPUs wait for each other. Thread-safe.
//
// Whoever gives a buffer back is done with it on the device's stream, not on the GPU: the next user's work comes after
// it in that stream. Memory that other streams use is given back after the device's stream has waited for them, and
// pinned memory after the copies.
class CudaPool : public std::enable_shared_from_this<CudaPool> {
 public:
  enum class Kind { device, pinned };
  static constexpr std::size_t alignment = 256;  // what cudaMalloc gives, and the widest accesses take

  using Buffer = PoolBuffer<CudaPool>;

  CudaPool(int gpu, Kind kind, std::size_t limit) : gpu_(gpu), kind_(kind), limit_(limit) {}
  CudaPool(const CudaPool&) = delete;
  CudaPool& operator=(const CudaPool&) = delete;
  ~CudaPool();

  Buffer allocate(std::size_t wanted);
  // Without slack, for what stays, as weights do. It goes back to the driver.
  Buffer allocate_exact(std::size_t wanted);

  // Between the two, what goes back to the driver waits: work that was captured, but not launched, may use it.
  void hold();
  void let_go() noexcept;

  std::size_t reserved() const;  // bytes taken from the driver, in use or kept
  bool holds(const void* address) const;

 private:
  friend Buffer;

  static constexpr std::size_t lent_slots = 8;  // so much larger may a block be: 16 times

  std::byte* take(std::size_t wanted, std::size_t bytes);
  std::byte* from_driver(std::size_t bytes);
  void to_driver(std::byte* data) noexcept;
  void release_kept() noexcept;
  void give_back(std::byte* data, std::size_t bytes) noexcept;

  struct Slot {
    std::vector<std::byte*> free;
    std::size_t blocks = 0;  // free or in use; `free` has room for all of them: giving back must not allocate
  };

  int gpu_;
  Kind kind_;
  std::size_t limit_;
  mutable std::mutex mutex_;
  std::map<const std::byte*, std::size_t> blocks_;  // all that the driver gave: bytes by address
  std::size_t reserved_ = 0;
  bool held_ = false;
  std::vector<std::byte*> late_;  // what waits; it has room for all blocks: giving back must not allocate
  std::array<Slot, 96> slots_;
};

// Bytes of a GPU that nobody has, of any program.
std::size_t cuda_memory_available(int gpu);

}  // namespace troika
