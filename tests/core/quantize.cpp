// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

#include <support/catch.hpp>

#include <troika/core/dequantize.hpp>
#include <troika/core/quantize.hpp>

// Bytes are compared with the package `gguf` in tests/oracles/quantize_oracle.py; here the error is bounded by the
// steps that a type has, from its definition.
namespace {

using troika::WeightType;

std::vector<float> there_and_back(WeightType type, const std::vector<float>& values) {
  std::vector<std::byte> blocks(troika::row_bytes(type, static_cast<std::int64_t>(values.size())));
  troika::quantize(type, values, blocks.data());
  std::vector<float> back(values.size());
  troika::dequantize(type, blocks.data(), back);
  return back;
}

// The largest error that a number of this block may have.
double bound(WeightType type, const float* block, std::size_t size) {
  const auto [low, high] = std::minmax_element(block, block + size);
  const double most = std::max(std::abs(*low), std::abs(*high)), range = double{*high} - std::min(*low, 0.0f);
  const double half = most * 0x1p-10;  // scales are halves
  switch (type) {
    case WeightType::q8_0: return most / 127 * 0.51 + half;
    case WeightType::q4_0: return most / 8 + half;  // the end without a step of its own is a whole step off
    case WeightType::q5_0: return most / 16 + half;
    case WeightType::q4_1: return (double{*high} - *low) / 15 * 0.51 + half;
    case WeightType::q5_1: return (double{*high} - *low) / 31 * 0.51 + half;
    case WeightType::q4_k: return range / 15 + 2 * range / 63 + half;  // steps may be fewer than fit; 6 bits of scale
    case WeightType::q6_k: return most / 32 + most / 127 + half;
    default: return 0;
  }
}

}  // namespace

TEST_CASE("numbers that become blocks come back within the steps of the type") {
  std::mt19937 random(3);
  for (const auto type : troika::quantizable) {
    if (!troika::is_quantised(type)) continue;
    INFO(troika::to_string(type));
    for (const double centre : {0.0, 2.0, -2.0}) {
      std::normal_distribution<float> normal(static_cast<float>(centre), 1.0f);
      std::vector<float> values(256 * 200);
      for (auto& value : values) value = normal(random);
      const auto back = there_and_back(type, values);
      const auto block = static_cast<std::size_t>(troika::layout_of(type).block);
      double worst = 0;
      for (std::size_t i = 0; i < values.size(); i += block) {
        const double most = bound(type, values.data() + i, block);
        for (std::size_t j = i; j < i + block; ++j)
          worst = std::max(worst, std::abs(double{values[j]} - back[j]) / most);
      }
      CHECK(worst <= 1);
      CHECK(worst > 0.1);  // the bound says something
    }
  }
}

TEST_CASE("zeros, constants and the smallest numbers become blocks without a fault") {
  for (const auto type : troika::quantizable) {
    INFO(troika::to_string(type));
    for (const float value : {0.0f, -0.0f, 1.0f, -1.0f, 1e-40f, -1e-38f, 65504.0f}) {
      for (const float back : there_and_back(type, std::vector<float>(256, value))) {
        REQUIRE(std::abs(back - value) <= std::abs(value) * 0.02f + 1e-7f);
      }
    }
    CHECK(there_and_back(type, {}).empty());
  }
}

TEST_CASE("what no block can hold is refused") {
  std::vector<std::byte> blocks(1024);
  const auto refuse = [&](WeightType type, float value, const char* text) {
    std::vector<float> values(256, 0.5f);
    values[7] = value;
    CHECK_THROWS_WITH(troika::quantize(type, values, blocks.data()), Catch::Matchers::ContainsSubstring(text));
  };
  for (const auto type : troika::quantizable) {
    if (!troika::is_quantised(type)) continue;
    refuse(type, NAN, "element 7 is nan");
    refuse(type, std::numeric_limits<float>::infinity(), "element 7 is inf");
    refuse(type, 1e31f, "up to 1e30");
    refuse(type, 9e8f, "too large to quantise");
  }
  refuse(WeightType::q2_k, 0.5f, "Q2_K is read, but not made");
  CHECK_THROWS_WITH(troika::quantize(WeightType::q4_k, std::vector<float>(128), blocks.data()),
                    Catch::Matchers::ContainsSubstring("blocks of 256"));
}
