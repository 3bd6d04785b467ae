// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <memory>
#include <utility>

namespace troika {

// Memory of a pool, which gets it back when this dies. Moves only.
template <class Pool>
class PoolBuffer {
 public:
  PoolBuffer() = default;
  PoolBuffer(PoolBuffer&& other) noexcept { swap(other); }
  PoolBuffer& operator=(PoolBuffer&& other) noexcept {
    PoolBuffer(std::move(other)).swap(*this);
    return *this;
  }
  ~PoolBuffer() {
    if (data_) pool_->give_back(data_, bytes_);
  }

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }  // at least as many as were asked for

 private:
  friend Pool;
  PoolBuffer(std::shared_ptr<Pool> pool, std::byte* data, std::size_t bytes)
      : pool_(std::move(pool)), data_(data), bytes_(bytes) {}
  void swap(PoolBuffer& other) noexcept {
    pool_.swap(other.pool_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  std::shared_ptr<Pool> pool_;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Blocks come in powers of two and halves between them, so that the next tensor of about the same size finds one; at
// most 1/3 of a block is slack. Sizes are numbered by slots.
constexpr std::size_t block_size(std::size_t wanted, std::size_t alignment) {
  const std::size_t power = std::bit_ceil(wanted < alignment ? alignment : wanted);
  const std::size_t three_quarters = power / 4 * 3;
  return wanted <= three_quarters && three_quarters % alignment == 0 ? three_quarters : power;
}
constexpr std::size_t slot_of_block(std::size_t bytes) {
  const auto log = static_cast<std::size_t>(std::bit_width(bytes - 1));
  return 2 * log + (std::has_single_bit(bytes) ? 1 : 0);
}
constexpr std::size_t block_of_slot(std::size_t slot) {
  const std::size_t power = std::size_t{1} << (slot / 2);
  return slot % 2 == 1 ? power : power / 4 * 3;
}

}  // namespace troika
