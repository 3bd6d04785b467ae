// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/device/host/large_blocks.hpp>
#include <troika/device/pool_buffer.hpp>

namespace troika {

// Memory of one host device, kept for the next tensor of about the same size, so that a steady state allocates nothing.
// Thread-safe: a buffer may die on another thread than the one that made it; the flag is uncontended otherwise.
class HostPool : public std::enable_shared_from_this<HostPool> {
 public:
  static constexpr std::size_t alignment = 64;                        // a cache line, and one AVX-512 register
  static constexpr std::size_t largest_kept = std::size_t{64} << 20;  // weights and the like go back to the system

  using Buffer = PoolBuffer<HostPool>;

  // Large blocks lie on these NUMA nodes, in ascending order; without any, where they are written first.
  explicit HostPool(std::size_t limit = SIZE_MAX, std::vector<int> nodes = {})
      : limit_(limit), nodes_(std::move(nodes)) {
    for (auto& free : free_) free.reserve(64);  // giving back must not allocate
  }
  ~HostPool() {
    for (std::size_t i = 0; i < free_.size(); ++i)
      for (auto* block : free_[i]) to_system(block, block_of_slot(i));
  }

  Buffer allocate(std::size_t wanted) {
    const std::size_t bytes = block_size(wanted);
    if (is_kept(bytes)) {
      Lock lock(busy_);
      if (auto& free = free_[slot_of_block(bytes)]; !free.empty()) {
        auto* data = free.back();
        free.pop_back();
        return {shared_from_this(), data, bytes};
      }
    }
    return take(wanted, bytes);
  }

  // Without slack, but for the last cache line: for what stays, as weights do. It goes back to the system.
  Buffer allocate_exact(std::size_t wanted) { return take(wanted, whole_lines(wanted)); }

  // Bytes taken from the system, in use or kept.
  std::size_t reserved() const { return reserved_.load(std::memory_order_relaxed); }
  const std::vector<int>& nodes() const { return nodes_; }

  // Those that are on huge pages and on the nodes if the system does as it is asked, in use or kept.
  std::vector<std::span<const std::byte>> large_blocks() const {
    std::lock_guard lock(large_mutex_);
    return large_;
  }
  // The errno with which the system refused to bind a large block to the nodes, or 0.
  int bind_error() const { return bind_error_.load(std::memory_order_relaxed); }

 private:
  friend Buffer;

  struct Lock {
    explicit Lock(std::atomic_flag& busy) : flag(busy) {
      while (flag.test_and_set(std::memory_order_acquire)) {
      }
    }
    ~Lock() { flag.clear(std::memory_order_release); }
    std::atomic_flag& flag;
  };

  Buffer take(std::size_t wanted, std::size_t bytes) {
    const std::size_t before = reserved_.fetch_add(bytes, std::memory_order_relaxed);
    std::byte* data = nullptr;
    if (bytes > limit_ || before > limit_ - bytes || !(data = from_system(bytes))) {
      reserved_.fetch_sub(bytes, std::memory_order_relaxed);
      throw Error(Fault::out_of_memory, "no " + std::to_string(wanted) +
                                            " bytes left on this host device, which holds " + std::to_string(before) +
                                            " bytes");
    }
    return {shared_from_this(), data, bytes};
  }

  static bool is_large(std::size_t bytes) { return bytes >= 2 * detail::huge_page; }

  std::byte* from_system(std::size_t bytes) {
    if (!is_large(bytes)) return static_cast<std::byte*>(std::aligned_alloc(alignment, bytes));
    std::lock_guard lock(large_mutex_);
    large_.emplace_back();  // before there is something to lose
    auto* const data = detail::map_large(bytes);
    if (!data) {
      large_.pop_back();
      return nullptr;
    }
    large_.back() = {data, bytes};
    if (const int error = detail::bind_to_nodes(data, bytes, nodes_))
      bind_error_.store(error, std::memory_order_relaxed);
    return data;
  }
  void to_system(std::byte* data, std::size_t bytes) noexcept {
    if (!is_large(bytes)) return std::free(data);
    std::lock_guard lock(large_mutex_);
    std::erase_if(large_, [data](const auto& block) { return block.data() == data; });
    detail::unmap_large(data, bytes);
  }

  static std::size_t whole_lines(std::size_t wanted) {
    expects(wanted < SIZE_MAX - alignment, "a tensor of this size cannot be addressed");
    return wanted == 0 ? alignment : (wanted + alignment - 1) / alignment * alignment;
  }
  static std::size_t block_size(std::size_t wanted) {
    if (wanted > largest_kept) return whole_lines(wanted);
    return troika::block_size(wanted, alignment);
  }
  // Blocks of other sizes, from allocate_exact, would wait for a tensor that never comes.
  static bool is_kept(std::size_t bytes) { return bytes <= largest_kept && bytes == block_size(bytes); }

  void give_back(std::byte* data, std::size_t bytes) noexcept {
    if (is_kept(bytes)) {
      Lock lock(busy_);
      if (auto& free = free_[slot_of_block(bytes)]; free.size() < free.capacity()) {
        free.push_back(data);
        return;
      }
    }
    to_system(data, bytes);
    reserved_.fetch_sub(bytes, std::memory_order_relaxed);
  }

  std::size_t limit_;
  std::vector<int> nodes_;
  mutable std::mutex large_mutex_;
  std::vector<std::span<const std::byte>> large_;
  std::atomic<int> bind_error_{0};
  std::atomic<std::size_t> reserved_{0};
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  std::array<std::vector<std::byte*>, 64> free_;
};

}  // namespace troika
