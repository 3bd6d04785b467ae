// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this once for each level.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

namespace troika::kernels {

template <>
struct Rows<CpuLevel::TROIKA_LEVEL> : Vector<CpuLevel::TROIKA_LEVEL> {
  // Sums run in 4 x width lanes of float, then in double.
  TROIKA_TARGET static double sum_of(const float* x, std::int64_t count) {
    F sums[4] = {};
    std::int64_t i = 0;
    for (; i + 4 * width <= count; i += 4 * width) {
      TROIKA_UNROLL
      for (int j = 0; j < 4; ++j) sums[j] += load(x + i + j * width);
    }
    for (; i + width <= count; i += width) sums[0] += load(x + i);
    if (i < count) sums[1] += load(x + i, count - i);
    return sum_in_double(sums[0]) + sum_in_double(sums[1]) + sum_in_double(sums[2]) + sum_in_double(sums[3]);
  }
  // Of (x - shift)^2.
  TROIKA_TARGET static double sum_of_squares(const float* x, std::int64_t count, float shift) {
    const F s = splat(shift);
    F sums[4] = {};
    std::int64_t i = 0;
    for (; i + 4 * width <= count; i += 4 * width) {
      TROIKA_UNROLL
      for (int j = 0; j < 4; ++j) {
        const F v = load(x + i + j * width) - s;
        sums[j] = fma(v, v, sums[j]);
      }
    }
    for (; i + width <= count; i += width) {
      const F v = load(x + i) - s;
      sums[0] = fma(v, v, sums[0]);
    }
    double total = sum_in_double(sums[0]) + sum_in_double(sums[1]) + sum_in_double(sums[2]) + sum_in_double(sums[3]);
    for (; i < count; ++i) total += static_cast<double>((x[i] - shift) * (x[i] - shift));
    return total;
  }
  // y = (x - shift) * scale * weight + bias; bias may be null, y may be x.
  TROIKA_TARGET static void normalize(const float* x, float shift, float scale, const float* weight, const float* bias,
                                      float* y, std::int64_t count) {
    const F s = splat(shift), f = splat(scale);
    std::int64_t i = 0;
    for (; i + width <= count; i += width) {
      const F v = (load(x + i) - s) * f;
      store(y + i, bias ? fma(v, load(weight + i), load(bias + i)) : v * load(weight + i));
    }
    for (; i < count; ++i) {
      const float v = (x[i] - shift) * scale * weight[i];
      y[i] = bias ? v + bias[i] : v;
    }
  }

  // sum += x
  TROIKA_TARGET static void add(const float* x, float* sum, std::int64_t count) {
    std::int64_t i = 0;
    for (; i + width <= count; i += width) store(sum + i, load(sum + i) + load(x + i));
    for (; i < count; ++i) sum[i] += x[i];
  }

  // (low, high) = (low cos - high sin, high cos + low sin)
  TROIKA_TARGET static void rotate(float* low, float* high, const float* cos, const float* sin, std::int64_t count) {
    std::int64_t i = 0;
    for (; i + width <= count; i += width) {
      const F a = load(low + i), b = load(high + i), c = load(cos + i), s = load(sin + i);
      store(low + i, fma(a, c, -(b * s)));
      store(high + i, fma(b, c, a * s));
    }
    for (; i < count; ++i) {
      const float a = low[i], b = high[i];
      low[i] = a * cos[i] - b * sin[i];
      high[i] = b * cos[i] + a * sin[i];
    }
  }

  template <class T>
  TROIKA_TARGET static void widen(const T* from, float* to, std::int64_t count) {
    std::int64_t i = 0;
    for (; i + width <= count; i += width) store(to + i, load(from + i));
    if (i < count) store(to + i, load(from + i, count - i), count - i);
  }
  // y = x * factor; y may be x.
  TROIKA_TARGET static void multiply(const float* x, float factor, float* y, std::int64_t count) {
    const F f = splat(factor);
    std::int64_t i = 0;
    for (; i + width <= count; i += width) store(y + i, load(x + i) * f);
    for (; i < count; ++i) y[i] = x[i] * factor;
  }

  // Over NaN it looks away; see has_nan.
  TROIKA_TARGET static float max_of(const float* x, std::int64_t count) {
    float result = -std::numeric_limits<float>::infinity();
    F most[2] = {splat(result), splat(result)};
    std::int64_t i = 0;
    for (; i + 2 * width <= count; i += 2 * width) {
      most[0] = max(load(x + i), most[0]);
      most[1] = max(load(x + i + width), most[1]);
    }
    result = largest(max(most[0], most[1]));
    for (; i < count; ++i) result = x[i] > result ? x[i] : result;
    return result;
  }
  TROIKA_TARGET static bool has_nan(const float* x, std::int64_t count) {
    I found = {};
    std::int64_t i = 0;
    for (; i + width <= count; i += width) {
      const F v = load(x + i);
      found |= v != v;
    }
    bool result = any(found);
    for (; i < count; ++i) result |= x[i] != x[i];
    return result;
  }
  // The first i in [begin, count) with x[i] above the limit or NaN, rounded down to a block; else count.
  TROIKA_TARGET static std::int64_t next_above(const float* x, float limit, std::int64_t begin, std::int64_t count) {
    const F l = splat(limit);
    for (; begin + width <= count; begin += width) {
      if (any(~(load(x + begin) <= l))) return begin;
    }
    return begin;
  }
  // y = exp(x - shift), which may be in place; returns the sum. Null y: only the sum.
  TROIKA_TARGET static double exp_of(const float* x, float shift, float* y, std::int64_t count) {
    const F s = splat(shift);
    double total = 0;
    for (std::int64_t i = 0; i < count;) {
      F sum = zero();
      const std::int64_t end = count - i > 64 * width ? i + 64 * width : count;
      for (; i + width <= end; i += width) {
        const F e = exp(load(x + i) - s);
        if (y) store(y + i, e);
        sum += e;
      }
      total += sum_in_double(sum);
      if (i < end) {
        const F e = exp(load(x + i, end - i) - s);
        if (y) store(y + i, e, end - i);
        for (std::int64_t j = 0; i < end; ++i, ++j) total += static_cast<double>(e[j]);
      }
    }
    return total;
  }
  // Numbers of 8 bits, times their scale.
  TROIKA_TARGET static void widen(const std::int8_t* x, float scale, float* y, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) y[i] = scale * static_cast<float>(x[i]);
  }
};

}  // namespace troika::kernels
#endif
