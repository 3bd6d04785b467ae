// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <kernels/candidates.cuh>
#include <kernels/candidates_truth.hpp>

#include "kernel_test.hpp"

using namespace troika;
using namespace troika::test;

namespace {

bool candidates_are_right(std::vector<float> logits, int k, Machine& machine) {
  const auto size = static_cast<std::int64_t>(logits.size());
  Memory<float> in(logits);
  Memory<Candidate> scratch(static_cast<std::size_t>(cuda::candidate_scratch(size, k))),
      out(static_cast<std::size_t>(k));
  Memory<std::uint32_t> nan(std::vector<std::uint32_t>{0});
  cuda::top_candidates(in.data(), size, 1000, k, scratch.data(), out.data(), nan.data(), machine.stream(0));
  machine.run();
  const auto expected = truth::top_candidates(logits, 1000, static_cast<std::size_t>(k));
  const auto got = out.values();
  bool all = out.intact() && scratch.intact() && nan.values()[0] == 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    all = all && (i < expected.size() ? got[i].id == expected[i].id && got[i].logit == expected[i].logit
                                      : got[i].id == cuda::no_token);
  }
  return all;
}

}  // namespace

TEST_CASE("the best tokens are found, best first, the lower id first among equals") {
  for (const auto& schedule : schedules()) {
    for (const std::size_t size : {1u, 40u, 2048u, 2049u, 9000u}) {
      for (const int k : {1, 5, 41}) {
        if (size > 2049 && k > 5) continue;
        CAPTURE(size, k);
        auto logits = numbers(size, size, -3, 3);
        if (size > 30) logits[17] = logits[29] = logits[size - 1] = 7;
        Machine machine(schedule);
        CHECK(candidates_are_right(logits, k, machine));
      }
    }
  }
  Machine machine;  // more slices than one merge takes
  CHECK(candidates_are_right(numbers(2048 * 9, 1), 256, machine));
}

TEST_CASE("infinite logits are in order, and a NaN is told") {
  Machine machine;
  CHECK(candidates_are_right({0, INFINITY, -INFINITY, 1}, 4, machine));
  Memory<float> in(std::vector<float>{1, NAN, 2});
  Memory<Candidate> scratch(std::size_t{2}), out(std::size_t{1});
  std::uint32_t nan = 0;
  cuda::top_candidates(in.data(), 3, 0, 1, scratch.data(), out.data(), &nan, machine.stream(0));
  machine.run();
  CHECK(nan == 1);
}

TEST_CASE("finding candidates needs each of its barriers") {
  // The best are in the last warp and in the first by turns: a warp that goes ahead changes what another still needs.
  auto logits = numbers(700, 3);
  for (std::size_t i = 0; i < 6; ++i) logits[i % 2 ? i / 2 : 255 - i / 2] = static_cast<float>(20 - i);
  CHECK(misses_every_barrier([&](Machine& machine) { return candidates_are_right(logits, 6, machine); }));
}
