// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "fibre.hpp"
#include "races.hpp"

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned columns = 1, unsigned rows = 1, unsigned layers = 1) : x(columns), y(rows), z(layers) {}
};

// GPUs, as far as kernels can tell: each thread of each block is a fibre, and all blocks of all kernels that run are
// resident. Memory is sequentially consistent; what is seen are missing barriers, missing waits, and reads of what
// nobody wrote, by running threads in orders that a GPU may choose.
namespace troika::shim {

inline constexpr int warp_size = 32;

// Which thread goes first, and how far one kernel gets ahead of others.
struct Schedule {
  enum class Order { forward, reverse, random } order = Order::forward;
  std::uint64_t seed = 1;    // of random
  int without_barrier = -1;  // a planted bug: all threads of all kernels run past this __syncthreads, counted from 0
  int without_meeting = -1;  // the same of a __syncwarp
};

struct Grid;
struct Block;

// 16 bytes that come to shared memory later.
struct Copy {
  std::byte* to;
  const std::byte* from;
  int bytes;  // that are read; the others become zeros
};

// What a lane gives the others of its warp at once.
using Words = std::array<std::uint64_t, 3>;
using WordsOfWarp = std::array<Words, warp_size>;

struct Thread {
  enum class State { ready, spinning, at_barrier, in_exchange, done };

  Thread(Grid* in, Block* of, dim3 at);

  Grid* grid;
  Block* block;
  dim3 index;
  State state = State::ready;
  int barriers = 0;              // that it came to
  int meetings_asked = 0;        // __syncwarp that it came to
  std::uint64_t generation = 0;  // of the barrier or exchange that it waits for
  std::uint64_t exchanges = 0;
  std::uint64_t pauses = 0;
  std::uint64_t meetings = 0;               // of its warp, that it took part in
  Clock heard{};                            // by the flags that it acquired
  std::deque<std::vector<Copy>> copies{1};  // that are under way, group by group
  std::unique_ptr<std::byte, void (*)(std::byte*)> stack;
  Fibre fibre;
};

struct Warp {
  int arrived = 0, alive = 0;
  std::uint64_t generation = 0;
  std::array<WordsOfWarp, 2> slots{};  // of this exchange and of the one before it
};

struct Block {
  dim3 index;
  int arrived = 0, alive = 0;
  std::uint64_t generation = 0;
  std::array<bool, 2> votes{true, true};  // of all threads, at this barrier and at the one before it
  std::vector<Warp> warps;
  std::unique_ptr<std::byte[]>
      shared;               // exactly as large as the kernel's struct, so that AddressSanitizer sees its end
  std::size_t number = 0;   // among the blocks of all kernels
  Clock clock{}, coming{};  // what it sees, and from the next barrier on
};

// A kernel that was launched.
struct Grid {
  dim3 blocks;
  int threads;
  std::function<void()> body;
  std::vector<Block> all_blocks{};
  std::deque<Thread> all_threads{};
  int alive = 0;
};

// Kernels that run one after the other; the recording runtime (tests/cuda/runtime) has more in its streams.
struct Stream {
  virtual ~Stream() = default;
  virtual void launch(std::unique_ptr<Grid> grid) { queue.push_back(std::move(grid)); }
  std::deque<std::unique_ptr<Grid>> queue{};
  Clock clock{};  // of the kernels that have ended
};

class Machine {
 public:
  explicit Machine(Schedule schedule = {}) : schedule_(schedule), random_(schedule.seed) {}
  Stream* stream(int index);
  // Until all streams are empty. std::runtime_error where kernels can never end, or do what a GPU does not define.
  void run();
  // Lets every thread of a kernel go on; false if all that happened is waiting for others. It has ended when
  // grid.alive is 0 after that.
  bool step(Grid& grid);
  // The most __syncthreads that a thread came to.
  int barriers() const { return barriers_; }
  int meetings() const { return meetings_; }  // the same of __syncwarp

 private:
  void begin(Grid& grid, const Clock& before);
  bool advance(Thread& thread);
  bool advance(Grid& grid);

  Schedule schedule_;
  std::mt19937_64 random_;
  std::deque<Stream> streams_;
  Races races_;
  bool follows_ = false;  // what kernels touch
  int barriers_ = 0, meetings_ = 0;
};

// What the words of shim/cuda.hpp are made of; called by kernels.
extern Thread* current;
bool barrier(bool vote = true);  // whether all threads voted for it
void meet();                     // with the threads of its warp
// What is copied is written when it is waited for, and no number before.
void copy_later(void* to, const void* from, int bytes);
void end_of_copies();
void wait_for_copies(std::size_t groups);
void spin();
std::uint32_t load_acquire(const std::uint32_t* flag);
void store_release(std::uint32_t* flag, std::uint32_t value);
extern std::uint64_t (*clock)();  // in nanoseconds; at first 20 for each spin() of the thread that asks
std::byte* shared_memory(std::size_t bytes);
void touch(const void* address, std::size_t bytes, bool write);
[[noreturn]] void fail(std::string what);
// What each lane of the warp gives.
WordsOfWarp exchange_words(unsigned mask, const Words& words);
std::uint64_t exchange_word(unsigned mask, std::uint64_t word, int lane);

template <class T>
T exchange(unsigned mask, T value, int lane) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t word = 0;
  std::memcpy(&word, &value, sizeof value);
  word = exchange_word(mask, word, lane);
  std::memcpy(&value, &word, sizeof value);
  return value;
}
inline int lane() { return static_cast<int>(current->index.x) % warp_size; }

}  // namespace troika::shim
