// SPDX-License-Identifier: Apache-2.0
#include <troika/device/host/amx.hpp>

#include <support/catch.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include <troika/device/host/linear.hpp>

#include "inputs.hpp"
#include "panel_inputs.hpp"
#include "quantised.hpp"

#if defined(__x86_64__)
#include "amx_model.hpp"

using namespace troika;
using namespace troika::test;

namespace {

// The model of the instructions needs no AMX, but what lies around them needs AVX-512.
bool has_vectors() {
  if (cpu_has_vnni() && cpu_has_bf16()) return true;
  WARN("this processor has no AVX-512 with VNNI and bf16");
  return false;
}

enum class Way { without, model, processor };

// x times a weight in panels, in so many words; what lies around y stays.
std::vector<float> product(HostDevice& device, Way way, const std::vector<float>& x, const Weight<HostDevice>& weight,
                           const std::vector<float>& bias = {}) {
  HostStream stream(device);
  const auto n = weight.shape()[0], k = weight.shape()[1], m = static_cast<std::int64_t>(x.size()) / k;
  std::vector<float> y(static_cast<std::size_t>(m * n + 2), 77);
  const View<float> inner{y.data() + 1, {m, n}};
  const float* const b = bias.empty() ? nullptr : bias.data();
  const kernels::PanelTerm term{weight.data(), inner, b};
  kernels::with_panels(weight.type(), [&]<WeightType type>() {
    using kernels::AmxProduct, kernels::multiply_panels;
    const auto view_of_x = view(x, {m, k});
    if (way == Way::without)
      multiply_panels<kernels::PanelProduct<type, CpuLevel::avx512>>(stream, view_of_x, std::span(&term, 1));
    else if (way == Way::model)
      multiply_panels<AmxProduct<type, AmxModel>>(stream, view_of_x, std::span(&term, 1));
    else
      multiply_panels<AmxProduct<type, kernels::AmxUnit>>(stream, view_of_x, std::span(&term, 1));
  });
  REQUIRE(y.front() == 77);
  REQUIRE(y.back() == 77);
  return {y.begin() + 1, y.end() - 1};
}

std::int64_t different(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  std::int64_t count = 0;
  for (std::size_t i = 0; i < a.size(); ++i) count += std::memcmp(&a[i], &b[i], sizeof(float)) != 0;
  return count;
}

// In tiles against the float64 truth; quantised weights also bit by bit against the product without tiles, and all
// against the tiles of this processor, if it has them.
void check(HostDevice& device, WeightType type, std::int64_t m, std::int64_t n, std::int64_t k, bool with_bias) {
  const auto x = random_values(m * k, 1), bias = random_values(with_bias ? n : 0, 3);
  const Elements w(type, n * k, 2);
  const auto weight = weight_of(device, type, n, k, w.bytes);
  const auto y = product(device, Way::model, x, weight, bias);
  const bool pairs = type == WeightType::bf16;
  INFO(to_string(type) << " m " << m << " n " << n << " k " << k << " threads " << device.team().size());
  REQUIRE(wrong_products({m, n, k}, pairs ? in_pairs(x) : in_bytes(x), w.values, bias, y, (pairs ? 1 : 16) * epsilon) ==
          0);
  if (!pairs) REQUIRE(different(y, product(device, Way::without, x, weight, bias)) == 0);
  if (cpu_has_amx()) REQUIRE(different(y, product(device, Way::processor, x, weight, bias)) == 0);
}

std::int64_t block_of(WeightType type) { return type == WeightType::bf16 ? 2 : layout_of(type).block; }

using Shapes = kernels::TileShapes;
Shapes square() { return Shapes{}.set(0, 8, 16, 64); }

}  // namespace

TEST_CASE("the model of the matrix unit refuses what the processor would") {
  CHECK_NOTHROW([] {
    AmxModel unit(Shapes{}.set(0, 1, 16, 64).set(1, 1, 16, 32).set(2, 1, 8, 64));
    unit.zero<0>();
    unit.bytes<0, 1, 2>();
    unit.pairs<0, 1, 2>();
  }());
  CHECK_THROWS_AS(AmxModel(Shapes{}.set(0, 1, 17, 64)), std::logic_error);
  CHECK_THROWS_AS(AmxModel(Shapes{}.set(0, 1, 16, 68)), std::logic_error);
  CHECK_THROWS_AS(AmxModel(Shapes{}.set(0, 1, 0, 64)), std::logic_error);
  CHECK_THROWS_AS(AmxModel(Shapes{}.set(0, 9, 16, 64)), std::logic_error);
  CHECK_THROWS_AS((AmxModel(square()).bytes<0, 0, 1>()), std::logic_error);
  CHECK_THROWS_AS((AmxModel(square()).pairs<0, 1, 1>()), std::logic_error);
  CHECK_THROWS_AS((AmxModel(square().set(1, 1, 16, 32)).bytes<0, 1, 2>()), std::logic_error);  // k of a and b differ
  CHECK_THROWS_AS((AmxModel(square().set(2, 1, 16, 32)).bytes<0, 1, 2>()), std::logic_error);  // columns
  CHECK_THROWS_AS((AmxModel(square().set(1, 1, 8, 64)).pairs<0, 1, 2>()), std::logic_error);   // rows
  CHECK_THROWS_AS(AmxModel(Shapes{}.set(0, 1, 16, 64)).zero<1>(), std::logic_error);
}

TEST_CASE("products in tiles are right with panels of every type at every size") {
  if (!has_vectors()) return;
  for (const int threads : {1, 2, 3}) {
    auto device = device_of(threads);
    for (const auto type : panel_types()) {
      const std::int64_t block = block_of(type);
      for (std::int64_t m = threads; m <= 40; m += threads == 1 ? 1 : 13) {
        check(device, type, m, 1 + 11 * m % 52, m % 3 == 0 ? 2 * block : block, m % 2 == 0);
      }
    }
  }
}

TEST_CASE("products in tiles are right at depths that are not multiples of what is unpacked at once") {
  if (!has_vectors()) return;
  for (const int threads : {1, 3}) {
    auto device = device_of(threads);
    for (const auto type : panel_types()) {
      const std::int64_t block = block_of(type), deep = block == 2 ? 2116 : block == 32 ? 1312 : 1280;
      for (const std::int64_t m : {1, 16, 25, 33}) check(device, type, m, 38, deep, m % 2 == 0);
      if (block == 2) check(device, type, 35, 81, 2112, true);
    }
  }
}

TEST_CASE("products in tiles are right where x is more than the caches hold") {
  if (!has_vectors()) return;
  auto device = device_of(2);
  for (const auto type : {WeightType::q4_0, WeightType::q6_k, WeightType::bf16}) {
    check(device, type, 512, 17, 2304, true);
    check(device, type, 530, 17, 256, false);
  }
}

TEST_CASE("a row has the same bits alone and among many others, in tiles of bf16") {
  if (!has_vectors()) return;
  auto device = device_of(2), alone = device_of(1);
  const std::int64_t n = 50, k = 1280, many = 600;
  const auto weight = weight_of(device, WeightType::bf16, n, k, Elements(WeightType::bf16, n * k, 2).bytes);
  const auto x = random_values(many * k, 1);
  const auto all = product(device, Way::model, x, weight);
  for (const std::int64_t row : {0, 7, 299, 511, 512, 599}) {
    const std::vector<float> one(x.begin() + row * k, x.begin() + (row + 1) * k);
    REQUIRE(different(product(alone, Way::model, one, weight), {all.begin() + row * n, all.begin() + (row + 1) * n}) ==
            0);
  }
}

TEST_CASE("NaN and infinities stay in their rows in tiles, and tiny activations stay finite") {
  if (!has_vectors()) return;
  auto device = device_of(1);
  check_strange_values(device,
                       [&](const auto& x, const auto& weight) { return product(device, Way::model, x, weight); });
}

TEST_CASE("a device may be kept from the matrix unit") {
  HostDevice with(0), without(0, HostOptions{.matrix_unit = false});
  for (const std::int64_t rows : {1, 8, 9, 512}) {
    CHECK(kernels::wants_amx(with, WeightType::bf16, rows) == cpu_has_amx());
    CHECK(kernels::wants_amx(with, WeightType::q4_0, rows) == (cpu_has_amx() && rows > 8));
    CHECK(!kernels::wants_amx(without, WeightType::bf16, rows));
  }
}
#endif
