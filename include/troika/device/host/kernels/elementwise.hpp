// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this once for each level.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

namespace troika::kernels {

template <>
struct Elementwise<CpuLevel::TROIKA_LEVEL> : Vector<CpuLevel::TROIKA_LEVEL> {
  struct Gelu {
    // x times the normal distribution up to x. For |x|, the rest of the distribution is exp(-x^2/2) times a polynomial
    // in
    // 1 / (1 + 0.35 |x|), fitted to 3e-8 relative on [0, 16]: small values keep their digits, too.
    TROIKA_INLINE F of(F x) {
      const F a = min(splat(16.0f), abs(x));
      const F t = splat(1.0f) / fma(splat(0.35f), a, splat(1.0f));
      F p = splat(-0.0287669655f);
      p = fma(p, t, splat(0.142016396f));
      p = fma(p, t, splat(-0.251376778f));
      p = fma(p, t, splat(0.153762087f));
      p = fma(p, t, splat(-0.0189383589f));
      p = fma(p, t, splat(0.103455685f));
      p = fma(p, t, splat(0.120475076f));
      p = fma(p, t, splat(0.139739022f));
      p = fma(p, t, splat(0.139634401f));
      p = fma(p, t, splat(-5.79134564e-07f));
      const F square = a * a, lost = square_error(a, square);  // the digits of a^2 that its float lacks
      const F rest = p * exp(splat(-0.5f) * square) * fma(splat(-0.5f), lost, splat(1.0f));
      return x * select(x < zero(), rest, splat(1.0f) - rest);
    }
  };
  struct GeluTanh {
    // (1 + tanh u) / 2 is 1 / (1 + exp(-2u)).
    TROIKA_INLINE F of(F x) {
      const F u2 = x * fma(splat(2 * 0.0356774081f), x * x, splat(2 * 0.797884561f));
      return x / (splat(1.0f) + exp(-u2));
    }
  };
  struct SiluMultiply {
    TROIKA_INLINE F of(F gate, F up) { return gate / (splat(1.0f) + exp(-gate)) * up; }
  };
  struct GeluMultiply {
    TROIKA_INLINE F of(F gate, F up) { return Gelu::of(gate) * up; }
  };
  struct GeluTanhMultiply {
    TROIKA_INLINE F of(F gate, F up) { return GeluTanh::of(gate) * up; }
  };
  struct Add {
    TROIKA_INLINE F of(F a, F b) { return a + b; }
  };

  // The polynomial of Cephes where 1 - 2 / (1 + exp(2x)) would cancel.
  TROIKA_INLINE F tanh(F x) {
    const F a = abs(x), square = x * x;
    F p = fma(splat(-5.70498872745e-3f), square, splat(2.06390887954e-2f));
    p = fma(p, square, splat(-5.37397155531e-2f));
    p = fma(p, square, splat(1.33314422036e-1f));
    p = fma(p, square, splat(-3.33332819422e-1f));
    const F large = splat(1.0f) - splat(2.0f) / (splat(1.0f) + exp(splat(2.0f) * a));
    return select(a < splat(0.625f), fma(p * square, x, x), select(x < zero(), -large, large));
  }
  // y = cap tanh(x / cap); y may be x.
  TROIKA_TARGET static void soft_cap(const float* x, float cap, float* y, std::int64_t count) {
    const F c = splat(cap), inverse = splat(1 / cap);
    std::int64_t i = 0;
    for (; i + width <= count; i += width) store(y + i, c * tanh(load(x + i) * inverse));
    if (i < count) store(y + i, c * tanh(load(x + i, count - i) * inverse), count - i);
  }

  // y may be x.
  template <class Op>
  TROIKA_TARGET static void map(const float* x, float* y, std::int64_t count) {
    std::int64_t i = 0;
    for (; i + width <= count; i += width) store(y + i, Op::of(load(x + i)));
    if (i < count) store(y + i, Op::of(load(x + i, count - i)), count - i);
  }
  // y may be a, or b.
  template <class Op>
  TROIKA_TARGET static void map(const float* a, const float* b, float* y, std::int64_t count) {
    std::int64_t i = 0;
    for (; i + width <= count; i += width) store(y + i, Op::of(load(a + i), load(b + i)));
    if (i < count) store(y + i, Op::of(load(a + i, count - i), load(b + i, count - i)), count - i);
  }
};

}  // namespace troika::kernels
#endif
