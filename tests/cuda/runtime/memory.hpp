// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "order.hpp"

namespace troika::recording {

// Memory of the GPUs, and pinned memory of the host. Addresses are used once: what is used after it was freed is seen.
class Memory {
 public:
  static constexpr int host = -1;

  struct Block {
    std::byte* data;
    std::size_t bytes;
    int gpu;  // or host
    Touches touches{};
  };

  Memory(int gpus, std::size_t bytes_each);
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory();

  // Null where a GPU has no more.
  Block* allocate(int gpu, std::size_t bytes);
  std::size_t left(int gpu) const { return left_[static_cast<std::size_t>(gpu)]; }
  // False where the margins around it were written.
  bool free(Block& block);
  // The block that begins there, or null; the one that holds these bytes, or null.
  Block* at(const void* data);
  Block* holding(const void* data, std::size_t bytes);
  // Whether an address is of a GPU, in a block or not.
  bool is_device(const void* data) const;
  // Whether anybody may read and write what is of GPUs.
  void open(bool on);
  bool empty() const { return blocks_.empty(); }

 private:
  static constexpr std::size_t page = 4096, margin = 256;

  static std::size_t whole(std::size_t bytes);  // with margins, in pages
  static void poison(const std::byte* begin, std::size_t bytes, bool on);

  std::byte* arena_ = nullptr;
  std::size_t size_, next_ = 0;
  bool open_ = false;
  std::vector<std::size_t> left_;  // of each GPU
  std::map<const std::byte*, Block> blocks_;
};

}  // namespace troika::recording
