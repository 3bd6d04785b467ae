// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include <troika/core/shape.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>

// One float in, one float out. y may be an input. NaN stays NaN.
namespace troika {

// x/2 (1 + erf(x / sqrt 2))
inline void apply_gelu(HostStream&, View<const float> x, View<float> y, CpuLevel = cpu_level()) {
  expects(x.shape() == y.shape(), "gelu: x and y differ in shape");
  for (std::int64_t i = 0; i < x.count(); ++i) y[i] = 0.5f * x[i] * (1 + std::erf(x[i] * 0.70710678f));
}

// The same with tanh(sqrt(2/pi) (x + 0.044715 x^3)) for the erf.
inline void apply_gelu_tanh(HostStream&, View<const float> x, View<float> y, CpuLevel = cpu_level()) {
  expects(x.shape() == y.shape(), "gelu_tanh: x and y differ in shape");
  for (std::int64_t i = 0; i < x.count(); ++i) {
    y[i] = 0.5f * x[i] * (1 + std::tanh(0.79788456f * (x[i] + 0.044715f * x[i] * x[i] * x[i])));
  }
}

// gate / (1 + exp(-gate)) * up
inline void silu_multiply(HostStream&, View<const float> gate, View<const float> up, View<float> y,
                          CpuLevel = cpu_level()) {
  expects(gate.shape() == y.shape() && up.shape() == y.shape(), "silu_multiply: gate, up and y differ in shape");
  for (std::int64_t i = 0; i < y.count(); ++i) y[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
}

inline void add(HostStream&, View<const float> a, View<const float> b, View<float> y, CpuLevel = cpu_level()) {
  expects(a.shape() == y.shape() && b.shape() == y.shape(), "add: a, b and y differ in shape");
  for (std::int64_t i = 0; i < y.count(); ++i) y[i] = a[i] + b[i];
}

}  // namespace troika
