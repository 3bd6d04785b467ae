// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <troika/communication/transport.hpp>
#include <troika/core/dtype.hpp>

#include "communication/support.hpp"

namespace troika::test {

// A random program of collectives, and what goes wrong in it.
enum class Kind { none, stop, throws_inside, throws_outside, leaves, diverges, diverges_inside, slow, a_bit_slow };
inline constexpr const char* kind_names[] = {
    "none", "stop", "throws_inside", "throws_outside", "leaves", "diverges", "diverges_inside", "slow", "a_bit_slow"};

struct Step {
  enum class What {
    all_reduce,
    all_gather,
    uneven_gather,
    reduce_scatter,
    broadcast,
    all_to_all,
    barrier,
    ring,
    group
  };
  static constexpr int kinds = 9;
  What what = What::barrier;
  DType dtype = DType::f32;
  std::size_t count = 0;
  Reduction reduction = Reduction::sum;
  int root = 0;
  std::uint64_t seed = 0;
};

struct Plan {
  std::uint64_t seed = 0;
  int ranks = 2, guilty = 0;
  Kind kind = Kind::none;
  std::vector<Step> steps;
  std::size_t at = 0;        // index of the step at which the rank throws, leaves or diverges
  std::uint64_t inside = 1;  // number of the step in the fabric at which it stops, throws, diverges or is slow
  bool has_groups = false;

  std::string describe() const {
    std::string text = "seed " + std::to_string(seed) + ": rank " + std::to_string(guilty) + " of " +
                       std::to_string(ranks) + " " + kind_names[static_cast<int>(kind)] + " at " + std::to_string(at) +
                       "/" + std::to_string(inside) + " of";
    for (const auto& step : steps) text += " " + std::to_string(static_cast<int>(step.what));
    return text;
  }
};

// The program and the mishap of a seed.
inline Plan make_plan(std::uint64_t seed, std::span<const Kind> kinds) {
  std::uint64_t state = mix(seed + 0x5eed);
  const auto draw = [&](std::uint64_t below) { return (state = mix(state + 0x9e3779b97f4a7c15u)) % below; };
  Plan plan;
  plan.seed = seed;
  plan.ranks = 2 + static_cast<int>(draw(4));
  plan.guilty = static_cast<int>(draw(static_cast<std::uint64_t>(plan.ranks)));
  plan.kind = kinds[draw(kinds.size())];
  const auto length = 2 + draw(5);
  for (std::uint64_t i = 0; i < length; ++i) {
    Step step;
    step.what = static_cast<Step::What>(draw(Step::kinds));
    step.dtype = draw(2) ? DType::f32 : DType::i32;
    constexpr std::size_t counts[] = {1, 2, 5, 16, 33, 4, 7, 0};
    step.count = counts[draw(8)];
    step.reduction = draw(4) ? Reduction::sum : Reduction::max;
    step.root = static_cast<int>(draw(static_cast<std::uint64_t>(plan.ranks)));
    step.seed = draw(1 << 20);
    plan.has_groups |= step.what == Step::What::group;
    plan.steps.push_back(step);
  }
  plan.at = draw(length + 1);
  plan.inside = 1 + draw(12 * length);
  return plan;
}

}  // namespace troika::test
