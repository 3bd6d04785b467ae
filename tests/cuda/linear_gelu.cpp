// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <kernels/activation_truth.hpp>
#include <kernels/gemv_truth.hpp>
#include <support/catch.hpp>

#include <troika/core/quantize.hpp>
#include <troika/device/cuda/cuda.hpp>
#include <troika/troika.hpp>

#include "mixed_ranks.hpp"

using namespace troika;
using namespace troika::test;
using recording::Recording;

TEST_CASE("gelu_tanh of a product agrees with double, and is one call where cuBLASLt has it") {
  const Recording recording;
  constexpr std::int64_t k = 64;
  for (const auto type : {WeightType::f32, WeightType::bf16, WeightType::f16, WeightType::q8_0}) {
    // The recorded cuBLASLt has no GELU for an odd number of outputs.
    for (const std::int64_t n : {24, 21}) {
      std::vector<std::byte> stored(static_cast<std::size_t>(n) * row_bytes(type, k));
      quantize(type, numbers(n * k, 9), stored.data());
      const auto bias_values = numbers(n, 10);
      for (const auto precision : {Precision::exact, Precision::fast}) {
        CudaDevice device(0, {.precision = precision});
        CudaStream stream(device);
        const auto placed = [&](const Values& values, Shape shape) {
          CudaTensor<float> tensor(device, shape);
          upload(stream, View<const float>(values.data(), shape), tensor.view());
          return tensor;
        };
        Weight<CudaDevice> weight(device, type, {n, k});
        cuda::upload_bytes(stream, stored.data(), weight.data(), stored.size());
        const auto bias = placed(bias_values, {n});
        for (const std::int64_t m : {1, 4, 5, 40}) {
          INFO(to_string(type) << ", " << m << " x " << n << (precision == Precision::fast ? ", fast" : ", exact"));
          const bool with_bias = m != 5;
          const auto x_values = numbers(m * k, 11);
          const auto x = placed(x_values, {m, k});
          CudaTensor<float> y(device, {m, n}), plain(device, {m, n});
          const float* const added = with_bias ? bias.data() : nullptr;
          const auto before = recording.launches();
          weight.visit([&](auto w) { linear(stream, x.view(), w, plain.view(), added); });
          stream.synchronize();
          const auto between = recording.launches();
          linear_gelu_tanh(stream, x.view(), weight, y.view(), added);
          stream.synchronize();
          const bool fused = precision == Precision::fast && n % 2 == 0 && m > (is_quantised(type) ? 32 : 4);
          if (between > before) CHECK(recording.launches() - between == between - before + (fused ? 0 : 1));

          const auto got = read_back(stream, std::as_const(y).view());
          double most = 0, largest = 0;
          for (std::int64_t i = 0; i < m * n; ++i) {
            const auto row = static_cast<std::size_t>(i % n);
            const auto of_x = std::span(x_values).subspan(static_cast<std::size_t>(i / n * k), std::size_t{k});
            const double sum = truth::dot(type, stored.data() + row * row_bytes(type, k), of_x);
            const double wanted =
                truth::activate(Activation::gelu_tanh, sum + (with_bias ? double{bias_values[row]} : 0));
            most = std::max(most, std::abs(wanted - double{got.span()[static_cast<std::size_t>(i)]}));
            largest = std::max(largest, std::abs(wanted));
          }
          CHECK(largest > 0.5);
          CHECK(most < (precision == Precision::exact ? 1e-5 : 0.01) * largest);
        }
      }
    }
  }
  CHECK(recording.problems().empty());
}

namespace {

// x through the MLP of GPT-2 or of BERT.
Values through_mlp(auto& pipeline, Activation activation, std::int64_t tokens) {
  using D = typename std::remove_cvref_t<decltype(pipeline)>::Device;
  constexpr std::int64_t hidden = 32, inner = 72;
  const auto bias = numbers(inner, 3);
  const auto part = pipeline.partition(inner);
  const auto up = numbers(inner * hidden, 1), down = numbers(hidden * inner, 2), x = numbers(tokens * hidden, 4);
  const PlainMlp<D> mlp{
      {pipeline, matrix(up, hidden), bias, part}, activation, {pipeline, matrix(down, inner), {}, part}};
  auto in = Tensor<float, D>(pipeline.device(), {tokens, hidden});
  upload(pipeline.stream(), matrix(x, hidden), in.view());
  return detail::with_mlp(mlp, [&](const auto& last, const auto&... before) {
    return values_of<float>(pipeline,
                            pipeline.run(DTensor<float, Replicate, D>(std::move(in)), before..., last, to<Replicate>));
  });
}

}  // namespace

TEST_CASE("an MLP with either gelu gives on GPUs what it gives on the host, whoever computes the gelu") {
  for (const auto activation : {Activation::gelu, Activation::gelu_tanh}) {
    for (const std::int64_t tokens : {1, 9}) {
      const auto f = [&](auto& pipeline) { return through_mlp(pipeline, activation, tokens); };
      const auto wanted = on_host(f);
      for (const int ranks : {1, 2, 3, 4, 5, 8}) {
        const Recording recording({.gpus = ranks});
        for (const auto& got : on_every(cuda_devices(), {}, f)) {
          double most = 0;
          REQUIRE(got.size() == wanted.size());
          for (std::size_t i = 0; i < got.size(); ++i)
            most = std::max(most, std::abs(double{got[i]} - double{wanted[i]}));
          CHECK(most < 0.01);
        }
        CHECK(recording.problems().empty());
        CHECK(recording.live().empty());
      }
    }
  }
}
