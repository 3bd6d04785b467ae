// SPDX-License-Identifier: Apache-2.0
#include "quantised.hpp"

#include <support/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <troika/device/host/embedding.hpp>
#include <troika/device/host/linear.hpp>
#include <troika/device/weight.hpp>

#include "inputs.hpp"

using namespace troika;
using namespace troika::test;

namespace {

// How a product meets activations and weights, as linear.hpp says: as they are; in groups of 32 that share a scale; or
// both rounded to bf16.
enum class Meets { exact, bytes, pairs };

Meets how(HostDevice& device, CpuLevel level, std::int64_t m) {
  if (level == CpuLevel::plain || device.options().precision == Precision::exact) return Meets::exact;
  if (m <= kernels::ByteRows<WeightType::q4_0>::limit) return Meets::bytes;
  return level == CpuLevel::avx512 && cpu_has_bf16() ? Meets::pairs : Meets::exact;
}

std::vector<float> in_pairs(std::vector<float> x) {
  for (auto& value : x) value = static_cast<float>(bf16(value));
  return x;
}

void check(HostDevice& device, CpuLevel level, WeightType type, std::int64_t m, std::int64_t n, std::int64_t k,
           bool with_bias) {
  HostStream stream(device);
  auto x = random_values(m * k, 1);
  const auto bias = random_values(with_bias ? n : 0, 3);
  const auto blocks = random_blocks(type, n * k, 2);
  std::vector<float> y(static_cast<std::size_t>(m * n + 2), 77);
  linear(stream, view(std::as_const(x), {m, k}), QuantisedView{type, blocks.data(), {n, k}},
         View<float>{y.data() + 1, {m, n}}, with_bias ? bias.data() : nullptr, level);

  auto w = expanded(type, blocks);
  const auto meets = how(device, level, m);
  if (meets == Meets::bytes) x = in_bytes(x);
  if (meets == Meets::pairs) x = in_pairs(x), w = in_pairs(w);
  // Bytes are summed with their offset, and the last bit of what a block expands to is free where it has a minimum: it
  // may be rounded to the next bf16.
  const double more = meets == Meets::bytes ? 16 : meets == Meets::pairs && has_minimum(type) ? 4096 : 1;
  const auto wrong = wrong_products({m, n, k}, x, w, bias, std::span(y).subspan(1), epsilon * more);
  INFO(to_string(type) << " m " << m << " n " << n << " k " << k << " level " << to_string(level) << " threads "
                       << device.team().size() << " precision " << int(meets) << " bias " << with_bias);
  REQUIRE(wrong == 0);
  REQUIRE(y.front() == 77);
  REQUIRE(y.back() == 77);
}

}  // namespace

TEST_CASE("blocks of every type expand at every level to what they mean") {
  for (const auto type : quantised_types) {
    const auto block = layout_of(type).block;
    const auto blocks = random_blocks(type, 64 * block, 1);
    const auto expected = expanded(type, blocks);
    const float most = std::abs(*std::ranges::max_element(expected, {}, [](float v) { return std::abs(v); }));
    for (const auto level : levels()) {
      std::vector<float> values(expected.size());
      kernels::at_level<kernels::FewRows>(level, [&]<CpuLevel L>(kernels::FewRows<L>) {
        kernels::expand<L>(type, blocks.data(), 64 * block, values.data());
      });
      std::int64_t wrong = 0;
      for (std::size_t i = 0; i < values.size(); ++i) wrong += !(std::abs(values[i] - expected[i]) <= 1e-6f * most);
      INFO(to_string(type) << " at " << to_string(level));
      REQUIRE(wrong == 0);
    }
  }
}

TEST_CASE("linear takes quantised rows of every type at every size") {
  for (const auto precision : {Precision::fast, Precision::exact}) {
    for (const int threads : {1, 2}) {
      auto device = device_of(threads, precision);
      for (const auto level : levels()) {
        if (precision == Precision::exact && level == CpuLevel::plain) continue;  // the same code
        for (const auto type : quantised_types) {
          const auto block = layout_of(type).block;
          for (const std::int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17, 33}) {
            for (const std::int64_t n : {1, 2, 3, 5, 17}) check(device, level, type, m, n, block, (m + n) % 2 == 0);
          }
          for (const std::int64_t m : {1, 3, 8, 32, 45}) {
            for (const std::int64_t n : {7, 70})
              check(device, level, type, m, n, (m + n) % 2 ? 3 * block : 2 * block, n == 7);
          }
        }
      }
    }
  }
}

TEST_CASE("linear with quantised rows is right across the edges of its cache blocks") {
  auto device = device_of(2), alone = device_of(1);
  for (const auto level : levels()) {
    for (const auto type : quantised_types) {
      const std::int64_t k = layout_of(type).block == 32 ? 1312 : 1280;
      check(device, level, type, 40, 150, k, true);
      check(alone, level, type, 1, 150, k, false);
      check(device, level, type, 19, 101, k, true);
    }
  }
}

TEST_CASE("NaN and infinities are not lost before quantised rows") {
  auto device = device_of(1);
  HostStream stream(device);
  for (const auto level : levels()) {
    for (const float strange : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      for (const std::int64_t m : {1, 5, 40}) {
        const std::int64_t n = 9, k = 256;
        auto x = random_values(m * k, 1);
        x[static_cast<std::size_t>((m - 1) * k + 37)] = strange;
        const auto blocks = random_blocks(WeightType::q8_0, n * k, 2);
        std::vector<float> y(static_cast<std::size_t>(m * n));
        linear(stream, view(std::as_const(x), {m, k}), QuantisedView{WeightType::q8_0, blocks.data(), {n, k}},
               view(y, {m, n}), nullptr, level);
        for (std::size_t i = 0; i < y.size(); ++i)
          REQUIRE(std::isfinite(y[i]) == (i < static_cast<std::size_t>((m - 1) * n)));
      }
    }
  }
}

TEST_CASE("activations that are all zero, and tiny ones, stay finite before quantised rows") {
  auto device = device_of(1);
  HostStream stream(device);
  for (const auto type : quantised_types) {
    for (const float value : {0.0f, 1e-45f, 1e-38f}) {
      const std::vector<float> x(256, value);
      const auto blocks = random_blocks(type, 3 * 256, 2);
      std::vector<float> y(3);
      linear(stream, view(x, {1, 256}), QuantisedView{type, blocks.data(), {3, 256}}, view(y, {1, 3}));
      for (const float result : y) REQUIRE(std::abs(result) <= 1e-30f);
    }
  }
}

TEST_CASE("an embedding looks its rows up in a quantised table") {
  const std::int64_t rows = 11, d = 512;
  auto device = device_of(2);
  HostStream stream(device);
  for (const auto type : quantised_types) {
    const auto blocks = random_blocks(type, rows * d, 5);
    const auto expected = expanded(type, blocks);
    for (const auto level : levels()) {
      const std::vector<std::int32_t> ids{104, 100, 110, 99, 111};  // the table holds rows 100 to 110
      std::vector<float> y(5 * static_cast<std::size_t>(d), 77);
      embedding(stream, ids, QuantisedView{type, blocks.data(), {rows, d}}, 100, view(y, {5, d}), level);
      std::int64_t wrong = 0;
      for (std::int64_t i = 0; i < 5; ++i) {
        const std::int64_t row = ids[static_cast<std::size_t>(i)] - 100;
        for (std::int64_t j = 0; j < d; ++j) {
          const float want = row >= 0 && row < rows ? expected[static_cast<std::size_t>(row * d + j)] : 0.0f;
          wrong += !(std::abs(y[static_cast<std::size_t>(i * d + j)] - want) <= 1e-6f);
        }
      }
      INFO(to_string(type) << " at " << to_string(level));
      REQUIRE(wrong == 0);
    }
  }
}

TEST_CASE("rows that would cut a block are refused, with the block") {
  HostDevice device;
  HostStream stream(device);
  const std::vector<float> x(48);
  std::vector<float> y(1);
  const std::vector<std::byte> blocks(64);
  const auto contains = [](const char* text) { return Catch::Matchers::ContainsSubstring(text); };
  CHECK_THROWS_WITH(
      linear(stream, view(x, {1, 48}), QuantisedView{WeightType::q4_0, blocks.data(), {1, 48}}, view(y, {1, 1})),
      contains("multiples of 32"));
  CHECK_THROWS_WITH((Weight<HostDevice>(device, WeightType::q4_k, {2, 128})), contains("multiple of 256"));
  CHECK_THROWS_WITH((Weight<HostDevice>(device, DType::i8, {2, 128})), contains("i8"));
  CHECK(Weight<HostDevice>(device, WeightType::q6_k, {2, 512}).bytes() == 4 * 210);
}
