// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <kernels/reduce.cuh>

#include "kernel_test.hpp"

using namespace troika;
using namespace troika::test;

namespace {

struct Words {
  int at[64];
};

void turn_around(const int* in, int* out) {
  TROIKA_SHARED(Words, words);
  words.at[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = words.at[63 - threadIdx.x];
}
void half_meet() {
  if (threadIdx.x < 32) __syncthreads();
}
void some_leave() {
  if (threadIdx.x == 7) return;
  __syncthreads();
}
void half_a_warp() {
  if (threadIdx.x < 16) (void)__shfl_xor_sync(0xffffffffu, 1, 1);
}
void too_much_shared() {
  struct Large {
    float at[16 << 10];
  };
  TROIKA_SHARED(Large, large);
  large.at[0] = 0;
}
void wait_for(const std::uint32_t* flag, std::uint32_t* seen) {
  while (cuda::load_acquire(flag) == 0) cuda::pause();
  if (threadIdx.x == 0) *seen = *flag;
}
void set(std::uint32_t* flag) { cuda::store_release(flag, 5); }
void sum_lanes(float* out) { out[threadIdx.x] = cuda::warp_sum(static_cast<float>(threadIdx.x)); }

}  // namespace

TEST_CASE("threads of the shim meet at barriers, exchange values and wait for other kernels") {
  for (const auto& schedule : schedules()) {
    Machine machine(schedule);
    std::vector<int> in(64), out(64, -1);
    for (int i = 0; i < 64; ++i) in[static_cast<std::size_t>(i)] = i;
    cuda::launch(turn_around, dim3{}, 64, machine.stream(0), in.data(), out.data());
    std::vector<float> sums(64);
    cuda::launch(sum_lanes, dim3{}, 64, machine.stream(0), sums.data());
    std::uint32_t flag = 0, seen = 0;
    cuda::launch(wait_for, dim3{}, 32, machine.stream(1), &flag, &seen);
    cuda::launch(set, dim3{}, 32, machine.stream(2), &flag);
    machine.run();
    CHECK(out[0] == 63);
    CHECK(out[63] == 0);
    CHECK(sums[0] == 496);
    CHECK(sums[63] == 1520);
    CHECK(seen == 5);
  }
}

TEST_CASE("what a GPU does not define is an error of the shim") {
  const auto run = [](auto kernel, auto... arguments) {
    Machine machine;
    cuda::launch(kernel, dim3{}, 64, machine.stream(0), arguments...);
    machine.run();
  };
  CHECK_THROWS_WITH(run(half_meet), "all threads wait for each other");
  CHECK_THROWS_WITH(run(half_a_warp), "all threads wait for each other");
  CHECK_THROWS(run(some_leave));
  CHECK_THROWS(run(too_much_shared));
  std::uint32_t flag = 0, seen = 0;
  CHECK_THROWS_WITH(run(wait_for, &flag, &seen), "threads wait for a flag that nobody sets");
}

namespace {

// Element i of a lane's part of a, b and d, as the PTX ISA has them for mma.m16n8k16 (row, column).
struct Place {
  int row, column;
};
Place of_a(int lane, int i) {
  return {lane / 4 + (i < 2 || (4 <= i && i < 6) ? 0 : 8), lane % 4 * 2 + (i & 1) + (i < 4 ? 0 : 8)};
}
Place of_b(int lane, int i) { return {lane % 4 * 2 + (i & 1) + (i < 2 ? 0 : 8), lane / 4}; }
Place of_d(int lane, int i) { return {lane / 4 + (i < 2 ? 0 : 8), lane % 4 * 2 + (i & 1)}; }

// As its lanes have them in their registers.
struct Registers {
  std::uint16_t a[32][8], b[32][4];
  float d[32][4];
};
template <class T>
void multiply_registers(Registers* warp) {
  const int lane = static_cast<int>(threadIdx.x);
  std::uint32_t a[4], b[2];
  for (int i = 0; i < 4; ++i) a[i] = warp->a[lane][2 * i] | std::uint32_t{warp->a[lane][2 * i + 1]} << 16;
  for (int i = 0; i < 2; ++i) b[i] = warp->b[lane][2 * i] | std::uint32_t{warp->b[lane][2 * i + 1]} << 16;
  cuda::multiply_add<T>(warp->d[lane], a, b[0], b[1]);
}
template <class T>
bool product_is_right() {
  int a[16][16], b[16][8];  // small whole numbers: sums are exact
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) a[i][j] = (i * 7 + j * 3) % 11 - 4;
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j) b[i][j] = (i * 5 + j * 13) % 17 - 6;
  Registers warp{};
  for (int lane = 0; lane < 32; ++lane) {
    const auto bits = [](int value) { return T(static_cast<float>(value)).bits; };
    for (int i = 0; i < 8; ++i) warp.a[lane][i] = bits(a[of_a(lane, i).row][of_a(lane, i).column]);
    for (int i = 0; i < 4; ++i) warp.b[lane][i] = bits(b[of_b(lane, i).row][of_b(lane, i).column]);
    for (int i = 0; i < 4; ++i) warp.d[lane][i] = 1000.0f * static_cast<float>(i);
  }
  Machine machine;
  cuda::launch(multiply_registers<T>, dim3{}, 32, machine.stream(0), &warp);
  machine.run();
  bool right = true;
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const auto [row, column] = of_d(lane, i);
      int sum = 1000 * i;
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      right = right && warp.d[lane][i] == static_cast<float>(sum);
    }
  }
  return right;
}

struct Tiles {
  alignas(16) std::uint16_t rows[32][8];  // of four matrices
};
template <bool transposed>
void load_tiles(std::uint32_t* out) {
  TROIKA_SHARED(Tiles, tiles);
  for (int i = 0; i < 8; ++i) tiles.rows[threadIdx.x][i] = static_cast<std::uint16_t>(threadIdx.x * 8 + i);
  __syncthreads();
  std::uint32_t got[4];
  cuda::load_matrices<transposed>(got, tiles.rows[threadIdx.x]);
  for (int i = 0; i < 4; ++i) out[threadIdx.x * 4 + i] = got[i];
}

struct Copied {
  alignas(16) std::uint32_t at[2][32][4];
};
template <bool waits>
void copy_two(const std::uint32_t* in, std::uint32_t* out) {
  TROIKA_SHARED(Copied, copied);
  const auto thread = threadIdx.x;
  cuda::copy_later(copied.at[0][thread], in + 4 * thread, 16);
  cuda::copy_later(copied.at[1][thread], in, 0);
  cuda::end_of_copies();
  if constexpr (waits) cuda::wait_for_copies<0>();
  __syncthreads();
  out[thread] = copied.at[0][31 - thread][1] + copied.at[1][31 - thread][3];
  if constexpr (!waits) cuda::wait_for_copies<0>();
}

}  // namespace

TEST_CASE("tensor cores of the shim multiply matrices whose elements lie in lanes as PTX says") {
  CHECK(product_is_right<bf16>());
  CHECK(product_is_right<f16>());
}

TEST_CASE("matrices come from shared memory to the lanes that multiply them, also transposed") {
  Machine machine;
  std::vector<std::uint32_t> plain(128), transposed(128);
  cuda::launch(load_tiles<false>, dim3{}, 32, machine.stream(0), plain.data());
  cuda::launch(load_tiles<true>, dim3{}, 32, machine.stream(0), transposed.data());
  machine.run();
  for (std::uint32_t lane = 0; lane < 32; ++lane) {
    for (std::uint32_t i = 0; i < 4; ++i) {
      const std::uint32_t g = lane / 4, t = lane % 4, first = 64 * i + 8 * g + 2 * t;
      CHECK(plain[lane * 4 + i] == (first | (first + 1) << 16));
      const std::uint32_t above = 64 * i + 16 * t + g;
      CHECK(transposed[lane * 4 + i] == (above | (above + 8) << 16));
    }
  }
}

TEST_CASE("copies to shared memory are there when they were waited for") {
  std::vector<std::uint32_t> in(128), out(32);
  for (std::uint32_t i = 0; i < 128; ++i) in[i] = i;
  Memory<std::uint32_t> from(in);
  const auto all_right = [&](auto kernel, Schedule schedule) {
    Machine machine(schedule);
    cuda::launch(kernel, dim3{}, 32, machine.stream(0), static_cast<const std::uint32_t*>(from.data()), out.data());
    machine.run();
    for (std::uint32_t i = 0; i < 32; ++i)
      if (out[i] != 4 * (31 - i) + 1) return false;
    return true;
  };
  for (const auto& schedule : schedules()) {
    CHECK(all_right(copy_two<true>, schedule));
    bool noticed = false;
    try {
      noticed = !all_right(copy_two<false>, schedule);
    } catch (const std::exception&) {
      noticed = true;
    }
    CHECK(noticed);
  }
}

#if defined(TROIKA_FOLLOWS_ACCESSES)
namespace {

struct Numbers {
  int at[2];
};
void all_write_shared(int* out) {
  TROIKA_SHARED(Numbers, numbers);
  numbers.at[0] = 5;
  __syncthreads();
  if (threadIdx.x == 0) *out = numbers.at[0];
}
void read_by_all_then_written(int* out) {
  TROIKA_SHARED(Numbers, numbers);
  if (threadIdx.x == 3) numbers.at[0] = 5;
  __syncthreads();
  if (numbers.at[0] > 0 && threadIdx.x == 40) numbers.at[0] = 5;
  __syncthreads();
  if (threadIdx.x == 0) *out = numbers.at[0];
}
void one_writes_shared(int* out) {
  TROIKA_SHARED(Numbers, numbers);
  if (threadIdx.x < 2) numbers.at[threadIdx.x] = 5;
  __syncthreads();
  if (threadIdx.x == 7) *out = numbers.at[0];
}
void every_block_writes(int* out) {
  if (threadIdx.x == 0) *out = 5;
}
// Thread 1 writes, thread 0 tells; of another kernel thread 0 hears, and `reader` reads.
template <bool with_barrier>
void tell(int* value, std::uint32_t* flag) {
  if (threadIdx.x == 1) *value = 5;
  if constexpr (with_barrier) __syncthreads();
  if (threadIdx.x == 0) cuda::store_release(flag, 1);
}
template <bool with_barrier, unsigned reader = 1>
void hear(const int* value, const std::uint32_t* flag, int* out) {
  if (threadIdx.x == 0) {
    while (cuda::load_acquire(flag) == 0) cuda::pause();
  }
  if constexpr (with_barrier) __syncthreads();
  if (threadIdx.x == reader) *out = *value;
}

}  // namespace

TEST_CASE("threads that touch the same memory with nothing to order them are told, also where the result is right") {
  for (const auto& schedule : schedules()) {
    const auto run = [&](auto kernel, unsigned blocks = 1) {
      Machine machine(schedule);
      int out = 5;
      cuda::launch(kernel, dim3{blocks}, 64, machine.stream(0), &out);
      machine.run();
      CHECK(out == 5);
    };
    using Catch::Matchers::ContainsSubstring;
    CHECK_NOTHROW(run(one_writes_shared));
    CHECK_NOTHROW(run(every_block_writes));
    CHECK_THROWS_WITH(run(all_write_shared),
                      ContainsSubstring("of that block has written, and nothing orders the two"));
    CHECK_THROWS_WITH(run(read_by_all_then_written), ContainsSubstring("nothing orders the two"));
    CHECK_THROWS_WITH(run(every_block_writes, 2), ContainsSubstring("of another block has written"));

    const auto exchange = [&](auto first, auto second, bool again = false) {
      Machine machine(schedule);
      int value = 0, out = 0;
      std::uint32_t flag = 0, other = 0;
      cuda::launch(first, dim3{}, 32, machine.stream(0), &value, &flag);
      cuda::launch(second, dim3{}, 32, machine.stream(1), &value, &flag, &out);
      // Of its stream it knows that `first` has ended, not that `second` has.
      if (again) cuda::launch(first, dim3{}, 32, machine.stream(0), &out, &other);
      machine.run();
      CHECK(out == 5);
    };
    CHECK_NOTHROW(exchange(tell<true>, hear<true>));
    CHECK_NOTHROW(exchange(tell<true>, hear<false, 0>));
    CHECK_THROWS_WITH(exchange(tell<false>, hear<true>), ContainsSubstring("nothing orders the two"));
    CHECK_THROWS_WITH(exchange(tell<true>, hear<false>), ContainsSubstring("nothing orders the two"));
    CHECK_THROWS_WITH(exchange(tell<true>, hear<true>, true), ContainsSubstring("of another block has"));
  }
}
#endif

TEST_CASE("a planted bug is seen: a barrier that is left out, an element too many") {
  CHECK(misses_every_barrier([](Machine& machine) {
    std::vector<int> in(64, 3), out(64, -1);
    cuda::launch(turn_around, dim3{}, 64, machine.stream(0), in.data(), out.data());
    machine.run();
    return out == in;
  }));
#if !TROIKA_SANITIZED  // AddressSanitizer ends the program there
  const auto one_too_many = +[](int* out, int count) {
    for (int i = static_cast<int>(threadIdx.x); i <= count; i += 32) out[i] = 0;
  };
  Memory<int> memory(std::size_t{10});
  Machine machine;
  cuda::launch(one_too_many, dim3{}, 32, machine.stream(0), memory.data(), 10);
  machine.run();
  CHECK_FALSE(memory.intact());
#endif
}
