// SPDX-License-Identifier: Apache-2.0
#include <troika/device/cuda/memory.hpp>

#include <algorithm>
#include <string>

#include <troika/core/error.hpp>

#include "runtime.hpp"

namespace troika {

CudaPool::~CudaPool() { release_kept(); }

CudaPool::Buffer CudaPool::allocate(std::size_t wanted) {
  const std::size_t bytes = block_size(wanted, alignment);
  const std::size_t own = slot_of_block(bytes);
  std::lock_guard lock(mutex_);
  for (std::size_t i = own; i <= std::min(own + lent_slots, slots_.size() - 1); ++i) {
    if (slots_[i].free.empty()) continue;
    auto* const data = slots_[i].free.back();
    slots_[i].free.pop_back();
    return {shared_from_this(), data, block_of_slot(i)};
  }
  Slot& slot = slots_.at(own);
  slot.free.reserve(slot.blocks + 1);
  auto* const data = take(wanted, bytes);
  ++slot.blocks;
  return {shared_from_this(), data, bytes};
}

CudaPool::Buffer CudaPool::allocate_exact(std::size_t wanted) {
  // Never the size of a block, which would be kept.
  std::size_t bytes = (wanted / alignment + 1) * alignment;
  while (bytes == block_size(bytes, alignment)) bytes += alignment;
  std::lock_guard lock(mutex_);
  return {shared_from_this(), take(wanted, bytes), bytes};
}

void CudaPool::hold() {
  std::lock_guard lock(mutex_);
  held_ = true;
}
void CudaPool::let_go() noexcept {
  std::lock_guard lock(mutex_);
  held_ = false;
  for (auto* const data : late_) to_driver(data);
  late_.clear();
}

std::size_t CudaPool::reserved() const {
  std::lock_guard lock(mutex_);
  return reserved_;
}

bool CudaPool::holds(const void* address) const {
  const auto* const at = static_cast<const std::byte*>(address);
  std::lock_guard lock(mutex_);
  auto next = blocks_.upper_bound(at);
  if (next == blocks_.begin()) return false;
  --next;
  return at < next->first + next->second;
}

std::byte* CudaPool::take(std::size_t wanted, std::size_t bytes) {
  const auto fits = [&] { return bytes <= limit_ && reserved_ <= limit_ - bytes; };
  if (!fits()) release_kept();
  std::byte* data = fits() ? from_driver(bytes) : nullptr;
  if (!data && fits()) {
    release_kept();
    data = from_driver(bytes);
  }
  if (!data) {
    throw Error(Fault::out_of_memory, "no " + std::to_string(wanted) + " bytes of " +
                                          (kind_ == Kind::device ? "memory" : "pinned memory of the host") +
                                          " left for GPU " + std::to_string(gpu_) + ", of which this device holds " +
                                          std::to_string(reserved_));
  }
  try {
    late_.reserve(late_.size() + blocks_.size() + 1);
    blocks_.emplace(data, bytes);
  } catch (...) {
    to_driver(data);
    throw;
  }
  reserved_ += bytes;
  return data;
}

// Null where there is none left.
std::byte* CudaPool::from_driver(std::size_t bytes) {
  cuda::check(cudaSetDevice(gpu_), "cudaSetDevice");
  void* data = nullptr;
  const bool device = kind_ == Kind::device;
  const cuda::Uncaptured uncaptured;
  const auto error = device ? cudaMalloc(&data, bytes) : cudaHostAlloc(&data, bytes, cudaHostAllocPortable);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    return nullptr;
  }
  cuda::check(error, device ? "cudaMalloc" : "cudaHostAlloc");
  return static_cast<std::byte*>(data);
}

void CudaPool::to_driver(std::byte* data) noexcept {
  if (held_) return late_.push_back(data);
  (void)(kind_ == Kind::device ? cudaFree(data) : cudaFreeHost(data));  // waits for what uses it
}

void CudaPool::release_kept() noexcept {
  for (Slot& slot : slots_) {
    for (auto* const data : slot.free) {
      const auto block = blocks_.find(data);
      reserved_ -= block->second;
      blocks_.erase(block);
      to_driver(data);
    }
    slot.blocks -= slot.free.size();
    slot.free.clear();
  }
}

void CudaPool::give_back(std::byte* data, std::size_t bytes) noexcept {
  std::lock_guard lock(mutex_);
  if (bytes == block_size(bytes, alignment)) {
    slots_[slot_of_block(bytes)].free.push_back(data);
    return;
  }
  reserved_ -= bytes;
  blocks_.erase(data);
  to_driver(data);
}

std::size_t cuda_memory_available(int gpu) {
  cuda::check(cudaSetDevice(gpu), "cudaSetDevice");
  std::size_t available = 0, all = 0;
  cuda::check(cudaMemGetInfo(&available, &all), "cudaMemGetInfo");
  return available;
}

}  // namespace troika
