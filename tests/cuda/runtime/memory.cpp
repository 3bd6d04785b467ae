// SPDX-License-Identifier: Apache-2.0
#include "memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include <support/sanitizers.hpp>

#if TROIKA_SANITIZED
#include <sanitizer/asan_interface.h>
#endif

namespace troika::recording {

namespace {
constexpr std::size_t arena_bytes = std::size_t{64} << 30;  // of addresses, not of memory
constexpr std::size_t most_filled = std::size_t{4} << 20;   // larger blocks begin as zeros, which cost nothing
}  // namespace

Memory::Memory(int gpus, std::size_t bytes_each)
    : size_(arena_bytes), left_(static_cast<std::size_t>(gpus), bytes_each) {
  void* const arena = mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (arena == MAP_FAILED) throw std::bad_alloc();
  arena_ = static_cast<std::byte*>(arena);
}

Memory::~Memory() {
  open(true);
  while (!blocks_.empty()) (void)free(blocks_.begin()->second);
  poison(arena_, next_, false);
  munmap(arena_, size_);
}

Memory::Block* Memory::allocate(int gpu, std::size_t bytes) {
  const std::size_t all = whole(bytes);
  std::byte* data = nullptr;
  if (gpu == host) {
    data = static_cast<std::byte*>(::operator new (all, std::align_val_t{page}));
  } else {
    std::size_t& left = left_[static_cast<std::size_t>(gpu)];
    if (bytes > left || all > size_ - next_) return nullptr;
    left -= bytes;
    data = arena_ + next_;
    next_ += all;
    mprotect(data, all, PROT_READ | PROT_WRITE);
  }
  std::memset(data, 0xff, margin);
  if (bytes <= most_filled) std::memset(data + margin, 0xff, bytes);
  std::memset(data + margin + bytes, 0xff, all - margin - bytes);
  if (gpu != host && !open_) mprotect(data, all, PROT_NONE);
  poison(data, margin, true);
  poison(data + margin + bytes, margin, true);
  return &blocks_.emplace(data + margin, Block{data + margin, bytes, gpu}).first->second;
}

bool Memory::free(Block& block) {
  std::byte* const data = block.data - margin;
  const std::size_t all = whole(block.bytes);
  poison(data, margin, false);
  poison(block.data + block.bytes, margin, false);
  const auto untouched = [](std::byte b) { return b == std::byte{0xff}; };
  if (block.gpu != host) mprotect(data, all, PROT_READ | PROT_WRITE);
  const bool intact =
      std::all_of(data, block.data, untouched) && std::all_of(block.data + block.bytes, data + all, untouched);
  if (block.gpu == host) {
    ::operator delete (data, std::align_val_t{page});
  } else {
    left_[static_cast<std::size_t>(block.gpu)] += block.bytes;
    madvise(data, all, MADV_DONTNEED);
    if (!open_) mprotect(data, all, PROT_NONE);
    poison(data, all, true);  // for good
  }
  blocks_.erase(block.data);
  return intact;
}

Memory::Block* Memory::at(const void* data) {
  const auto found = blocks_.find(static_cast<const std::byte*>(data));
  return found == blocks_.end() ? nullptr : &found->second;
}

Memory::Block* Memory::holding(const void* data, std::size_t bytes) {
  const auto* const begin = static_cast<const std::byte*>(data);
  auto next = blocks_.upper_bound(begin);
  if (next == blocks_.begin()) return nullptr;
  Block& block = std::prev(next)->second;
  const auto offset = static_cast<std::size_t>(begin - block.data);
  return offset <= block.bytes && bytes <= block.bytes - offset ? &block : nullptr;
}

bool Memory::is_device(const void* data) const {
  const auto* const at = static_cast<const std::byte*>(data);
  return at >= arena_ && at < arena_ + size_;
}

void Memory::open(bool on) {
  open_ = on;
  if (next_ > 0) mprotect(arena_, next_, on ? PROT_READ | PROT_WRITE : PROT_NONE);
}

std::size_t Memory::whole(std::size_t bytes) { return (bytes + 2 * margin + page - 1) / page * page; }

void Memory::poison([[maybe_unused]] const std::byte* begin, [[maybe_unused]] std::size_t bytes,
                    [[maybe_unused]] bool on) {
#if TROIKA_SANITIZED
  if (on)
    __asan_poison_memory_region(begin, bytes);
  else
    __asan_unpoison_memory_region(begin, bytes);
#endif
}

}  // namespace troika::recording
