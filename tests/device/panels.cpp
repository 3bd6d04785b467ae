// SPDX-License-Identifier: Apache-2.0
#include <troika/device/host/panels.hpp>

#include <support/catch.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <troika/device/host/embedding.hpp>
#include <troika/device/host/linear.hpp>

#include "inputs.hpp"
#include "panel_inputs.hpp"
#include "quantised.hpp"

using namespace troika;
using namespace troika::test;

namespace {

std::vector<float> product(HostDevice& device, const std::vector<float>& x, const Weight<HostDevice>& weight,
                           std::span<const float> bias = {}, CpuLevel level = cpu_level()) {
  HostStream stream(device);
  const auto n = weight.shape()[0], k = weight.shape()[1], m = static_cast<std::int64_t>(x.size()) / k;
  std::vector<float> y(static_cast<std::size_t>(m * n + 2), 77);
  weight.visit([&](auto w) {
    linear(stream, view(x, {m, k}), w, View<float>{y.data() + 1, {m, n}}, bias.empty() ? nullptr : bias.data(), level);
  });
  REQUIRE(y.front() == 77);
  REQUIRE(y.back() == 77);
  return {y.begin() + 1, y.end() - 1};
}

void check(HostDevice& device, WeightType type, std::int64_t m, std::int64_t n, std::int64_t k, bool with_bias) {
  const auto x = random_values(m * k, 1), bias = random_values(with_bias ? n : 0, 3);
  const Elements w(type, n * k, 2);
  const auto weight = weight_of(device, type, n, k, w.bytes);
  const auto y = product(device, x, weight, bias);
  for (const auto level : panel_levels()) REQUIRE(product(device, x, weight, bias, level) == y);
  const bool pairs = type == WeightType::bf16;
  INFO(to_string(type) << " m " << m << " n " << n << " k " << k << " threads " << device.team().size());
  REQUIRE(wrong_products({m, n, k}, pairs ? in_pairs(x) : in_bytes(x), w.values, bias, y, (pairs ? 1 : 16) * epsilon) ==
          0);
}

}  // namespace

TEST_CASE("a weight in panels has the bytes that it had, in another order") {
  HostDevice device;
  if (!has_panels()) return;
  for (const auto type : panel_types()) {
    const std::int64_t rows = 37, columns = 512, row = static_cast<std::int64_t>(row_bytes(type, columns));
    const auto blocks = Elements(type, rows * columns, 9).bytes;
    const auto weight = weight_of(device, type, rows, columns, blocks);
    REQUIRE(weight.order() == WeightOrder::panels);
    std::vector<std::byte> back(static_cast<std::size_t>(row));
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t panel = i / panel_rows * panel_rows;
      kernels::copy_panel_row(type, weight.data() + panel * row, std::min(panel_rows, rows - panel), i - panel,
                              columns / kernels::panel_block(type), back.data());
      wrong += std::memcmp(back.data(), blocks.data() + i * row, back.size()) != 0;
    }
    INFO(to_string(type));
    REQUIRE(wrong == 0);
  }
}

TEST_CASE("linear takes panels of every type at every size") {
  if (!has_panels()) return;
  for (const int threads : {1, 2}) {
    auto device = device_of(threads, Precision::fast);
    for (const auto type : panel_types()) {
      const auto block = type == WeightType::bf16 ? 34 : layout_of(type).block;
      for (const std::int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 24, 33, 41}) {
        for (const std::int64_t n : {1, 2, 15, 16, 17, 33}) check(device, type, m, n, block, (m + n) % 2 == 0);
      }
      const std::int64_t deep = block == 34   ? 4130
                                : block == 32 ? 1312
                                              : 1280;  // not a multiple of what is unpacked at once
      for (const std::int64_t m : {1, 4, 8, 31, 130}) check(device, type, m, 70, deep, m % 2 == 0);
    }
  }
}

TEST_CASE("a row has the same bits alone and among many others, before panels") {
  if (!has_panels()) return;
  auto device = device_of(2), alone = device_of(1);
  for (const auto type : panel_types()) {
    const std::int64_t n = 50, k = 1280, many = 600;  // more rows than are multiplied at once
    const auto weight = weight_of(device, type, n, k, Elements(type, n * k, 2).bytes);
    const auto x = random_values(many * k, 1);
    const auto all = product(device, x, weight);
    std::int64_t wrong = 0;
    for (const std::int64_t row : {0, 7, 299, 511, 512, 599}) {
      const std::vector<float> one(x.begin() + row * k, x.begin() + (row + 1) * k);
      const auto y = product(alone, one, weight);
      wrong += std::memcmp(y.data(), all.data() + row * n, y.size() * sizeof(float)) != 0;
    }
    INFO(to_string(type));
    REQUIRE(wrong == 0);
  }
}

TEST_CASE("products of one x with several weights have the bits of each alone, however they are stored") {
  using enum WeightType;
  for (const auto& types :
       {std::array{q8_0, q8_0, q8_0}, {q4_k, q4_k, q6_k}, {q6_k, q4_k, q4_k}, {bf16, q8_0, bf16}, {f32, f32, q4_0}}) {
    auto device = device_of(2, Precision::fast);
    HostStream stream(device);
    for (const std::int64_t m : {0, 1, 9, 600}) {
      const std::int64_t k = 512;
      const auto x = random_values(m * k, 1), bias = random_values(40, 3);
      const std::int64_t n[] = {40, 0, 17};
      std::vector<Weight<HostDevice>> weights;
      std::vector<std::vector<float>> y;
      for (std::size_t i = 0; i < 3; ++i) {
        const auto bytes = types[i] == f32 ? std::vector<std::byte>(static_cast<std::size_t>(n[i] * k * 4))
                                           : Elements(types[i], n[i] * k, 2).bytes;
        weights.push_back(weight_of(device, types[i], n[i], k, bytes));
        y.emplace_back(static_cast<std::size_t>(m * n[i]));
      }
      using P = Product<HostDevice>;
      linear_together(
          stream, view(x, {m, k}),
          std::array{P{weights[0], view(y[0], {m, n[0]}), bias.data()}, P{weights[1], view(y[1], {m, n[1]}), nullptr},
                     P{weights[2], view(y[2], {m, n[2]}), nullptr}});
      for (std::size_t i = 0; i < 3; ++i) {
        INFO(to_string(types[i]) << " m " << m);
        REQUIRE(y[i] == product(device, x, weights[i], i == 0 ? std::span(bias) : std::span<const float>{}));
      }
    }
  }
}

TEST_CASE("NaN and infinities are not lost before panels, and tiny activations stay finite") {
  if (!has_panels()) return;
  auto device = device_of(1);
  check_strange_values(device, [&](const auto& x, const auto& weight) { return product(device, x, weight); });
}

TEST_CASE("an embedding looks its rows up in panels") {
  if (!has_panels()) return;
  const std::int64_t rows = 37, d = 512;
  auto device = device_of(2);
  HostStream stream(device);
  for (const auto type : panel_types()) {
    const auto [blocks, expected] = Elements(type, rows * d, 5);
    const std::vector<std::int32_t> ids{104, 100, 136, 99, 137, 115, 116};  // the table holds rows 100 to 136
    std::vector<float> y(ids.size() * static_cast<std::size_t>(d), 77);
    weight_of(device, type, rows, d, blocks).visit([&](auto table) {
      embedding(stream, ids, table, 100, view(y, {static_cast<std::int64_t>(ids.size()), d}));
    });
    std::int64_t wrong = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const std::int64_t row = ids[i] - 100;
      for (std::int64_t j = 0; j < d; ++j) {
        const float want = row >= 0 && row < rows ? expected[static_cast<std::size_t>(row * d + j)] : 0.0f;
        wrong += !(std::abs(y[i * static_cast<std::size_t>(d) + static_cast<std::size_t>(j)] - want) <= 1e-6f);
      }
    }
    INFO(to_string(type));
    REQUIRE(wrong == 0);
  }
}

TEST_CASE("only what products read faster is put into panels") {
  const std::vector<std::byte> blocks(34 * 2);
  auto exact = device_of(1, Precision::exact);
  CHECK(weight_of(exact, WeightType::q8_0, 2, 32, blocks).order() == WeightOrder::rows);
  HostDevice device;
  CHECK(weight_of(device, WeightType::f32, 2, 4, std::vector<std::byte>(32)).order() == WeightOrder::rows);
  CHECK(weight_of(device, WeightType::bf16, 2, 5, std::vector<std::byte>(20)).order() == WeightOrder::rows);
}
