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
  *seen = *flag;
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
