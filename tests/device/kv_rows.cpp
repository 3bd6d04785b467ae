// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <support/catch.hpp>

#include <troika/device/host/attention.hpp>
#include <troika/device/host/kv_rows.hpp>

#include "inputs.hpp"

using namespace troika;
using namespace troika::test;

namespace {

constexpr std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// How far a number may be from what is stored of it, in a head row whose largest is `most`.
double bound(KvType type, double value, double most) {
  switch (type) {
    case KvType::bf16: return std::abs(value) * 0x1p-8 + 1e-38;
    case KvType::f16: return std::abs(value) * 0x1p-11 + 0x1p-25;  // half of the smallest step below the normal ones
    case KvType::q8: return most / 254 * 1.0001;
    case KvType::f32: break;
  }
  return 0;
}

// What is stored, read by the definition of the formats.
double stored(const KvView& view, std::int64_t i) {
  const auto bits = [&] {
    std::uint16_t half;
    std::memcpy(&half, view.data + 2 * i, 2);
    return half;
  };
  switch (view.type) {
    case KvType::f32: {
      float value;
      std::memcpy(&value, view.data + 4 * i, 4);
      return double{value};
    }
    case KvType::bf16: {
      const std::uint32_t wide = std::uint32_t{bits()} << 16;
      float value;
      std::memcpy(&value, &wide, 4);
      return double{value};
    }
    case KvType::f16: {
      const int sign = bits() >> 15, exponent = bits() >> 10 & 31, fraction = bits() & 1023;
      if (exponent == 31) return fraction ? NAN : sign ? -INFINITY : INFINITY;
      const double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
      return sign ? -size : size;
    }
    case KvType::q8: break;
  }
  const auto steps = static_cast<std::int8_t>(view.data[i]);
  return double{view.scales[i / view.shape[2]]} * steps;
}

KvRows<HostDevice> rows_of(HostDevice& device, KvType type, const std::vector<float>& values, const Shape& shape) {
  HostStream stream(device);
  KvRows<HostDevice> rows(device, type, shape);
  // In pieces, as a prompt and tokens after it come.
  const std::int64_t half = shape[0] / 2;
  const View<const float> all(values.data(), shape);
  store(stream, all.rows(0, half), rows, 0);
  store(stream, all.rows(half, shape[0]), rows, half);
  return rows;
}

}  // namespace

TEST_CASE("keys and values are stored within the steps of their type") {
  for (const int threads : {1, 2}) {
    auto device = device_of(threads);
    for (const auto type : kv_types) {
      for (const std::int64_t d : {1, 7, 16, 80}) {
        const Shape shape{301, 3, d};
        auto values = random_values(shape.count(), 5, -3, 3);
        for (std::int64_t i = 0; i < shape.count(); i += 11) values[at(i)] *= 1e-6f;
        for (std::int64_t i = 0; i < d; ++i) values[at(4 * d + i)] = 0;
        const auto rows = rows_of(device, type, values, shape);
        const auto view = rows.first(shape[0]);
        std::int64_t wrong = 0;
        for (std::int64_t row = 0; row < shape[0] * shape[1]; ++row) {
          double most = 0;
          for (std::int64_t i = 0; i < d; ++i) most = std::max(most, std::abs(double{values[at(row * d + i)]}));
          for (std::int64_t i = row * d; i < (row + 1) * d; ++i) {
            wrong += !(std::abs(stored(view, i) - double{values[at(i)]}) <= bound(type, values[at(i)], most));
          }
        }
        CAPTURE(threads, to_string(type), d);
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("a cache of 16 bits takes half of the memory, one of 8 bits little more than a quarter") {
  auto device = device_of(1);
  const Shape shape{1000, 8, 64};
  const auto bytes = [&](KvType type) { return KvRows<HostDevice>(device, type, shape).bytes(); };
  CHECK(bytes(KvType::f32) == 1000 * 8 * 64 * 4);
  CHECK(2 * bytes(KvType::bf16) == bytes(KvType::f32));
  CHECK(2 * bytes(KvType::f16) == bytes(KvType::f32));
  CHECK(bytes(KvType::q8) == 1000 * 8 * (64 + 4));  // 27 %
}

TEST_CASE("attention over stored keys and values equals softmax in double over what is stored") {
  for (const int threads : {1, 2}) {
    auto device = device_of(threads);
    HostStream stream(device);
    for (const auto type : kv_types) {
      for (const auto level : levels()) {
        for (const std::int64_t d : {7, 64, 80}) {
          for (const std::int64_t tokens : {1, 5, 65}) {
            const std::int64_t offset = 150, heads = 6, kv_heads = 2, all = offset + tokens;
            const Shape q_shape{tokens, heads, d}, kv_shape{all, kv_heads, d};
            const auto q = random_values(q_shape.count(), 1, -3, 3), k = random_values(kv_shape.count(), 2, -3, 3),
                       v = random_values(kv_shape.count(), 3);
            const auto keys = rows_of(device, type, k, kv_shape), values = rows_of(device, type, v, kv_shape);
            const float scale = 1 / std::sqrt(static_cast<float>(d));
            std::vector<float> y(q.size(), 77);
            const std::vector<std::int32_t> map{0, 0, 0, 1, 1, 1};
            attention(stream, View<const float>(q.data(), q_shape), keys.first(all), values.first(all), map,
                      AttentionMask::causal(offset), scale, View<float>(y.data(), q_shape), 0, level);

            double worst = 0, of_the_type = 0;
            for (std::int64_t t = 0; t < tokens; ++t) {
              for (std::int64_t h = 0; h < heads; ++h) {
                const std::int64_t kv = map[at(h)], last = offset + t;
                std::vector<double> exact(at(last + 1)), scores(at(last + 1));
                for (std::int64_t s = 0; s <= last; ++s) {
                  for (std::int64_t i = 0; i < d; ++i) {
                    const std::int64_t j = (s * kv_heads + kv) * d + i;
                    const double part = double{q[at((t * heads + h) * d + i)]} * double{scale};
                    scores[at(s)] += part * stored(keys.first(all), j);
                    exact[at(s)] += part * double{k[at(j)]};
                  }
                }
                double total = 0, total_exact = 0;
                for (auto& score : scores) total += score = std::exp(score);
                for (auto& score : exact) total_exact += score = std::exp(score);
                for (std::int64_t i = 0; i < d; ++i) {
                  double sum = 0, sum_exact = 0;
                  for (std::int64_t s = 0; s <= last; ++s) {
                    const std::int64_t j = (s * kv_heads + kv) * d + i;
                    sum += scores[at(s)] / total * stored(values.first(all), j);
                    sum_exact += exact[at(s)] / total_exact * double{v[at(j)]};
                  }
                  const double got = double{y[at((t * heads + h) * d + i)]};
                  worst = std::max(worst, std::abs(got - sum));
                  of_the_type = std::max(of_the_type, std::abs(got - sum_exact));
                }
              }
            }
            CAPTURE(threads, to_string(type), to_string(level), d, tokens);
            REQUIRE(worst < 2e-5);  // |values| are at most 1
            // Against what was to be stored: the type's rounding of keys moves scores, of values the result.
            REQUIRE(of_the_type < (type == KvType::f32 ? 2e-5 : type == KvType::f16 ? 0.003 : 0.03));
          }
        }
      }
    }
  }
}

TEST_CASE("what is no number stays none, and nothing is written beside the rows") {
  auto device = device_of(1);
  HostStream stream(device);
  const Shape shape{2, 1, 4};
  for (const auto type : kv_types) {
    for (const float bad : {NAN, INFINITY}) {
      const auto rows = rows_of(device, type, {1, bad, 2, 3, 1, 2, 3, 4}, shape);
      CHECK_FALSE(std::isfinite(stored(rows.first(2), 1)));
      CHECK(std::isfinite(stored(rows.first(2), 5)));
    }
    KvRows<HostDevice> rows(device, type, shape);
    const std::vector<float> values(8);
    CHECK_THROWS_WITH(store(stream, View<const float>(values.data(), {2, 1, 4}), rows, 1),
                      Catch::Matchers::ContainsSubstring("do not go into"));
    CHECK_THROWS_WITH(store(stream, View<const float>(values.data(), {2, 2, 2}), rows, 0),
                      Catch::Matchers::ContainsSubstring("do not go into"));
  }
}
