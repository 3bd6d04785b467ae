// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this once for each level.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

namespace troika::kernels {

template <>
struct Elementwise<CpuLevel::TROIKA_LEVEL> : Vector<CpuLevel::TROIKA_LEVEL> {
  struct Gelu {
    // x times the normal distribution up to x. For |x|, the rest of the distribution is exp(-x^2/2) times a polynomial in
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
  struct Add {
    TROIKA_INLINE F of(F a, F b) { return a + b; }
  };

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
