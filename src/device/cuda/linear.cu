// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include <kernels/gemv.cuh>
#include <kernels/gemv_bytes.cuh>
#include <kernels/map.cuh>
#include <kernels/widen.cuh>
#include <troika/device/checks.hpp>
#include <troika/device/cuda/elementwise.hpp>
#include <troika/device/cuda/linear.hpp>

#include "products.hpp"
#include "queue.hpp"

namespace troika {

namespace cuda {
extern template void widen<float>(WeightType, const std::uint8_t*, float*, std::int64_t, std::int64_t, cudaStream_t);
extern template void widen<f16>(WeightType, const std::uint8_t*, f16*, std::int64_t, std::int64_t, cudaStream_t);
extern template void widen<bf16>(WeightType, const std::uint8_t*, bf16*, std::int64_t, std::int64_t, cudaStream_t);
// In gemv_*.cu, so that all compile at once.
extern template void gemv_bytes<WeightType::q4_0>(const GemvArguments&, RoundedPiece*, std::int64_t, cudaStream_t);
extern template void gemv_bytes<WeightType::q4_1>(const GemvArguments&, RoundedPiece*, std::int64_t, cudaStream_t);
extern template void gemv_bytes<WeightType::q5_0>(const GemvArguments&, RoundedPiece*, std::int64_t, cudaStream_t);
extern template void gemv_bytes<WeightType::q5_1>(const GemvArguments&, RoundedPiece*, std::int64_t, cudaStream_t);
extern template void gemv_bytes<WeightType::q8_0>(const GemvArguments&, RoundedPiece*, std::int64_t, cudaStream_t);
extern template void gemv_bytes<WeightType::q2_k>(const GemvArguments&, RoundedPiece*, std::int64_t, cudaStream_t);
extern template void gemv_bytes<WeightType::q3_k>(const GemvArguments&, RoundedPiece*, std::int64_t, cudaStream_t);
extern template void gemv_bytes<WeightType::q4_k>(const GemvArguments&, RoundedPiece*, std::int64_t, cudaStream_t);
extern template void gemv_bytes<WeightType::q5_k>(const GemvArguments&, RoundedPiece*, std::int64_t, cudaStream_t);
extern template void gemv_bytes<WeightType::q6_k>(const GemvArguments&, RoundedPiece*, std::int64_t, cudaStream_t);
extern template void gemv_bytes<WeightType::iq4_nl>(const GemvArguments&, RoundedPiece*, std::int64_t, cudaStream_t);
extern template void gemv_bytes<WeightType::mxfp4>(const GemvArguments&, RoundedPiece*, std::int64_t, cudaStream_t);
}  // namespace cuda

namespace {

// Up to so many rows of x own kernels are used, which read weights as they are stored, once for 4 or 8 rows: that is
// less to read than the widened copy that matrix units need of quantised ones.
constexpr std::int64_t few_rows = 4, few_rows_of_quantised = 32;
// Of weights that are widened at once, so that the memory for it is bounded.
constexpr std::int64_t panel_bytes = std::int64_t{64} << 20;

struct Stored {
  WeightType type;
  const std::uint8_t* data;
  Shape shape;
};

// x and w as `Element`, the latter panel by panel if it is stored otherwise. False if cuBLASLt has no such product. Where
// it only has none with gelu_tanh, that is false afterwards, and not done.
template <class Element>
bool multiply_many(CudaStream& stream, cuda::Product::Type type, View<const float> x, const Stored& w, View<float> y,
                   const float* bias, bool& gelu_tanh) {
  CudaDevice& device = stream.device();
  cuda::Queue& queue = device.queue();
  const auto on = queue.stream();
  const std::int64_t m = x.shape()[0], n = y.shape()[1], k = x.shape()[1];
  const auto elements = [&](std::int64_t count) {
    return device.allocate(static_cast<std::size_t>(count) * sizeof(Element));
  };
  CudaDevice::Buffer x_buffer, panel;
  const void* rows = x.data();
  if constexpr (sizeof(Element) < sizeof(float)) {
    x_buffer = elements(m * k);
    cuda::cast(x.data(), reinterpret_cast<Element*>(x_buffer.data()), m * k, on);
    rows = x_buffer.data();
  }
  const auto product = [&](const void* weights, std::int64_t first, std::int64_t count) {
    cuda::Product part{type, rows, weights, bias ? bias + first : nullptr, y.data() + first, m, count, k, n, gelu_tanh};
    if (queue.products().multiply(part, on)) return true;
    if (!gelu_tanh || first > 0) return false;
    part.gelu_tanh = gelu_tanh = false;
    return queue.products().multiply(part, on);
  };
  if (weight_type_of(dtype_of<Element>) == w.type) return product(w.data, 0, n);
  const std::int64_t fit = panel_bytes / (k * static_cast<std::int64_t>(sizeof(Element))) / 16 * 16;
  const std::int64_t each = std::min(n, std::max<std::int64_t>(fit, 16));
  panel = elements(each * k);
  const auto step = static_cast<std::int64_t>(row_bytes(w.type, k));
  for (std::int64_t first = 0; first < n; first += each) {
    const std::int64_t count = std::min(each, n - first);
    cuda::widen(w.type, w.data + first * step, reinterpret_cast<Element*>(panel.data()), count, k, on);
    if (!product(panel.data(), first, count)) return false;
  }
  return true;
}

void multiply_few(CudaStream& stream, const cuda::GemvArguments& a, WeightType type) {
  CudaDevice& device = stream.device();
  cuda::with_weight_type(type, [&]<WeightType t>(cuda::TypeConstant<t>) {
    if constexpr (is_quantised(t)) {
      if (device.options().precision == Precision::fast && !device.options().invariant &&
          a.k <= std::numeric_limits<int>::max() / 2) {
        const auto pieces = static_cast<std::size_t>(cuda::gemv_rounded_pieces(a.m, a.k));
        CudaDevice::Buffer rounded;
        if (pieces > 0) rounded = device.allocate(pieces * sizeof(cuda::RoundedPiece));
        cuda::gemv_bytes<t>(a, reinterpret_cast<cuda::RoundedPiece*>(rounded.data()),
                            cuda::gemv_blocks * device.queue().multiprocessors(), cuda::stream_of(stream));
        return;
      }
    }
    cuda::gemv(type, a, cuda::stream_of(stream));
  });
}

void multiply(CudaStream& stream, View<const float> x, const Stored& w, View<float> y, const float* bias,
              bool gelu_tanh = false) {
  kernels::check_linear(x.shape(), w.shape, y.shape());
  const std::int64_t m = x.shape()[0], n = y.shape()[1], k = x.shape()[1];
  if (m == 0 || n == 0) return;
  const bool exact = stream.device().options().precision == Precision::exact;
  const auto many = [&](bool& gelu) {
    using Type = cuda::Product::Type;
    if (exact) return multiply_many<float>(stream, Type::f32, x, w, y, bias, gelu);
    if (w.type == WeightType::f32) return multiply_many<float>(stream, Type::tf32, x, w, y, bias, gelu);
    if (w.type == WeightType::f16) return multiply_many<f16>(stream, Type::f16, x, w, y, bias, gelu);
    return multiply_many<bf16>(stream, Type::bf16, x, w, y, bias, gelu);
  };
  const bool invariant = stream.device().options().invariant;
  const bool few = invariant || k == 0 || m <= (is_quantised(w.type) ? few_rows_of_quantised : few_rows);
  // How exact cuBLASLt's gelu is, is said nowhere.
  bool in_one = gelu_tanh && !few && !exact;
  if (few || !many(in_one)) {
    multiply_few(stream, {w.data, x.data(), y.data(), m, n, k, bias}, w.type);
    in_one = false;
  }
  if (gelu_tanh && !in_one) apply_gelu_tanh(stream, y, y);
}

template <class T>
Stored stored(WeightType type, View<const T> w) {
  return {type, reinterpret_cast<const std::uint8_t*>(w.data()), w.shape()};
}
Stored stored(QuantisedView w) { return {w.type, reinterpret_cast<const std::uint8_t*>(w.data), w.shape()}; }

}  // namespace

void linear(CudaStream& stream, View<const float> x, View<const float> w, View<float> y, const float* bias) {
  multiply(stream, x, stored(WeightType::f32, w), y, bias);
}
void linear(CudaStream& stream, View<const float> x, View<const f16> w, View<float> y, const float* bias) {
  multiply(stream, x, stored(WeightType::f16, w), y, bias);
}
void linear(CudaStream& stream, View<const float> x, View<const bf16> w, View<float> y, const float* bias) {
  multiply(stream, x, stored(WeightType::bf16, w), y, bias);
}
void linear(CudaStream& stream, View<const float> x, QuantisedView w, View<float> y, const float* bias) {
  multiply(stream, x, stored(w), y, bias);
}
void linear(CudaStream&, View<const float>, PanelView, View<float>, const float*) {
  throw Error(Fault::unsupported, "weights in panels: panels are an order of x86 processors");
}

void linear_gelu_tanh(CudaStream& stream, View<const float> x, const Weight<CudaDevice>& w, View<float> y,
                      const float* bias) {
  multiply(stream, x, stored({w.type(), w.data(), w.shape()}), y, bias, true);
}

}  // namespace troika
