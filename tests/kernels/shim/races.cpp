// SPDX-License-Identifier: Apache-2.0
#include "races.hpp"

#include <algorithm>
#include <string>

#include "machine.hpp"

namespace troika::shim {

void Clock::see(std::size_t block, std::uint64_t barriers) {
  if (seen_.size() <= block) seen_.resize(block + 1);
  seen_[block] = std::max(seen_[block], barriers);
}
void Clock::join(const Clock& other) {
  for (std::size_t i = 0; i < other.seen_.size(); ++i) see(i, other.seen_[i]);
}

std::vector<Races::Access>& Races::accesses(std::uintptr_t index) {
  const std::uintptr_t number = index / words_of_page;
  if (!last_ || number != last_number_) {
    auto& page = pages_[number];
    if (!page) page = std::make_unique<Page>();
    last_ = page.get();
    last_number_ = number;
  }
  return last_->words[index % words_of_page];
}

void Races::forget(const void* begin, std::size_t bytes) {
  const auto first = reinterpret_cast<std::uintptr_t>(begin);
  for (auto i = first / word; i * word < first + bytes; ++i) accesses(i).clear();
}

void Races::touch(const Thread& thread, std::uintptr_t address, std::size_t bytes, bool write) {
  for (std::uintptr_t at = address, end = address + bytes; at < end;) {
    const std::size_t skipped = at % word, some = std::min<std::size_t>(word - skipped, end - at);
    touch_word(thread, at / word, static_cast<std::uint8_t>(((1u << some) - 1) << skipped), write);
    at += some;
  }
}

void Races::touch_word(const Thread& thread, std::uintptr_t index, std::uint8_t bytes, bool write) {
  const Block& block = *thread.block;
  const Access now{static_cast<std::uint32_t>(block.number),
                   static_cast<std::int32_t>(thread.index.x),
                   thread.index.x / warp_size,
                   block.generation,
                   thread.meetings,
                   write,
                   bytes};
  auto& all = accesses(index);
  bool known = false;
  for (std::size_t i = 0; i < all.size();) {
    Access& before = all[i];
    const bool own_block = before.block == now.block;
    const bool seen = own_block
                          ? before.barriers < now.barriers || before.thread == now.thread ||
                                (before.warp == now.warp && before.meetings < now.meetings)
                          : std::max(block.clock.of(before.block), thread.heard.of(before.block)) > before.barriers;
    if (!seen && (before.write || write) && (before.bytes & bytes) != 0) {
      const auto who = before.thread < 0 ? std::string("several threads") : "thread " + std::to_string(before.thread);
      fail("thread " + std::to_string(now.thread) + " of block " + std::to_string(block.index.x) +
           (write ? " writes" : " reads") + " what " + who + " of " + (own_block ? "that" : "another") + " block has " +
           (before.write ? "written" : "read") + ", and nothing orders the two");
    }
    // Later ones that cannot see this one cannot see the new one either.
    if (seen && (before.bytes & ~bytes) == 0 && (write || !before.write)) {
      all[i] = all.back();
      all.pop_back();
      continue;
    }
    if (own_block && before.barriers == now.barriers && before.warp == now.warp && before.meetings == now.meetings &&
        !before.write && !write && before.bytes == bytes) {
      before.thread = -1;
      known = true;
    }
    ++i;
  }
  if (!known) all.push_back(now);
}

}  // namespace troika::shim
