// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <troika/communication/communication.hpp>
#include <troika/communication/simulated.hpp>
#include <troika/communication/threads.hpp>

#include "support/run_ranks.hpp"

namespace troika::test {

// The transports that every test of this folder runs on. `transport()` is called by each rank.
struct OnThreads {
  static constexpr const char* name = "Threads";
  explicit OnThreads(std::uint64_t = 0) {}
  Threads transport() { return {}; }
};
struct OnStagelessThreads {  // large messages at any size
  static constexpr const char* name = "Threads without staging";
  explicit OnStagelessThreads(std::uint64_t = 0) {}
  Threads transport() { return {{.staged_bytes = 0, .spins = 0}}; }
};
struct OnSimulated {
  static constexpr const char* name = "Simulated";
  SimulatedFabric fabric;
  explicit OnSimulated(std::uint64_t seed = 0) : fabric({.seed = seed}) {}
  Simulated transport() { return Simulated{fabric}; }
};

inline std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 31)) * 0x7fb5d329728ea185u;
  x = (x ^ (x >> 27)) * 0x81dadef4bc2dd44du;
  return x ^ (x >> 33);
}

// Element i of what a rank puts in: any rank can work out what any other has. Floats of many magnitudes, so that the
// order of additions shows; integers of the whole range, so that sums wrap.
template <Element E>
E element(std::uint64_t seed, int rank, std::size_t i) {
  const std::uint64_t bits = mix(mix(seed * 1000003u + static_cast<std::uint64_t>(rank)) + i);
  if constexpr (std::is_integral_v<E>) {
    return static_cast<E>(bits);
  } else {
    const float magnitude = std::exp2(static_cast<float>(bits % 16) - 8.0f);
    const float value = static_cast<float>(static_cast<std::int32_t>(bits >> 32)) * 0x1p-31f * magnitude;
    return E(value);
  }
}
template <Element E>
std::vector<E> elements(std::uint64_t seed, int rank, std::size_t count) {
  std::vector<E> data(count);
  for (std::size_t i = 0; i < count; ++i) data[i] = element<E>(seed, rank, i);
  return data;
}

// The sum of floats in the promised order: a binary tree whose left part is the largest power of two below their
// number.
inline float tree_sum(std::span<const float> terms) {
  if (terms.size() == 1) return terms[0];
  std::size_t left = 1;
  while (2 * left < terms.size()) left *= 2;
  // volatile: one rounding each step, whatever the compiler does
  volatile float sum = tree_sum(terms.first(left));
  sum = sum + tree_sum(terms.subspan(left));
  return sum;
}

// What a reduction must give: one element of each rank.
template <Element E>
E reduced(const std::vector<E>& terms, Reduction reduction) {
  if constexpr (std::is_integral_v<E>) {
    std::int64_t result = terms[0];
    for (std::size_t r = 1; r < terms.size(); ++r) {
      if (reduction == Reduction::sum)
        result += terms[r];
      else if (terms[r] > result)
        result = terms[r];
    }
    return static_cast<E>(static_cast<std::uint64_t>(result));
  } else {
    std::vector<float> floats;
    for (const E term : terms) floats.push_back(static_cast<float>(term));
    if (reduction == Reduction::sum) return E(tree_sum(floats));
    float result = floats[0];
    for (const float next : floats) {
      if (std::isnan(next) || next > result) result = std::isnan(result) ? result : next;
    }
    return E(result);
  }
}

template <class E>
bool same_bits(std::span<const E> a, std::span<const E> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}
template <class E>
bool same_bits(const std::vector<E>& a, const std::vector<E>& b) {
  return same_bits(std::span<const E>(a), std::span<const E>(b));
}

}  // namespace troika::test
