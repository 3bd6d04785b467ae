// SPDX-License-Identifier: Apache-2.0
#include "machine.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace troika::shim {

Thread* current = nullptr;
std::uint64_t (*clock)() = [] { return 20 * current->pauses; };

namespace {

constexpr std::size_t stacks_of_a_slab = 256;
constexpr std::size_t most_shared = 48 << 10;  // what a block has without asking for more
constexpr long most_idle_rounds = 20'000;      // of threads that wait for a flag which nobody sets
std::string fault;                             // of the thread that ran last
int dropped_barrier = -1;                      // Schedule::without_barrier of the machine that runs
int dropped_meeting = -1;                      // Schedule::without_meeting of it
Races* races = nullptr;                        // of the machine that runs, while a kernel does

// Stacks are used again, by all machines: a page that was never written costs more than a thread.
std::vector<std::byte*>& idle_stacks() {
  static std::vector<std::byte*> stacks;
  return stacks;
}
std::byte* take_stack() {
  auto& idle = idle_stacks();
  if (idle.empty()) {
    void* const slab = mmap(nullptr, stacks_of_a_slab * Fibre::stack_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (slab == MAP_FAILED) throw std::bad_alloc();
    for (std::size_t i = 0; i < stacks_of_a_slab; ++i)
      idle.push_back(static_cast<std::byte*>(slab) + i * Fibre::stack_bytes);
  }
  std::byte* const stack = idle.back();
  idle.pop_back();
  return stack;
}
void give_back_stack(std::byte* stack) { idle_stacks().push_back(stack); }

void run_thread(void* argument) {
  auto* const thread = static_cast<Thread*>(argument);
  thread->grid->body();
  thread->state = Thread::State::done;
}

std::string name(const Thread& thread) {
  return "thread " + std::to_string(thread.index.x) + " of block " + std::to_string(thread.block->index.x);
}

Warp& warp_of(const Thread& thread) { return thread.block->warps[thread.index.x / warp_size]; }

bool can_run(const Thread& thread) {
  switch (thread.state) {
    case Thread::State::ready:
    case Thread::State::spinning: return true;
    case Thread::State::at_barrier: return thread.block->generation > thread.generation;
    case Thread::State::in_exchange: return warp_of(thread).generation > thread.generation;
    case Thread::State::done: return false;
  }
  return false;
}

}  // namespace

Thread::Thread(Grid* in, Block* of, dim3 at)
    : grid(in), block(of), index(at), stack(take_stack(), give_back_stack), fibre(stack.get(), run_thread, this) {}

// While the shim works for a kernel, nothing is the kernel's access.
class Inside {
 public:
  Inside() : races_(std::exchange(races, nullptr)) {}
  ~Inside() { races = races_; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  Races* races_;
};

// What the compiler calls where a kernel reads or writes (accesses.cpp).
void touch(const void* address, std::size_t bytes, bool write) {
  if (!races) return;
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  const auto within = [at](const void* begin, std::size_t size) {
    return at - reinterpret_cast<std::uintptr_t>(begin) < size;
  };
  const Thread& self = *current;
  if (within(self.stack.get(), Fibre::stack_bytes) || within(&current, sizeof current) || within(&self, sizeof self) ||
      within(self.block, sizeof *self.block) || within(self.grid, sizeof *self.grid))
    return;
  Races& all = *races;
  const Inside inside;
  all.touch(self, at, bytes, write);
}

// Nothing on the fibre's stack is destroyed after this, so the text moves out of it.
void fail(std::string what) {
  fault = std::move(what);
  for (;;) current->fibre.suspend();
}

bool barrier(bool vote) {
  const Inside inside;
  Thread& self = *current;
  Block& block = *self.block;
  if (self.barriers++ == dropped_barrier) return vote;
  if (block.alive != self.grid->threads) fail(name(self) + " waits at a barrier for a thread that has ended");
  self.generation = block.generation;
  bool& all = block.votes[block.generation % 2];
  all = all && vote;
  if (++block.arrived == block.alive) {
    block.arrived = 0;
    block.votes[++block.generation % 2] = true;
    block.clock.join(block.coming);
  }
  self.state = Thread::State::at_barrier;
  self.fibre.suspend();
  return all;
}

void meet() {
  Thread& self = *current;
  if (self.meetings_asked++ == dropped_meeting) return;
  (void)exchange_word(0xffffffffu, 0, lane());
  ++self.meetings;
}

void copy_later(void* to, const void* from, int bytes) {
  if (bytes < 0 || bytes > 16 || reinterpret_cast<std::uintptr_t>(to) % 16 != 0 ||
      reinterpret_cast<std::uintptr_t>(from) % 16 != 0)
    fail(name(*current) + " copies " + std::to_string(bytes) + " bytes, or not from and to multiples of 16");
  touch(to, 16, true);
  const Inside inside;
  std::memset(to, 0xff, 16);
  current->copies.back().push_back({static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes});
}
void end_of_copies() {
  const Inside inside;
  current->copies.emplace_back();
}
void wait_for_copies(std::size_t groups) {
  auto& copies = current->copies;
  while (copies.size() > groups + 1) {  // the last group has not ended
    for (const Copy& copy : copies.front()) {
      touch(copy.from, static_cast<std::size_t>(copy.bytes), false);
      touch(copy.to, 16, true);
      const Inside inside;
      std::memset(copy.to, 0, 16);
      std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.bytes));
    }
    const Inside inside;
    copies.pop_front();
  }
}

void spin() {
  const Inside inside;
  ++current->pauses;
  current->state = Thread::State::spinning;
  current->fibre.suspend();
}

std::uint32_t load_acquire(const std::uint32_t* flag) {
  if (races) {
    current->heard.join(races->acquire(flag));
    current->block->coming.join(races->acquire(flag));
  }
  return *static_cast<const volatile std::uint32_t*>(flag);
}
void store_release(std::uint32_t* flag, std::uint32_t value) {
  if (races) {
    Block& block = *current->block;
    block.clock.see(block.number, block.generation);
    races->release(flag, block.clock);
  }
  *static_cast<volatile std::uint32_t*>(flag) = value;
}

std::byte* shared_memory(std::size_t bytes) {
  Races* const memory = races;
  const Inside inside;
  Block& block = *current->block;
  if (bytes > most_shared)
    fail("a block has " + std::to_string(most_shared) + " bytes of shared memory, not " + std::to_string(bytes));
  if (!block.shared) {
    block.shared = std::make_unique<std::byte[]>(bytes);
    std::fill_n(block.shared.get(), bytes, std::byte{0xff});  // floats that are no numbers
    if (memory) memory->forget(block.shared.get(), bytes);
  }
  return block.shared.get();
}

WordsOfWarp exchange_words(unsigned mask, const Words& words) {
  const Inside inside;
  Thread& self = *current;
  Warp& warp = warp_of(self);
  if (mask != 0xffffffffu || warp.alive != warp_size) fail(name(self) + " exchanges with less than a whole warp");
  auto& slots = warp.slots[self.exchanges++ % 2];
  slots[static_cast<std::size_t>(lane())] = words;
  self.generation = warp.generation;
  if (++warp.arrived == warp_size) {
    warp.arrived = 0;
    ++warp.generation;
  }
  self.state = Thread::State::in_exchange;
  self.fibre.suspend();
  return slots;
}
std::uint64_t exchange_word(unsigned mask, std::uint64_t word, int from) {
  if (from < 0 || from >= warp_size) fail(name(*current) + " reads lane " + std::to_string(from));
  return exchange_words(mask, {word})[static_cast<std::size_t>(from)][0];
}

Stream* Machine::stream(int index) {
  while (streams_.size() <= static_cast<std::size_t>(index)) streams_.emplace_back();
  return &streams_[static_cast<std::size_t>(index)];
}

void Machine::begin(Grid& grid, const Clock& before) {
  if (grid.threads % warp_size != 0 || grid.threads > 1024) {
    throw std::runtime_error("a block of " + std::to_string(grid.threads) + " threads is not some warps");
  }
  for (unsigned z = 0; z < grid.blocks.z; ++z) {
    for (unsigned y = 0; y < grid.blocks.y; ++y) {
      for (unsigned x = 0; x < grid.blocks.x; ++x) {
        Block block;
        block.index = {x, y, z};
        block.alive = grid.threads;
        block.warps.resize(static_cast<std::size_t>(grid.threads / warp_size));
        for (Warp& warp : block.warps) warp.alive = warp_size;
        block.number = races_.next_block();
        block.clock = before;
        grid.all_blocks.push_back(std::move(block));
      }
    }
  }
  for (Block& block : grid.all_blocks) {
    for (int i = 0; i < grid.threads; ++i) {
      grid.all_threads.emplace_back(&grid, &block, dim3{static_cast<unsigned>(i), 0, 0});
    }
  }
  grid.alive = static_cast<int>(grid.all_threads.size());
}

// Lets a thread run up to where it has to wait. False if it could not, or still spins.
bool Machine::advance(Thread& thread) {
  if (!can_run(thread)) return false;
  thread.state = Thread::State::ready;
  current = &thread;
  races = follows_ ? &races_ : nullptr;
  thread.fibre.resume();
  races = nullptr;
  current = nullptr;
  if (!fault.empty()) throw std::runtime_error(std::exchange(fault, {}));
  barriers_ = std::max(barriers_, thread.barriers);
  meetings_ = std::max(meetings_, thread.meetings_asked);
  if (thread.state == Thread::State::done) {
    --thread.block->alive;
    --warp_of(thread).alive;
    --thread.grid->alive;
  }
  return thread.state != Thread::State::spinning;
}

// Lets every thread run. False if all that happened is waiting.
bool Machine::advance(Grid& grid) {
  auto& threads = grid.all_threads;
  std::vector<std::size_t> order(threads.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  bool progress = false;
  if (schedule_.order == Schedule::Order::random) {
    std::shuffle(order.begin(), order.end(), random_);
    for (const std::size_t i : order) {
      if (random_() % 2) progress |= advance(threads[i]);  // or not, so that threads of a warp drift apart, too
    }
    return progress;
  }
  if (schedule_.order == Schedule::Order::reverse) std::reverse(order.begin(), order.end());
  for (auto warp = order.begin(); warp != order.end(); warp += warp_size) {  // each as far as it can, alone
    bool moved = true;
    while (moved) {
      moved = false;
      for (auto i = warp; i != warp + warp_size; ++i) moved |= advance(threads[*i]);
      progress |= moved;
    }
  }
  return progress;
}

bool Machine::step(Grid& grid) {
  dropped_barrier = schedule_.without_barrier;
  dropped_meeting = schedule_.without_meeting;
  if (grid.all_threads.empty()) begin(grid, {});
  const bool progress = advance(grid);
  if (!progress && std::none_of(grid.all_threads.begin(), grid.all_threads.end(), can_run) && grid.alive > 0)
    throw std::runtime_error("all threads of a kernel wait for each other");
  return progress;
}

void Machine::run() {
  dropped_barrier = schedule_.without_barrier;
  dropped_meeting = schedule_.without_meeting;
  follows_ = true;
  long idle = 0;
  std::vector<std::size_t> order(streams_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (schedule_.order == Schedule::Order::reverse) std::reverse(order.begin(), order.end());
  for (;;) {
    if (schedule_.order == Schedule::Order::random) std::shuffle(order.begin(), order.end(), random_);
    bool any = false, progress = false, spinning = false;
    for (const std::size_t i : order) {
      if (streams_[i].queue.empty()) continue;
      any = true;
      Grid& grid = *streams_[i].queue.front();
      if (grid.all_threads.empty()) begin(grid, streams_[i].clock);
      progress = advance(grid);
      if (grid.alive == 0) {
        for (const Block& block : grid.all_blocks) {
          streams_[i].clock.join(block.clock);
          streams_[i].clock.join(block.coming);
          streams_[i].clock.see(block.number, block.generation + 1);
        }
        streams_[i].queue.pop_front();
      }
      if (progress) break;  // the first stream goes on as long as it can: it gets as far ahead as it may
      spinning = spinning || std::any_of(grid.all_threads.begin(), grid.all_threads.end(), can_run);
    }
    if (!any) break;
    if (progress) {
      idle = 0;
    } else if (!spinning || ++idle > most_idle_rounds) {
      throw std::runtime_error(spinning ? "threads wait for a flag that nobody sets"
                                        : "all threads wait for each other");
    }
  }
  races_ = {};
  for (Stream& stream : streams_) stream.clock = {};
}

}  // namespace troika::shim
