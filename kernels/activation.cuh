// SPDX-License-Identifier: Apache-2.0
#pragma once

// What an MLP does to its inner values. The gate of a gated MLP is activated and multiplied in one pass.

#include <cmath>
#include <cstdint>

#include <kernels/map.cuh>
#include <troika/core/activation.hpp>

namespace troika::cuda {

struct Silu {
  __device__ float operator()(float x) const { return x / (1 + expf(-x)); }
};
// x/2 (1 + erf(x / sqrt 2)), by erfc, which keeps its digits where x is far below 0.
struct Gelu {
  __device__ float operator()(float x) const { return 0.5f * x * erfcf(-0.70710678f * x); }
};
// x/2 (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3), which is x / (1 + exp(-2u)).
struct GeluTanh {
  __device__ float operator()(float x) const { return x / (1 + expf(-1.5957691f * (x + 0.044715f * x * x * x))); }
};
struct SoftCap {
  float cap;
  __device__ float operator()(float x) const { return cap * tanhf(x / cap); }
};
template <class A>
struct ActivateMultiply {
  __device__ float operator()(float gate, float up) const { return A{}(gate)*up; }
};

template <class F>
void with_activation(Activation activation, F f) {
  switch (activation) {
    case Activation::silu: return f(Silu{});
    case Activation::gelu: return f(Gelu{});
    case Activation::gelu_tanh: return f(GeluTanh{});
  }
}
inline void activate(Activation activation, const float* x, float* y, std::int64_t count, cudaStream_t stream) {
  with_activation(activation, [&](auto op) { map(op, count, stream, y, x); });
}
// y = activation(gate) up
inline void activate_multiply(Activation activation, const float* gate, const float* up, float* y, std::int64_t count,
                              cudaStream_t stream) {
  with_activation(activation, [&]<class A>(A) { map(ActivateMultiply<A>{}, count, stream, y, gate, up); });
}

}  // namespace troika::cuda
