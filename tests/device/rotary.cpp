// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include <troika/device/host/rotary.hpp>

#include "inputs.hpp"

using namespace troika;
using namespace troika::test;

TEST_CASE("the rotary table holds the cosines and sines of position over theta to a power") {
  for (const float theta : {10000.0f, 500000.0f, 1000000.0f}) {
    for (const std::int64_t head_dim : {2, 6, 64, 128}) {
      const RotaryTable table(600, head_dim, {theta, {}});
      REQUIRE(table.positions() == 600);
      for (std::int64_t position = 0; position < 600; position += 37) {
        for (std::int64_t i = 0; i < head_dim / 2; ++i) {
          const double angle =
              static_cast<double>(position) * std::pow(double(theta), -2.0 * double(i) / double(head_dim));
          // The frequency and the angle are floats, as they are where the models come from.
          const double bound = 4 * epsilon * (1 + 3 * angle);
          REQUIRE(close(double(table.cos(position)[i]), std::cos(angle), bound));
          REQUIRE(close(double(table.sin(position)[i]), std::sin(angle), bound));
        }
      }
    }
  }
}

TEST_CASE("llama3 scaling leaves high frequencies, divides low ones, and blends between") {
  // The definition with wavelengths, in double.
  const Llama3Scaling llama3{8, 1, 4, 8192};
  const RotaryTable scaled(3, 128, {500000, llama3}), plain(3, 128, {500000, {}});
  int left = 0, divided = 0, blended = 0;
  for (int i = 0; i < 64; ++i) {
    const double frequency = std::pow(500000.0, -2.0 * i / 128), wavelength = 2 * std::acos(-1.0) / frequency;
    double expected = 0;
    if (wavelength < 8192.0 / 4) {
      expected = frequency;
      ++left;
    } else if (wavelength > 8192.0 / 1) {
      expected = frequency / 8;
      ++divided;
    } else {
      const double smooth = (8192.0 / wavelength - 1) / (4 - 1);
      expected = (1 - smooth) * frequency / 8 + smooth * frequency;
      ++blended;
    }
    for (int position = 0; position < 3; ++position) {
      REQUIRE(close(double(scaled.sin(position)[i]), std::sin(position * expected), 2e-6 * position * expected));
    }
    if (wavelength < 8192.0 / 4) REQUIRE(scaled.sin(2)[i] == plain.sin(2)[i]);
  }
  REQUIRE(left > 20);
  REQUIRE(divided > 10);
  REQUIRE(blended > 2);
}

TEST_CASE("rotation turns each pair (i, i + half) by the angle of its token's position") {
  for (const int threads : {1, 2}) {
    auto device = device_of(threads);
    HostStream stream(device);
    for (const auto level : levels()) {
      for (const std::int64_t heads : {0, 1, 3}) {
        for (const std::int64_t head_dim : {2, 4, 6, 10, 34, 64, 80, 128}) {
          for (const std::int64_t tokens : {0, 1, 2, 5, 65}) {
            const RotaryTable table(200, head_dim);
            std::vector<std::int32_t> positions;
            for (std::int64_t t = 0; t < tokens; ++t)
              positions.push_back(static_cast<std::int32_t>((t * 37 + 5) % 200));
            const auto before = random_values(tokens * heads * head_dim, 1);
            auto x = before;
            rotary(stream, view(x, {tokens, heads, head_dim}), positions, table, level);
            std::int64_t wrong = 0;
            const std::int64_t half = head_dim / 2;
            for (std::int64_t t = 0; t < tokens; ++t) {
              for (std::int64_t h = 0; h < heads; ++h) {
                for (std::int64_t i = 0; i < half; ++i) {
                  const auto low = static_cast<std::size_t>((t * heads + h) * head_dim + i),
                             high = low + static_cast<std::size_t>(half);
                  const double a = double(before[low]), b = double(before[high]);
                  const double c = double(table.cos(positions[static_cast<std::size_t>(t)])[i]);
                  const double s = double(table.sin(positions[static_cast<std::size_t>(t)])[i]);
                  wrong += !close(double(x[low]), a * c - b * s, 4 * epsilon * (std::abs(a * c) + std::abs(b * s)));
                  wrong += !close(double(x[high]), b * c + a * s, 4 * epsilon * (std::abs(b * c) + std::abs(a * s)));
                }
              }
            }
            CAPTURE(threads, to_string(level), heads, head_dim, tokens);
            REQUIRE(wrong == 0);
          }
        }
      }
    }
  }
}

TEST_CASE("a table of fewer features than a head turns the first of them, and leaves the others") {
  HostDevice device;
  HostStream stream(device);
  const RotaryTable table(9, 6);
  const std::vector<std::int32_t> positions{8, 3};
  for (const auto level : levels()) {
    const auto before = random_values(2 * 3 * 10, 1);
    auto x = before;
    rotary(stream, view(x, {2, 3, 10}), positions, table, level);
    for (std::size_t head = 0; head < 6; ++head) {
      std::vector<float> turned(before.begin() + static_cast<std::ptrdiff_t>(head * 10),
                                before.begin() + static_cast<std::ptrdiff_t>(head * 10 + 6));
      rotary(stream, view(turned, {1, 1, 6}), std::span(positions).subspan(head / 3, 1), table, level);
      for (std::size_t i = 0; i < 10; ++i) REQUIRE(x[head * 10 + i] == (i < 6 ? turned[i] : before[head * 10 + i]));
    }
  }
}

TEST_CASE("linear scaling divides positions, longrope's magnitude multiplies cosines and sines") {
  const RotaryTable plain(33, 8), stretched(33, 8, {.factor = 4}), larger(33, 8, {.magnitude = 1.5f});
  for (std::int64_t i = 0; i < 4; ++i) {
    for (std::int64_t position = 0; position < 8; ++position) {
      REQUIRE(close(double(stretched.cos(4 * position)[i]), double(plain.cos(position)[i]), 1e-6));
      REQUIRE(close(double(stretched.sin(4 * position)[i]), double(plain.sin(position)[i]), 1e-6));
      REQUIRE(larger.cos(position)[i] == 1.5f * plain.cos(position)[i]);
      REQUIRE(larger.sin(position)[i] == 1.5f * plain.sin(position)[i]);
    }
  }
}

TEST_CASE("a position outside of the table, or an odd head, is an error that says what is valid") {
  HostDevice device;
  HostStream stream(device);
  const RotaryTable table(10, 4);
  std::vector<float> x(8);
  const std::vector<std::int32_t> high{3, 10}, low{-1, 0}, one{1};
  REQUIRE_THROWS_WITH(rotary(stream, view(x, {2, 1, 4}), high, table), Catch::Matchers::ContainsSubstring("0 to 9"));
  REQUIRE_THROWS_WITH(rotary(stream, view(x, {2, 1, 4}), low, table), Catch::Matchers::ContainsSubstring("-1"));
  REQUIRE_THROWS_AS(rotary(stream, view(x, {2, 1, 4}), one, table), Error);
  REQUIRE_THROWS_AS(rotary(stream, view(x, {1, 4, 2}), one, table), Error);
  REQUIRE_THROWS_AS(RotaryTable(10, 3), Error);
  REQUIRE_THROWS_AS(RotaryTable(-1, 4), Error);
  REQUIRE_THROWS_AS(RotaryTable(10, 4, {0.0f, {}}), Error);
}
