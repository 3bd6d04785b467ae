// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>

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
// Of one weight: kernels count those of several, and beyond them, in 32 bits.
constexpr std::int64_t most_rows = std::int64_t{1} << 29;
// Of weights that are widened at once, so that the memory for it is bounded.
constexpr std::int64_t panel_bytes = std::int64_t{64} << 20;

struct Term {
  WeightType type;
  const std::uint8_t* weights;
  Shape shape;
  View<float> y;
  const float* bias;

  std::int64_t n() const { return y.shape()[1]; }
};
using Terms = std::span<const Term>;
using Unit = cuda::Product::Type;

// One launch for all, whose weights are of one type; of y, each row has the bits that it has alone.
void multiply_few(CudaStream& stream, View<const float> x, Terms terms) {
  CudaDevice& device = stream.device();
  std::array<cuda::GemvProduct, cuda::gemv_products> products;
  for (std::size_t i = 0; i < terms.size(); ++i)
    products[i] = {terms[i].weights, terms[i].y.data(), static_cast<int>(terms[i].n()), terms[i].bias};
  const cuda::GemvArguments a(x.data(), x.shape()[0], x.shape()[1], std::span(products).first(terms.size()));
  cuda::with_weight_type(terms[0].type, [&]<WeightType t>(cuda::TypeConstant<t>) {
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
    cuda::gemv(t, a, cuda::stream_of(stream));
  });
}

// One by one, in the same `Element`: x is made that once, and W panel by panel where it is stored otherwise. Those that
// cuBLASLt has not are multiplied as few. With gelu_tanh where cuBLASLt has that; else that is false afterwards.
template <class Element>
void multiply_many(CudaStream& stream, Unit unit, View<const float> x, Terms terms, bool& gelu_tanh) {
  CudaDevice& device = stream.device();
  cuda::Queue& queue = device.queue();
  const auto on = queue.stream();
  const std::int64_t m = x.shape()[0], k = x.shape()[1];
  const auto elements = [&](std::int64_t count) {
    return device.allocate(static_cast<std::size_t>(count) * sizeof(Element));
  };
  CudaDevice::Buffer x_buffer;
  const void* rows = x.data();
  if constexpr (sizeof(Element) < sizeof(float)) {
    x_buffer = elements(m * k);
    cuda::cast(x.data(), reinterpret_cast<Element*>(x_buffer.data()), m * k, on);
    rows = x_buffer.data();
  }
  const auto multiply = [&](const Term& w) {
    const std::int64_t n = w.n();
    const auto product = [&](const void* weights, std::int64_t first, std::int64_t count) {
      cuda::Product part{unit, rows, weights,  w.bias ? w.bias + first : nullptr, w.y.data() + first, m, count,
                         k,    n,    gelu_tanh};
      if (queue.products().multiply(part, on)) return true;
      if (!gelu_tanh || first > 0) return false;
      part.gelu_tanh = gelu_tanh = false;
      return queue.products().multiply(part, on);
    };
    if (weight_type_of(dtype_of<Element>) == w.type) return product(w.weights, 0, n);
    const std::int64_t fit = panel_bytes / (k * static_cast<std::int64_t>(sizeof(Element))) / 16 * 16;
    const std::int64_t each = std::min(n, std::max<std::int64_t>(fit, 16));
    CudaDevice::Buffer panel = elements(each * k);
    const auto step = static_cast<std::int64_t>(row_bytes(w.type, k));
    for (std::int64_t first = 0; first < n; first += each) {
      const std::int64_t count = std::min(each, n - first);
      cuda::widen(w.type, w.weights + first * step, reinterpret_cast<Element*>(panel.data()), count, k, on);
      if (!product(panel.data(), first, count)) return false;
    }
    return true;
  };
  for (const Term& w : terms) {
    if (multiply(w)) continue;
    gelu_tanh = false;
    multiply_few(stream, x, {&w, 1});
  }
}

// In what cuBLASLt multiplies rows with weights of this type; nothing where own kernels do.
std::optional<Unit> unit_of(const CudaDevice& device, View<const float> x, WeightType type) {
  const std::int64_t m = x.shape()[0], k = x.shape()[1];
  const auto& options = device.options();
  if (options.invariant || k == 0 || m <= (is_quantised(type) ? few_rows_of_quantised : few_rows)) return std::nullopt;
  if (options.precision == Precision::exact) return Unit::f32;
  if (type == WeightType::f32) return Unit::tf32;
  return type == WeightType::f16 ? Unit::f16 : Unit::bf16;
}

// Up to gemv_products; those in a row that go the same way at once. gelu_tanh: of one.
void multiply(CudaStream& stream, View<const float> x, Terms terms, bool gelu_tanh) {
  for (const Term& w : terms) {
    kernels::check_linear(x.shape(), w.shape, w.y.shape());
    if (w.n() > most_rows) {
      throw Error(Fault::unsupported,
                  "a weight of " + std::to_string(w.n()) + " rows; GPUs take up to " + std::to_string(most_rows));
    }
  }
  if (x.shape()[0] == 0) return;
  for (std::size_t first = 0, last; first < terms.size(); first = last) {
    last = first + 1;
    if (terms[first].n() == 0) continue;
    const auto unit = unit_of(stream.device(), x, terms[first].type);
    const auto alike = [&](const Term& w) {
      return w.n() > 0 && unit_of(stream.device(), x, w.type) == unit && (unit || w.type == terms[first].type);
    };
    while (last < terms.size() && alike(terms[last])) ++last;
    const Terms some = terms.subspan(first, last - first);
    // How exact cuBLASLt's gelu is, is said nowhere.
    bool in_one = gelu_tanh && unit && unit != Unit::f32;
    if (!unit)
      multiply_few(stream, x, some);
    else if (unit == Unit::f16)
      multiply_many<f16>(stream, *unit, x, some, in_one);
    else if (unit == Unit::bf16)
      multiply_many<bf16>(stream, *unit, x, some, in_one);
    else
      multiply_many<float>(stream, *unit, x, some, in_one);
    if (gelu_tanh && !in_one) apply_gelu_tanh(stream, some[0].y, some[0].y);
  }
}

[[noreturn]] void throw_panels() {
  throw Error(Fault::unsupported, "weights in panels: panels are an order of x86 processors");
}

void multiply(CudaStream& stream, View<const float> x, const Term& term, bool gelu_tanh = false) {
  multiply(stream, x, {&term, 1}, gelu_tanh);
}

template <class W>
const std::uint8_t* bytes(const W* values) {
  return reinterpret_cast<const std::uint8_t*>(values);
}
Term term_of(const Product<CudaDevice>& product) {
  const auto& [w, y, bias] = product;
  if (w.order() == WeightOrder::panels) throw_panels();
  return {w.type(), bytes(w.data()), w.shape(), y, bias};
}

}  // namespace

void linear(CudaStream& stream, View<const float> x, View<const float> w, View<float> y, const float* bias) {
  multiply(stream, x, {WeightType::f32, bytes(w.data()), w.shape(), y, bias});
}
void linear(CudaStream& stream, View<const float> x, View<const f16> w, View<float> y, const float* bias) {
  multiply(stream, x, {WeightType::f16, bytes(w.data()), w.shape(), y, bias});
}
void linear(CudaStream& stream, View<const float> x, View<const bf16> w, View<float> y, const float* bias) {
  multiply(stream, x, {WeightType::bf16, bytes(w.data()), w.shape(), y, bias});
}
void linear(CudaStream& stream, View<const float> x, QuantisedView w, View<float> y, const float* bias) {
  multiply(stream, x, {w.type, bytes(w.data), w.shape(), y, bias});
}
void linear(CudaStream&, View<const float>, PanelView, View<float>, const float*) { throw_panels(); }

void linear_together(CudaStream& stream, View<const float> x, std::span<const Product<CudaDevice>> products) {
  std::array<Term, cuda::gemv_products> terms;
  for (std::size_t first = 0; first < products.size(); first += terms.size()) {
    const auto some = products.subspan(first, std::min(terms.size(), products.size() - first));
    std::ranges::transform(some, terms.begin(), term_of);
    multiply(stream, x, std::span(terms).first(some.size()), false);
  }
}

void linear_gelu_tanh(CudaStream& stream, View<const float> x, const Weight<CudaDevice>& w, View<float> y,
                      const float* bias) {
  multiply(stream, x, term_of({w, y, bias}), true);
}

}  // namespace troika
