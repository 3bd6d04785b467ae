// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include <device/quantised.hpp>
#include <support/catch.hpp>

#include <troika/core/dequantize.hpp>
#include <troika/core/quantize.hpp>
#include <troika/device/cuda/cuda.hpp>
#include <troika/layers/overlap.hpp>

#include "mixed_ranks.hpp"

using namespace troika;
using namespace troika::test;
using recording::Recording;

namespace {

// A device, x (m, k), and weights of so many rows with the y of each alone and of all together; every other one has a bias.
struct Several {
  Several(CudaOptions options, std::int64_t m_, std::int64_t k_) : m(m_), k(k_), device(0, options) {
    x = placed(x_values, {m, k});
  }
  void add(WeightType type, std::int64_t n) {
    const auto seed = static_cast<std::uint32_t>(20 + weights.size());
    stored.push_back(is_quantised(type) ? random_blocks(type, n * k, seed) : std::vector<std::byte>());
    if (!is_quantised(type)) {
      stored.back().resize(static_cast<std::size_t>(n) * row_bytes(type, k));
      quantize(type, numbers(n * k, static_cast<int>(seed)), stored.back().data());
    }
    cuda::upload_bytes(stream, stored.back().data(), weights.emplace_back(device, type, Shape{n, k}).data(),
                       stored.back().size());
    bias_values.push_back(numbers(weights.size() % 2 * static_cast<std::size_t>(n), 12));
    biases.push_back(placed(bias_values.back(), {static_cast<std::int64_t>(bias_values.back().size())}));
    for (auto* y : {&alone, &together}) y->push_back(placed(Values(static_cast<std::size_t>(m * n), NAN), {m, n}));
  }
  const float* bias(std::size_t i) const { return bias_values[i].empty() ? nullptr : biases[i].data(); }
  template <std::size_t n>
  void multiply_together() {
    const auto products = [&]<std::size_t... i>(std::index_sequence<i...>) {
      return std::array<Product<CudaDevice>, n>{Product<CudaDevice>{weights[i], together[i].view(), bias(i)}...};
    };
    detail::multiply_together(stream, std::as_const(x).view(), products(std::make_index_sequence<n>()));
    stream.synchronize();
  }
  void multiply_alone(std::size_t i) {
    weights[i].visit([&](auto w) { linear(stream, std::as_const(x).view(), w, alone[i].view(), bias(i)); });
    stream.synchronize();
  }
  Values values(const CudaTensor<float>& tensor) {
    const auto host = read_back(stream, tensor.view());
    return {host.span().begin(), host.span().end()};
  }
  CudaTensor<float> placed(const Values& values, Shape shape) {
    CudaTensor<float> tensor(device, shape);
    upload(stream, View<const float>(values.data(), shape), tensor.view());
    return tensor;
  }
  // The largest error of y against sums in double, relative to the sum of their terms' sizes.
  double error(std::size_t i) {
    const auto y = values(together[i]);
    const auto n = weights[i].shape()[0];
    Values w(static_cast<std::size_t>(k));
    double most = 0;
    for (std::int64_t at = 0; at < m * n; ++at) {
      const auto row = static_cast<std::size_t>(at % n);
      dequantize(weights[i].type(), stored[i].data() + row * row_bytes(weights[i].type(), k), w);
      double wanted = bias(i) ? double{bias_values[i][row]} : 0, size = std::abs(wanted) + 1e-30;
      for (std::size_t j = 0; j < w.size(); ++j) {
        const double term = double{w[j]} * double{x_values[static_cast<std::size_t>(at / n * k) + j]};
        wanted += term;
        size += std::abs(term);
      }
      const double off = std::abs(wanted - double{y[static_cast<std::size_t>(at)]}) / size;
      most = std::isnan(off) ? INFINITY : std::max(most, off);
    }
    return most;
  }

  std::int64_t m, k;
  CudaDevice device;
  CudaStream stream{device};
  Values x_values = numbers(m * k, 11);
  CudaTensor<float> x;
  std::vector<std::vector<std::byte>> stored{};
  std::deque<Weight<CudaDevice>> weights{};
  std::vector<Values> bias_values{};
  std::vector<CudaTensor<float>> biases{}, alone{}, together{};
};

}  // namespace

TEST_CASE("products of one x have the bits of one by one, and are one launch for few rows") {
  const Recording recording;
  for (std::size_t t = 0; t < weight_layouts.size(); ++t) {
    const auto type = static_cast<WeightType>(t);
    for (const auto& options : {CudaOptions{.precision = Precision::exact}, CudaOptions{.precision = Precision::fast},
                                CudaOptions{.precision = Precision::fast, .invariant = true}}) {
      for (const std::int64_t m : {0, 1, 2, 5, 8, 9, 34}) {
        const bool fast = options.precision == Precision::fast && !options.invariant;
        INFO(to_string(type) << ", " << m << " rows" << (fast ? ", fast" : options.invariant ? ", invariant" : ""));
        Several some(options, m, is_quantised(type) ? 256 : 43);
        for (const std::int64_t n : {1, 7, 33}) some.add(type, n);
        std::int64_t of_one = 0, of_all = 0;
        for (std::size_t i = 0; i < 3; ++i) {
          const auto before = recording.launches();
          some.multiply_alone(i);
          of_one = recording.launches() - before;
          of_all += of_one;
        }
        const auto before = recording.launches();
        some.multiply_together<3>();
        const bool few = options.invariant || m <= (is_quantised(type) ? 32 : 4);
        const bool narrowed = fast && type != WeightType::f32;  // for many rows x is made 16 bits, once
        CHECK(recording.launches() - before == (few ? of_one : of_all - (narrowed ? 2 : 0)));
        for (std::size_t i = 0; i < 3; ++i) {
          CHECK(some.values(some.together[i]) == some.values(some.alone[i]));  // where no number equals itself
          CHECK(some.error(i) < (fast && (is_quantised(type) || !few) ? 0.005 : 1e-6));
        }
      }
    }
  }
  CHECK(recording.problems().empty());
}

TEST_CASE("products of one x may be of any number, of several types, and of no rows") {
  using enum WeightType;
  const Recording recording;
  for (const std::int64_t m : {1, 5, 34}) {
    INFO(m << " rows");
    Several some({.precision = Precision::fast}, m, 256);
    const std::array types{q4_k, q4_k, q6_k, q6_k, bf16, q4_k, f16, f32};
    const std::array<std::int64_t, 8> n{6, 3, 1, 4, 0, 5, 2, 2};
    for (std::size_t i = 0; i < 8; ++i) some.add(types[i], n[i]);
    for (std::size_t i = 0; i < 8; ++i) some.multiply_alone(i);
    some.multiply_together<8>();
    for (std::size_t i = 0; i < 8; ++i) {
      CHECK(some.values(some.together[i]) == some.values(some.alone[i]));
      CHECK(some.error(i) < 0.005);
    }
  }
  Several some({}, 1, 256);
  for (int i = 0; i < 2; ++i) some.add(q8_0, 3);
  some.weights[1].set_order(WeightOrder::panels);
  CHECK_THROWS_AS(some.multiply_together<2>(), Error);
  CHECK(recording.problems().empty());
}
