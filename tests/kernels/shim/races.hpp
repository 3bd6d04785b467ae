// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace troika::shim {

struct Thread;

// Up to which barrier of each block everything is seen, by the number of the block: what another block did before
// barrier n is seen where this is above n.
class Clock {
 public:
  std::uint64_t of(std::size_t block) const { return block < seen_.size() ? seen_[block] : 0; }
  void see(std::size_t block, std::uint64_t barriers);
  void join(const Clock& other);

 private:
  std::vector<std::uint64_t> seen_;
};

// Who read and wrote each byte, so that two threads that touch the same one, at least one writing, with nothing between
// them that orders them are told, also where the result is right. What orders: for the threads of a block, __syncthreads, for
// those of a warp __syncwarp, too; for kernels of a stream, that one begins after another; for blocks, a flag: what was done before a barrier before its
// release is seen by the thread that acquires it, and after the next barrier by its block. A shuffle orders nothing.
class Races {
 public:
  // What a thread of a kernel does, `bytes` at `address`. Ends the thread (fail) where that is a race.
  void touch(const Thread& thread, std::uintptr_t address, std::size_t bytes, bool write);
  // Memory that begins anew.
  void forget(const void* begin, std::size_t bytes);

  void release(const void* flag, const Clock& clock) { flags_[flag] = clock; }
  const Clock& acquire(const void* flag) { return flags_[flag]; }
  std::size_t next_block() { return blocks_++; }

 private:
  struct Access {
    std::uint32_t block;
    std::int32_t thread;  // -1: several of its warp
    std::uint32_t warp;
    std::uint64_t barriers, meetings;
    bool write;
    std::uint8_t bytes;  // of the word, a bit each
  };
  static constexpr std::size_t word = 4, words_of_page = 1024;
  struct Page {
    std::vector<Access> words[words_of_page];
  };

  void touch_word(const Thread& thread, std::uintptr_t index, std::uint8_t bytes, bool write);
  std::vector<Access>& accesses(std::uintptr_t index);

  std::unordered_map<std::uintptr_t, std::unique_ptr<Page>> pages_;
  std::uintptr_t last_number_ = 0;
  Page* last_ = nullptr;
  std::unordered_map<const void*, Clock> flags_;
  std::size_t blocks_ = 0;
};

}  // namespace troika::shim
