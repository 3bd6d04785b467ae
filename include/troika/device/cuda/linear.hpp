// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include <troika/core/shape.hpp>
#include <troika/device/cuda/device.hpp>
#include <troika/device/weight.hpp>

namespace troika {

// y = x wT + bias, with x (m, k), w (n, k), bias (n) or null, y (m, n), all in memory of the GPU. Sums in float. y must
// not overlap x.
//
// A few rows of x meet weights as they are stored, in float or, with Precision::fast, quantised ones in 8 bits, in groups
// of 32 with a scale each; a group with 2^126 or more in it gives no number. More rows go to cuBLASLt: with
// Precision::fast as TF32 for f32 weights, in bf16 for bf16 and quantised ones, in f16 for f16 (x beyond 65504 becomes
// infinite there); with Precision::exact all in float. A row of y may have other bits among other rows, but not
// on invariant devices: all rows go the way of few there, and in float.
void linear(CudaStream& stream, View<const float> x, View<const float> w, View<float> y, const float* bias = nullptr);
void linear(CudaStream& stream, View<const float> x, View<const f16> w, View<float> y, const float* bias = nullptr);
void linear(CudaStream& stream, View<const float> x, View<const bf16> w, View<float> y, const float* bias = nullptr);
void linear(CudaStream& stream, View<const float> x, QuantisedView w, View<float> y, const float* bias = nullptr);
// Panels are an order of the host's: Error{unsupported}.
void linear(CudaStream& stream, View<const float> x, PanelView w, View<float> y, const float* bias = nullptr);

// Each product by its weight, with the bits of linear: up to three in a row at once where their weights are of one type
// and x has few rows, and x is made 16 bits once for more rows of it.
void linear_together(CudaStream& stream, View<const float> x, std::span<const Product<CudaDevice>> products);

// linear, and then gelu_tanh in place: many rows in one call with Precision::fast, where cuBLASLt has it for the shape.
void linear_gelu_tanh(CudaStream& stream, View<const float> x, const Weight<CudaDevice>& w, View<float> y,
                      const float* bias = nullptr);

}  // namespace troika
