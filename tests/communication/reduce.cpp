// SPDX-License-Identifier: Apache-2.0
#include <troika/communication/reduce.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "communication/support.hpp"
#include "support/catch.hpp"

using namespace troika;
using namespace troika::test;

namespace {

std::vector<CpuLevel> levels() {
  std::vector<CpuLevel> result{CpuLevel::plain};
  if (cpu_level() != CpuLevel::plain) result.push_back(CpuLevel::avx2);
  if (cpu_level() == CpuLevel::avx512) result.push_back(CpuLevel::avx512);
  return result;
}

template <Element E>
std::vector<E> reduce_all(const std::vector<std::vector<E>>& in, Reduction op, CpuLevel level) {
  std::vector<const std::byte*> inputs;
  for (const auto& part : in) inputs.push_back(reinterpret_cast<const std::byte*>(part.data()));
  std::vector<E> out(in[0].size());
  auto* output = reinterpret_cast<std::byte*>(out.data());
  reduce(dtype_of<E>, op, inputs, std::span(&output, 1), 0, out.size(), level);
  return out;
}

template <class E>
bool is_nan(E value) {
  if constexpr (std::is_integral_v<E>)
    return false;
  else
    return std::isnan(static_cast<float>(value));
}

}  // namespace

TEMPLATE_TEST_CASE("A reduction gives the bits of a plain loop, for every instruction set, length and number of inputs",
                   "[reduce]", float, f16, bf16, std::int32_t, std::int8_t, std::uint8_t) {
  for (const CpuLevel level : levels()) {
    for (const std::size_t inputs : {1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 9u, 16u, 21u, 32u, 45u}) {
      for (const std::size_t count : {0u, 1u, 31u, 32u, 33u, 64u, 127u, 128u, 300u}) {
        for (const Reduction op : {Reduction::sum, Reduction::max}) {
          std::vector<std::vector<TestType>> in;
          for (std::size_t r = 0; r < inputs; ++r) in.push_back(elements<TestType>(count, static_cast<int>(r), count));
          std::vector<TestType> wanted(count), terms(inputs);
          for (std::size_t i = 0; i < count; ++i) {
            for (std::size_t r = 0; r < inputs; ++r) terms[r] = in[r][i];
            wanted[i] = reduced(terms, op);
          }
          const auto got = reduce_all(in, op, level);
          if (!same_bits(got, wanted))
            FAIL_CHECK(to_string(level) << " " << inputs << " inputs of " << count << " " << to_string(op));
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("Every 16-bit float passes through unchanged, and every pair of a sample is rounded once",
                   "[reduce]", f16, bf16) {
  std::vector<TestType> all;
  for (std::uint32_t bits = 0; bits < 65536; ++bits)
    all.push_back(TestType::from_bits(static_cast<std::uint16_t>(bits)));
  for (const CpuLevel level : levels()) {
    const auto alone = reduce_all<TestType>({all}, Reduction::sum, level);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < all.size(); ++i)
      wrong += is_nan(all[i]) ? !is_nan(alone[i]) : alone[i].bits != all[i].bits;
    CHECK(wrong == 0);
    for (std::uint64_t round = 0; round < 40; ++round) {
      std::vector<TestType> others;
      for (std::size_t i = 0; i < all.size(); ++i) {
        others.push_back(TestType::from_bits(static_cast<std::uint16_t>(mix(round * 65536 + i))));
      }
      const auto sums = reduce_all<TestType>({all, others}, Reduction::sum, level);
      const auto maxima = reduce_all<TestType>({all, others}, Reduction::max, level);
      for (std::size_t i = 0; i < all.size(); ++i) {
        const TestType sum(static_cast<float>(all[i]) + static_cast<float>(others[i]));
        wrong += is_nan(sum) ? !is_nan(sums[i]) : sums[i].bits != sum.bits;
        const float a = static_cast<float>(all[i]), b = static_cast<float>(others[i]);
        if (std::isnan(a) || std::isnan(b))
          wrong += !is_nan(maxima[i]);
        else
          wrong += static_cast<float>(maxima[i]) != std::max(a, b);
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("Sums of halves of the ranks, reduced, are the sum over all ranks, bit for bit", "[reduce]") {
  for (const CpuLevel level : levels()) {
    for (const std::size_t terms : {2u, 4u, 8u, 16u}) {
      std::vector<std::vector<float>> in;
      for (std::size_t r = 0; r < terms; ++r) in.push_back(elements<float>(7, static_cast<int>(r), 300));
      const auto whole = reduce_all(in, Reduction::sum, level);
      for (std::size_t ranks = 2; ranks < terms; ranks *= 2) {
        const auto each = static_cast<std::ptrdiff_t>(terms / ranks);
        std::vector<std::vector<float>> sums;
        for (auto first = in.begin(); first != in.end(); first += each) {
          sums.push_back(reduce_all(std::vector(first, first + each), Reduction::sum, level));
        }
        CHECK(same_bits(reduce_all(sums, Reduction::sum, level), whole));
      }
    }
  }
}

TEST_CASE("A NaN wins a maximum, from whichever rank", "[reduce]") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const CpuLevel level : levels()) {
    const auto result =
        reduce_all<float>({{nan, 1, 1, -inf, -1}, {1, nan, 1, -inf, inf}, {2, 2, nan, -inf, 0}}, Reduction::max, level);
    CHECK((std::isnan(result[0]) && std::isnan(result[1]) && std::isnan(result[2])));
    CHECK(result[3] == -inf);
    CHECK(result[4] == inf);
  }
}

TEST_CASE("Integer sums wrap around", "[reduce]") {
  for (const CpuLevel level : levels()) {
    CHECK(reduce_all<std::int8_t>({{127, -128}, {1, -1}}, Reduction::sum, level) ==
          std::vector<std::int8_t>{-128, 127});
    CHECK(reduce_all<std::uint8_t>({{255}, {2}}, Reduction::sum, level) == std::vector<std::uint8_t>{1});
    CHECK(reduce_all<std::int32_t>({{INT32_MAX}, {1}}, Reduction::sum, level) == std::vector<std::int32_t>{INT32_MIN});
  }
}
