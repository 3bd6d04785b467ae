// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include <troika/device/host/elementwise.hpp>

#include "inputs.hpp"

using namespace troika;
using namespace troika::test;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr double smallest = 1.5e-45;  // subnormal floats are that far apart

double exact_gelu(double x) {
  if (x == -static_cast<double>(infinity)) return static_cast<double>(nan);  // -inf times 0, as in the formula
  return 0.5 * x * std::erfc(-x * std::sqrt(0.5));
}
double exact_gelu_tanh(double x) {
  const double u = std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x);
  return x / (1 + std::exp(-2 * u));
}
double exact_silu(double x) { return x / (1 + std::exp(-x)); }

// Values of every size, of both signs, and the special ones.
std::vector<float> arguments() {
  std::vector<float> x{0.0f,  -0.0f,  infinity, -infinity, nan,    1e-40f, -1e-40f,
                       3e38f, -3e38f, 88.7f,    -88.7f,    104.0f, -104.0f};
  for (float v = 1e-30f; v < 1e30f; v *= 1.37f) {
    x.push_back(v);
    x.push_back(-v);
  }
  for (float v = -30; v < 30; v += 0.0137f) x.push_back(v);
  return x;
}

using Unary = void (*)(HostStream&, View<const float>, View<float>, CpuLevel);

void check(Unary function, double (*exact)(double), double least, const std::function<double(double)>& relative) {
  HostDevice device;
  HostStream stream(device);
  const auto x = arguments();
  const auto count = static_cast<std::int64_t>(x.size());
  for (const auto level : levels()) {
    std::vector<float> y(x.size());
    function(stream, view(x, {count}), view(y, {count}), level);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double expected = exact(double(x[i]));
      CAPTURE(to_string(level), x[i], y[i], expected);
      if (!close(double(y[i]), expected, std::abs(expected) * relative(double(x[i])) + least)) FAIL("too far");
    }
    SUCCEED();
  }
}

}  // namespace

TEST_CASE("gelu is within 1e-6 of the exact value for every argument, small results too") {
  // Below -12 the rest of the distribution is subnormal before it is multiplied with x.
  check(apply_gelu, exact_gelu, 16 * smallest, [](double x) { return x < -12 ? 1e-4 : 1e-6; });
}

TEST_CASE("gelu with tanh is as exact as its rounded argument") {
  // Where exp(-2u) is infinity in a float, the result is 0.
  check(apply_gelu_tanh, exact_gelu_tanh, 1e-37, [](double x) {
    const double u = std::abs(0.8 * (x + 0.044715 * x * x * x));
    return x > 0 ? 5e-7 : 5e-7 + 6 * epsilon * std::min(u, 110.0);
  });
}

TEST_CASE("silu times up is within 1e-6 of the exact value for every argument") {
  const std::vector<float> gate = arguments();
  const auto count = static_cast<std::int64_t>(gate.size());
  const auto up = random_values(count, 4);
  HostDevice device;
  HostStream stream(device);
  for (const auto level : levels()) {
    std::vector<float> y(gate.size());
    activate_multiply(stream, Activation::silu, view(gate, {count}), view(up, {count}), view(y, {count}), level);
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double g = double(gate[i]);
      // e^88.7 is infinity in a float: what is left below is 0.
      const double expected = g < -88 && std::isfinite(g) ? 0 : exact_silu(g) * double(up[i]);
      CAPTURE(to_string(level), gate[i], up[i], y[i], expected);
      if (!close(double(y[i]), expected, std::abs(expected) * 1e-6 + (g < -86 ? 1e-36 : 2 * smallest))) FAIL("too far");
    }
    SUCCEED();
  }
}

TEST_CASE("gelus times up are the gelus times up") {
  const std::vector<float> gate = random_values(517, 3, -9, 9), up = random_values(517, 4);
  HostDevice device;
  HostStream stream(device);
  for (const auto level : levels()) {
    std::vector<float> exact(gate.size()), rough(gate.size()), y(gate.size());
    apply_gelu(stream, view(gate, {517}), view(exact, {517}), level);
    apply_gelu_tanh(stream, view(gate, {517}), view(rough, {517}), level);
    activate_multiply(stream, Activation::gelu, view(gate, {517}), view(up, {517}), view(y, {517}), level);
    for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(y[i] == exact[i] * up[i]);
    activate_multiply(stream, Activation::gelu_tanh, view(gate, {517}), view(up, {517}), view(y, {517}), level);
    for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(y[i] == rough[i] * up[i]);
  }
}

TEST_CASE("a soft cap is within 1e-6 of cap tanh(x / cap), small values and infinities too") {
  const std::vector<float> x = arguments();
  const auto count = static_cast<std::int64_t>(x.size());
  HostDevice device;
  HostStream stream(device);
  for (const auto level : levels()) {
    for (const float cap : {1.0f, 30.0f, 50.0f}) {
      std::vector<float> y(x.size());
      apply_soft_cap(stream, cap, view(x, {count}), view(y, {count}), level);
      for (std::size_t i = 0; i < y.size(); ++i) {
        const double expected = double(cap) * std::tanh(double(x[i]) / double(cap));
        CAPTURE(to_string(level), cap, x[i], y[i], expected);
        // An argument that is subnormal once it is divided by the cap loses digits.
        if (!close(double(y[i]), expected, std::abs(expected) * 1e-6 + 64 * double(cap) * smallest)) FAIL("too far");
      }
    }
  }
  std::vector<float> y(2);
  REQUIRE_THROWS_AS(apply_soft_cap(stream, 0, view(x, {2}), view(y, {2})), Error);
}

TEST_CASE("elementwise functions work at every size, in place, and over a team") {
  for (const int threads : {1, 2, 3}) {
    auto device = device_of(threads);
    HostStream stream(device);
    for (const auto level : levels()) {
      for (const std::int64_t count : {0, 1, 2, 3, 5, 7, 15, 16, 17, 63, 64, 65, 127, 129, 50021}) {
        const auto a = random_values(count, 1), b = random_values(count, 2);
        const auto bounded = [](double expected) { return 1e-6 * std::abs(expected); };
        auto y = a, z = b, g = a, t = a, s = b;
        add(stream, view(a, {count}), view(b, {count}), view(y, {count}), level);
        add(stream, view(a, {count}), view(std::as_const(z), {count}), view(z, {count}), level);
        apply_gelu(stream, view(std::as_const(g), {count}), view(g, {count}), level);
        apply_gelu_tanh(stream, view(std::as_const(t), {count}), view(t, {count}), level);
        activate_multiply(stream, Activation::silu, view(a, {count}), view(std::as_const(s), {count}), view(s, {count}),
                          level);
        std::int64_t wrong = 0;
        for (std::size_t i = 0; i < a.size(); ++i) {
          const double x = double(a[i]);
          wrong += y[i] != a[i] + b[i];
          wrong += z[i] != a[i] + b[i];
          wrong += !close(double(g[i]), exact_gelu(x), bounded(exact_gelu(x)));
          wrong += !close(double(t[i]), exact_gelu_tanh(x), bounded(exact_gelu_tanh(x)));
          wrong += !close(double(s[i]), exact_silu(x) * double(b[i]), bounded(exact_silu(x) * double(b[i])));
        }
        CAPTURE(threads, to_string(level), count);
        REQUIRE(wrong == 0);
      }
    }
  }
}

TEST_CASE("elementwise functions refuse shapes that differ") {
  HostDevice device;
  HostStream stream(device);
  const auto a = random_values(6, 1);
  std::vector<float> y(6);
  REQUIRE_THROWS_WITH(apply_gelu(stream, view(a, {2, 3}), view(y, {3, 2})),
                      Catch::Matchers::ContainsSubstring("(3, 2)"));
  REQUIRE_THROWS_AS(apply_gelu_tanh(stream, view(a, {6}), view(y, {5})), Error);
  REQUIRE_THROWS_AS(add(stream, view(a, {6}), view(a, {5}), view(y, {6})), Error);
  REQUIRE_THROWS_AS(activate_multiply(stream, Activation::silu, view(a, {5}), view(a, {6}), view(y, {6})), Error);
}

TEST_CASE("an element has the same bits wherever it stands: shards end where they like") {
  auto device = device_of(1);
  HostStream stream(device);
  const std::int64_t count = 100;
  const auto a = random_values(count, 1, -9, 9), b = random_values(count, 2, -9, 9);
  for (const auto level : levels()) {
    const auto compare = [&](const char* name, auto f) {
      std::vector<float> whole(static_cast<std::size_t>(count)), parts(whole);
      f(view(a, {count}), view(b, {count}), view(whole, {count}));
      for (std::int64_t begin = 0, size = 1; begin < count; begin += size++) {
        const Shape shape{std::min(size, count - begin)};
        f(View<const float>(a.data() + begin, shape), View<const float>(b.data() + begin, shape),
          View<float>(parts.data() + begin, shape));
      }
      INFO(name << " at " << to_string(level));
      CHECK(parts == whole);
    };
    compare("gelu", [&](auto x, auto, auto y) { apply_gelu(stream, x, y, level); });
    compare("gelu_tanh", [&](auto x, auto, auto y) { apply_gelu_tanh(stream, x, y, level); });
    compare("soft_cap", [&](auto x, auto, auto y) { apply_soft_cap(stream, 3, x, y, level); });
    compare("multiply", [&](auto x, auto, auto y) { multiply(stream, 0.3f, x, y, level); });
    compare("add", [&](auto x, auto z, auto y) { add(stream, x, z, y, level); });
    for (const auto activation : {Activation::silu, Activation::gelu, Activation::gelu_tanh}) {
      compare("activate_multiply",
              [&](auto x, auto z, auto y) { activate_multiply(stream, activation, x, z, y, level); });
    }
  }
}

TEST_CASE("terms add as the tree of reductions, in every team") {
  const std::int64_t count = 3000;
  for (const std::int64_t terms : {1, 2, 3, 4, 5, 8, 13}) {
    const auto x = random_values(terms * count, 5, -1, 1);
    std::vector<float> wanted(x.begin(), x.end());
    for (std::int64_t step = 1; step < terms; step *= 2) {
      for (std::int64_t i = 0; i + step < terms; i += 2 * step) {
        for (std::int64_t j = 0; j < count; ++j) {
          wanted[static_cast<std::size_t>(i * count + j)] += wanted[static_cast<std::size_t>((i + step) * count + j)];
        }
      }
    }
    wanted.resize(static_cast<std::size_t>(count));
    for (const auto level : levels()) {
      for (const int threads : {1, 2}) {
        auto device = device_of(threads);
        HostStream stream(device);
        std::vector<float> y(static_cast<std::size_t>(count));
        add_products(stream, view(x, {terms, count}), view(y, {count}), level);
        CHECK(y == wanted);
      }
    }
  }
}
