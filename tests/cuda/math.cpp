// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <device/quantised.hpp>
#include <kernels/gemv_truth.hpp>
#include <support/catch.hpp>

#include "runtime/recorder.hpp"

#include <troika/core/quantize.hpp>
#include <troika/device/cuda/cuda.hpp>
#include <troika/device/host/host.hpp>
#include <troika/device/weight.hpp>

// Each function on a GPU against the same one on the host, which has tests of its own against other references; products
// against double.

using troika::CudaDevice;
using troika::CudaStream;
using troika::CudaTensor;
using troika::Error;
using troika::HostDevice;
using troika::HostStream;
using troika::HostTensor;
using troika::KvType;
using troika::Precision;
using troika::Shape;
using troika::Tensor;
using troika::View;
using troika::WeightType;

namespace {

using Floats = std::vector<float>;

Floats numbers(std::int64_t count, std::uint32_t seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  Floats values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// A stream of a device that computes in float.
template <class D>
struct On;
template <>
struct On<HostDevice> {
  HostDevice device{0, {.precision = Precision::exact}};
  HostStream stream{device};
};
template <>
struct On<CudaDevice> {
  explicit On(Precision precision = Precision::exact) : device(0, {.precision = precision}) {}
  CudaDevice device;
  CudaStream stream{device};
};

template <class T, class D>
Tensor<T, D> placed(On<D>& on, const std::vector<T>& values, Shape shape) {
  Tensor<T, D> tensor(on.device, shape);
  upload(on.stream, View<const T>(values.data(), shape), tensor.view());
  return tensor;
}
template <class T, class D>
std::vector<T> fetched(On<D>& on, const Tensor<T, D>& tensor) {
  const auto host = read_back(on.stream, tensor.view());
  return {host.span().begin(), host.span().end()};
}

double distance(const Floats& a, const Floats& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double error = std::abs(double{a[i]} - double{b[i]}) / std::max(1.0, std::abs(double{b[i]}));
    most = std::isnan(error) ? INFINITY : std::max(most, error);
  }
  return most;
}

// Of sums whose terms were rounded: relative to the largest.
double distance_of_sums(const Floats& a, const Floats& b) {
  double most = 0, largest = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    most = std::max(most, std::abs(double{a[i]} - double{b[i]}));
    largest = std::max(largest, std::abs(double{b[i]}));
  }
  return most / largest;
}

// compute(on) on both kinds of device, each giving floats.
void same_on_both(const char* what, double bound, const std::function<Floats(On<CudaDevice>&)>& gpu,
                  const std::function<Floats(On<HostDevice>&)>& host) {
  On<HostDevice> there;
  On<CudaDevice> here;
  INFO(what);
  CHECK(distance(gpu(here), host(there)) <= bound);
}
#define SAME_ON_BOTH(what, bound, ...) \
  same_on_both(what, bound, [&](auto& on) -> Floats __VA_ARGS__, [&](auto& on) -> Floats __VA_ARGS__)

}  // namespace

TEST_CASE("what is done to each element is the same on a GPU") {
  const troika::recording::Recording recording;
  const Shape shape{3, 37};
  const auto a = numbers(shape.count(), 1, 3), b = numbers(shape.count(), 2);
  const auto unary = [&](const char* what, auto&& f) {
    SAME_ON_BOTH(what, 2e-6, {
      const auto x = placed(on, a, shape);
      auto y = placed(on, b, shape);
      f(on.stream, x.view(), y.view());
      return fetched(on, y);
    });
  };
  unary("gelu", [](auto& s, auto x, auto y) { apply_gelu(s, x, y); });
  unary("gelu_tanh", [](auto& s, auto x, auto y) { apply_gelu_tanh(s, x, y); });
  unary("soft cap", [](auto& s, auto x, auto y) { apply_soft_cap(s, 2.5f, x, y); });
  unary("multiply", [](auto& s, auto x, auto y) { multiply(s, 0.3f, x, y); });
  unary("add", [](auto& s, auto x, auto y) { add(s, x, View<const float>(y), y); });
  for (const auto activation : {troika::Activation::silu, troika::Activation::gelu, troika::Activation::gelu_tanh})
    unary("gated", [&](auto& s, auto x, auto y) { activate_multiply(s, activation, x, View<const float>(y), y); });
  SAME_ON_BOTH("a tree of terms", 0, {
    const auto x = placed(on, a, shape);
    for (std::int64_t terms : {1, 2, 3}) {
      Tensor<float, std::decay_t<decltype(on.device)>> y(on.device, {37});
      add_products(on.stream, x.view().rows(0, terms), y.view());
      if (terms == 3) return fetched(on, y);
    }
    return {};
  });
  On<CudaDevice> on;
  auto x = placed(on, a, shape);
  CHECK_THROWS_AS(apply_gelu(on.stream, x.view(), x.view().rows(0, 2)), Error);
  CHECK_THROWS_AS(apply_soft_cap(on.stream, 0, x.view(), x.view()), Error);
  CHECK(recording.problems().empty());
}

TEST_CASE("norms and rotary embedding are the same on a GPU") {
  const troika::recording::Recording recording;
  const auto x = numbers(5 * 48, 3), weight = numbers(48, 4), bias = numbers(48, 5);
  SAME_ON_BOTH("rms norm", 2e-6, {
    auto y = placed(on, x, {5, 48});
    const auto w = placed(on, weight, {48});
    rms_norm(on.stream, View<const float>(y.view()), w.span(), 1e-5f, y.view());
    return fetched(on, y);
  });
  SAME_ON_BOTH("layer norm", 2e-6, {
    auto y = placed(on, x, {5, 48});
    const auto w = placed(on, weight, {48}), b = placed(on, bias, {48});
    layer_norm(on.stream, View<const float>(y.view()), w.span(), b.span(), 1e-5f, y.view());
    return fetched(on, y);
  });
  const troika::RotaryTable table(40, 8), other(40, 8, {.theta = 500});
  SAME_ON_BOTH("rotary", 1e-6, {
    auto y = placed(on, x, {5, 4, 12});
    const std::vector<std::int32_t> positions{0, 39, 7, 8, 1}, later{1, 2, 3, 4, 5};
    rotary(on.stream, y.view(), positions, table);
    rotary(on.stream, y.view(), later, troika::RotaryTable(table));
    rotary(on.stream, y.view(), positions, other);
    return fetched(on, y);
  });
  // More positions than copies are kept of, given faster than they are used.
  SAME_ON_BOTH("rotary after rotary", 1e-5, {
    auto y = placed(on, x, {5, 4, 12});
    for (std::int32_t i = 0; i < 150; ++i)
      rotary(on.stream, y.view(), std::vector<std::int32_t>{i % 40, i / 40, i % 7, 3, i % 11}, table);
    return fetched(on, y);
  });
  On<CudaDevice> on;
  auto y = placed(on, x, {5, 4, 12});
  CHECK_THROWS_AS(rotary(on.stream, y.view(), std::vector<std::int32_t>{0, 40, 7, 8, 1}, table), Error);
  CHECK(recording.problems().empty());
}

TEST_CASE("attention over a cache of any type, in rows or pages, is the same on a GPU") {
  const troika::recording::Recording recording;
  const std::int64_t heads = 4, kv_heads = 2, d = 24, cached = 300, tokens = 3;
  const auto q = numbers(tokens * heads * d, 6), k = numbers(cached * kv_heads * d, 7),
             v = numbers(cached * kv_heads * d, 8);
  const std::vector<std::int32_t> kv_head_of{0, 1, 1, 0}, pages{2, 0, 3};
  for (const auto type : troika::kv_types) {
    for (const bool paged : {false, true}) {
      SAME_ON_BOTH("attention", 3e-5, {
        using D = std::decay_t<decltype(on.device)>;
        const auto queries = placed(on, q, {tokens, heads, d});
        const auto new_k = placed(on, k, {cached, kv_heads, d}), new_v = placed(on, v, {cached, kv_heads, d});
        const Shape room{4 * troika::kv_page, kv_heads, d};
        troika::KvRows<D> keys(on.device, type, room), values(on.device, type, room);
        for (std::int64_t at = 0; at < cached; at += troika::kv_page) {
          const auto end = std::min(cached, at + troika::kv_page);
          const auto page = at / troika::kv_page;
          const auto to = (paged ? pages[static_cast<std::size_t>(page)] : page) * troika::kv_page;
          store(on.stream, new_k.view().rows(at, end), keys, to);
          store(on.stream, new_v.view().rows(at, end), values, to);
        }
        const auto* const where = paged ? pages.data() : nullptr;
        Floats all;
        for (const std::int64_t window : {1000, 20}) {
          Tensor<float, D> y(on.device, {tokens, heads, d});
          attention(on.stream, queries.view(), keys.first(cached, where), values.first(cached, where), kv_head_of,
                    troika::AttentionMask::causal(cached - tokens, window), 0.2f, y.view(), window == 20 ? 3.0f : 0.0f);
          const auto some = fetched(on, y);
          all.insert(all.end(), some.begin(), some.end());
        }
        return all;
      });
    }
  }
  SAME_ON_BOTH("bidirectional", 3e-6, {
    const auto queries = placed(on, q, {tokens, heads, d}), keys = placed(on, k, {cached, kv_heads, d});
    auto y = placed(on, q, {tokens, heads, d});
    attention(on.stream, queries.view(), keys.view(), keys.view(), kv_head_of, troika::AttentionMask::bidirectional(),
              0.2f, y.view());
    return fetched(on, y);
  });
  On<CudaDevice> on;
  CudaTensor<float> wide(on.device, {1, 1, 257}), y(on.device, {1, 1, 257});
  const std::vector<std::int32_t> zero{0};
  CHECK_THROWS_AS(attention(on.stream, std::as_const(wide).view(), std::as_const(wide).view(),
                            std::as_const(wide).view(), zero, troika::AttentionMask::causal(0), 1, y.view()),
                  Error);
  CHECK(recording.problems().empty());
}

TEST_CASE("attention of a prompt is in 16 bits, or exact where that is asked for") {
  const troika::recording::Recording recording;
  const std::int64_t heads = 6, kv_heads = 2, d = 40, tokens = 9, cached = 81;
  const auto q = numbers(tokens * heads * d, 6), k = numbers(cached * kv_heads * d, 7),
             v = numbers(cached * kv_heads * d, 8);
  const std::vector<std::int32_t> kv_head_of{0, 1, 1, 1, 1, 0};
  const auto attended = [&](auto& on, KvType type, std::int64_t features) {
    using D = std::decay_t<decltype(on.device)>;
    const auto queries = placed(on, q, {tokens * d / features, heads, features});
    const auto new_k = placed(on, k, {cached * d / features, kv_heads, features}),
               new_v = placed(on, v, {cached * d / features, kv_heads, features});
    troika::KvRows<D> keys(on.device, type, new_k.shape()), values(on.device, type, new_v.shape());
    store(on.stream, new_k.view(), keys, 0);
    store(on.stream, new_v.view(), values, 0);
    Tensor<float, D> y(on.device, queries.shape());
    attention(on.stream, queries.view(), keys.first(new_k.shape()[0]), values.first(new_k.shape()[0]), kv_head_of,
              troika::AttentionMask::causal(new_k.shape()[0] - queries.shape()[0]), 0.2f, y.view());
    return fetched(on, y);
  };
  On<HostDevice> host;
  On<CudaDevice> exact(Precision::exact), fast(Precision::fast);
  for (const auto type : troika::kv_types) {
    INFO(to_string(type));
    const auto want = attended(host, type, d);
    const double rounded = distance_of_sums(attended(fast, type, d), want);
    CHECK(rounded <= (type == KvType::f16 ? 2e-3 : 2e-2));
    CHECK(rounded > 3e-5);
  }
  CHECK(distance(attended(exact, KvType::f16, d), attended(host, KvType::f16, d)) <= 3e-5);
  // So are heads whose features are no multiple of 8.
  CHECK(distance(attended(fast, KvType::f16, 20), attended(host, KvType::f16, 20)) <= 3e-5);
  CHECK(recording.problems().empty());
}

TEST_CASE("products and look-ups with weights of each type agree with double, of few rows and many") {
  const troika::recording::Recording recording;
  const std::int64_t n = 21;
  for (std::size_t i = 0; i < troika::weight_layouts.size(); ++i) {
    const auto type = static_cast<WeightType>(i);
    const std::int64_t k = is_quantised(type) ? 256 : 43;
    auto stored = is_quantised(type) ? troika::test::random_blocks(type, n * k, 9) : std::vector<std::byte>();
    if (stored.empty()) {
      stored.resize(static_cast<std::size_t>(n) * row_bytes(type, k));
      quantize(type, numbers(n * k, 9), stored.data());
    }
    const auto bias = numbers(n, 10);
    for (const auto precision : {Precision::exact, Precision::fast}) {
      On<CudaDevice> on(precision);
      troika::Weight<CudaDevice> weight(on.device, type, {n, k});
      troika::cuda::upload_bytes(on.stream, stored.data(), weight.data(), stored.size());
      const auto b = placed(on, bias, {n});
      for (const std::int64_t m : {1, 3, 5, 34}) {
        const auto x = numbers(m * k, 11);
        const auto rows = placed(on, x, {m, k});
        CudaTensor<float> y(on.device, {m, n});
        weight.visit([&](auto w) { linear(on.stream, rows.view(), w, y.view(), m == 3 ? nullptr : b.data()); });
        Floats expected;
        for (std::int64_t r = 0; r < m; ++r) {
          for (std::int64_t j = 0; j < n; ++j) {
            const auto* const row = stored.data() + static_cast<std::size_t>(j) * row_bytes(type, k);
            const auto some = std::span(x).subspan(static_cast<std::size_t>(r * k), static_cast<std::size_t>(k));
            const double start = m == 3 ? 0 : double{bias[static_cast<std::size_t>(j)]};
            expected.push_back(static_cast<float>(start + troika::truth::dot(type, row, some)));
          }
        }
        INFO(to_string(type) << ", " << m << " rows, " << (precision == Precision::exact ? "exact" : "fast"));
        const bool rounded = is_quantised(type) || m > 4;
        if (rounded && precision == Precision::fast)
          CHECK(distance_of_sums(fetched(on, y), expected) < 0.01);
        else
          CHECK(distance(fetched(on, y), expected) < 1e-4);
      }
      const auto ids = placed(on, std::vector<std::int32_t>{3, 30, 20}, {3});
      CudaTensor<float> found(on.device, {3, k});
      weight.visit([&](auto w) { embedding(on.stream, ids.span(), w, 1, found.view()); });
      Floats expected(static_cast<std::size_t>(3 * k));
      for (const auto& [at, row] : {std::pair<std::size_t, std::size_t>{0, 2}, {2, 19}}) {
        dequantize(type, stored.data() + row * row_bytes(type, k),
                   std::span(expected).subspan(at * static_cast<std::size_t>(k), static_cast<std::size_t>(k)));
      }
      CHECK(distance(fetched(on, found), expected) < 1e-6);
    }
  }
  CHECK(recording.problems().empty());
}

TEST_CASE("candidates are those of the host, few and more than a kernel takes") {
  const troika::recording::Recording recording;
  const auto logits = numbers(5000, 12);
  On<HostDevice> host;
  On<CudaDevice> on;
  const auto there = placed(on, logits, {5000});
  for (const std::size_t k : {1u, 40u, 256u, 300u}) {
    for (const std::size_t size : {std::size_t{5000}, k / 2}) {
      std::vector<troika::Candidate> expected(k), found(k);
      const auto count = top_candidates(host.stream, std::span(logits).first(size), 100, expected);
      REQUIRE(top_candidates(on.stream, there.span().first(size), 100, found) == count);
      CHECK(std::equal(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(count), expected.begin(),
                       [](auto a, auto b) { return a.id == b.id && a.logit == b.logit; }));
    }
  }
  auto bad = logits;
  bad[4321] = NAN;
  const auto nan = placed(on, bad, {5000});
  for (const std::size_t k : {1u, 300u}) {
    std::vector<troika::Candidate> found(k);
    CHECK_THROWS_AS(top_candidates(on.stream, nan.span(), 0, found), Error);
  }
  CHECK(recording.problems().empty());
}

TEST_CASE("experts are chosen, and their rows go there and back, as on the host") {
  const troika::recording::Recording recording;
  const auto scores = numbers(7 * 11, 13), x = numbers(7 * 6, 14);
  for (const bool normalized : {false, true}) {
    SAME_ON_BOTH("experts", 1e-6, {
      using D = std::decay_t<decltype(on.device)>;
      const auto s = placed(on, scores, {7, 11});
      Tensor<std::int32_t, D> chosen(on.device, {7, 3});
      Tensor<float, D> weights(on.device, {7, 3}), some(on.device, {4, 6});
      choose_experts(on.stream, s.view(), normalized, chosen.view(), weights.view());
      auto y = placed(on, x, {7, 6});
      const auto rows = placed(on, std::vector<std::int32_t>{5, 0, 3, 6}, {4});
      gather_rows(on.stream, y.view(), rows.span(), some.view());
      add_rows(on.stream, std::as_const(some).view(), rows.span(), std::as_const(weights).span().first(4), y.view());
      auto all = fetched(on, y);
      for (const float w : fetched(on, weights)) all.push_back(w);
      for (const auto id : fetched(on, chosen)) all.push_back(static_cast<float>(id));
      return all;
    });
  }
  CHECK(recording.problems().empty());
}
