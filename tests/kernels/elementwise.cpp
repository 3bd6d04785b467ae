// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <kernels/activation.cuh>
#include <kernels/activation_truth.hpp>
#include <kernels/rotary.cuh>
#include <kernels/rotary_truth.hpp>
#include <kernels/softmax.cuh>
#include <kernels/softmax_truth.hpp>

#include "kernel_test.hpp"

using namespace troika;
using namespace troika::test;

namespace {

bool softmax_is_right(std::size_t rows, std::size_t d, Machine& machine) {
  const auto x = numbers(rows * d, 7, -30, 90);
  Memory<float> in(x), out(rows * d);
  cuda::softmax(in.data(), out.data(), static_cast<std::int64_t>(rows), static_cast<std::int64_t>(d),
                machine.stream(0));
  machine.run();
  std::size_t wrong_values = 0;
  const auto y = out.values();
  for (std::size_t r = 0; r < rows; ++r) {
    const auto first = y.begin() + static_cast<std::ptrdiff_t>(r * d);
    wrong_values += wrong(std::vector<float>(first, first + static_cast<std::ptrdiff_t>(d)),
                          truth::softmax(std::span(x).subspan(r * d, d)), 1e-6);
  }
  return wrong_values == 0 && out.intact();
}

}  // namespace

TEST_CASE("activation kernels equal their formulas, alone and with a factor") {
  for (const auto activation : {Activation::silu, Activation::gelu, Activation::gelu_tanh}) {
    for (const std::size_t count : {0u, 1u, 3u, 4u, 1027u, 2050u}) {
      for (const std::size_t offset : {0u, 1u}) {
        CAPTURE(to_string(activation), count, offset);
        auto x = numbers(count, 1, -12, 12);
        if (count > 3) x[0] = 60, x[1] = -60, x[2] = 0;
        const auto factor = numbers(count, 2);
        Memory<float> in(x, offset), factors(factor), alone(count), gated(count);
        Machine machine;
        const auto n = static_cast<std::int64_t>(count);
        cuda::activate(activation, in.data(), alone.data(), n, machine.stream(0));
        cuda::activate_multiply(activation, in.data(), factors.data(), gated.data(), n, machine.stream(0));
        machine.run();
        std::vector<double> expected, with_factor;
        for (std::size_t i = 0; i < count; ++i) {
          expected.push_back(truth::activate(activation, static_cast<double>(x[i])));
          with_factor.push_back(expected.back() * static_cast<double>(factor[i]));
        }
        CHECK(wrong(alone.values(), expected, 3e-6) == 0);
        CHECK(wrong(gated.values(), with_factor, 3e-6) == 0);
        CHECK((alone.intact() && gated.intact()));
      }
    }
  }
}

TEST_CASE("a soft cap, a sum and a factor are kernels, too") {
  const auto x = numbers(1001, 1, -90, 90), z = numbers(1001, 2);
  Memory<float> a(x), b(z), capped(x.size()), sum(x.size());
  Machine machine;
  cuda::map(cuda::SoftCap{30}, 1001, machine.stream(0), capped.data(), static_cast<const float*>(a.data()));
  cuda::map(cuda::Add{}, 1001, machine.stream(0), sum.data(), static_cast<const float*>(a.data()),
            static_cast<const float*>(b.data()));
  cuda::map(cuda::Scale{3}, 1001, machine.stream(0), a.data(), static_cast<const float*>(a.data()));
  machine.run();
  std::vector<double> caps;
  std::vector<float> sums, scaled;
  for (std::size_t i = 0; i < x.size(); ++i) {
    caps.push_back(30 * std::tanh(static_cast<double>(x[i]) / 30));
    sums.push_back(x[i] + z[i]);
    scaled.push_back(3 * x[i]);
  }
  CHECK(wrong(capped.values(), caps, 1e-6) == 0);
  CHECK(sum.values() == sums);
  CHECK(a.values() == scaled);
}

TEST_CASE("casts round to nearest even, there and back") {
  auto x = numbers(515, 3, -70000, 70000);
  x[0] = 1.00390625f, x[1] = 65519.9f, x[2] = 65520, x[3] = 1e-7f, x[4] = -0.0f;
  Memory<float> in(x), back(x.size());
  Memory<bf16> brain(x.size());
  Memory<f16> half(x.size());
  Machine machine;
  const auto n = static_cast<std::int64_t>(x.size());
  cuda::cast(static_cast<const float*>(in.data()), brain.data(), n, machine.stream(0));
  cuda::cast(static_cast<const float*>(in.data()), half.data(), n, machine.stream(0));
  cuda::cast(static_cast<const f16*>(half.data()), back.data(), n, machine.stream(0));
  machine.run();
  std::size_t wrong_values = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    wrong_values += brain.values()[i].bits != bf16(x[i]).bits || half.values()[i].bits != f16(x[i]).bits ||
                    back.values()[i] != static_cast<float>(f16(x[i]));
  }
  CHECK(wrong_values == 0);
}

TEST_CASE("the rotary kernel turns pairs by the angle of their position, and leaves the rest") {
  for (const auto& schedule : schedules()) {
    for (const int half : {1, 3, 32}) {
      for (const int width : {2 * half, 2 * half + 5}) {
        const int heads = 3, tokens = 4, positions = 9;
        CAPTURE(half, width);
        const auto size = [](int n) { return static_cast<std::size_t>(n); };
        const auto x = numbers(size(tokens * heads * width), 1), cos = numbers(size(positions * half), 2),
                   sin = numbers(size(positions * half), 3);
        const std::vector<std::int32_t> at{8, 0, 3, 3};
        Memory<float> memory(x), cosines(cos), sines(sin);
        Memory<std::int32_t> place(at);
        Machine machine(schedule);
        cuda::rotary({memory.data(), place.data(), cosines.data(), sines.data(), tokens, heads, width, half},
                     machine.stream(0));
        machine.run();
        std::vector<double> expected(x.begin(), x.end());
        for (int row = 0; row < tokens * heads; ++row) {
          const auto angles = size(at[size(row / heads)] * half);
          truth::rotary(std::span(expected).subspan(size(row * width), size(2 * half)),
                        std::span(cos).subspan(angles, size(half)), std::span(sin).subspan(angles, size(half)));
        }
        CHECK(wrong(memory.values(), expected, 1e-6) == 0);
        CHECK(memory.intact());
      }
    }
  }
}

TEST_CASE("the softmax kernel equals its formula and needs each of its barriers") {
  for (const auto& schedule : schedules()) {
    for (const std::size_t d : {1u, 31u, 256u, 777u}) {
      Machine machine(schedule);
      CHECK(softmax_is_right(2, d, machine));
    }
  }
  CHECK(misses_every_barrier([](Machine& machine) { return softmax_is_right(1, 300, machine); }));
}
