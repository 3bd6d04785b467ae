// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

#include <troika/core/dtype.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/checks.hpp>
#include <troika/device/host/amx.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/gemm.hpp>
#include <troika/device/host/gemv.hpp>
#include <troika/device/host/kernels.hpp>
#include <troika/device/host/panels.hpp>
#include <troika/device/host/quantised.hpp>
#include <troika/device/weight.hpp>

namespace troika {

namespace kernels {

// y (m, n) = x wT + bias, with Few for a few rows of x and Product for more, which adds in another order: an invariant
// device takes Few for all.
template <class Few, class Product, class Source>
void multiply_all(HostStream& stream, View<const float> x, Source w, View<float> y, const float* bias) {
  const std::int64_t m = x.shape()[0], n = y.shape()[1], k = x.shape()[1];
  if (m > Few::limit && !stream.device().options().invariant) {
    return multiply_in_team<Product>(stream, m, n, k, Operand<float>{x.data(), k}, w, y.data(), n, bias, false);
  }
  auto buffer = stream.device().allocate(static_cast<std::size_t>(Few::scratch(m, k)) * sizeof(float));
  auto* const prepared = reinterpret_cast<float*>(buffer.data());
  Few::prepare(x.data(), k, m, k, prepared);
  const std::int64_t grain = std::max<std::int64_t>(48, (std::int64_t{1} << 16) / (k * m));
  parallel_for(stream.device().team(), n, grain, [&](std::int64_t begin, std::int64_t end) {
    Few::multiply(prepared, m, w.part(begin, 0), end - begin, k, y.data() + begin, n, bias ? bias + begin : bias);
  });
}

// The products of x with panels of one type.
template <std::same_as<PanelTerm> Term>
void multiply_by_panels(HostStream& stream, View<const float> x, WeightType type, std::span<const Term> terms,
                        CpuLevel level) {
#if defined(__x86_64__)
  const bool narrow = is_quantised(type) && (level == CpuLevel::avx2 || panel_level() == CpuLevel::avx2);
  const bool tiles = !narrow && wants_amx(stream.device(), type, x.shape()[0]);
  with_panels(type, [&]<WeightType t>() {
    if constexpr (is_quantised(t)) {
      if (narrow) return multiply_panels<PanelProduct<t, CpuLevel::avx2>>(stream, x, terms);
    }
    if (tiles) return multiply_panels<AmxProduct<t, AmxUnit>>(stream, x, terms);
    multiply_panels<PanelProduct<t, CpuLevel::avx512>>(stream, x, terms);
  });
#else
  throw Error(Fault::unsupported, "panels are an order of x86 processors");
#endif
}

// True where there is nothing to multiply; then y is the bias.
inline bool only_bias(View<const float> x, View<float> y, const float* bias) {
  const std::int64_t m = y.shape()[0], n = y.shape()[1];
  if (m > 0 && n > 0 && x.shape()[1] > 0) return false;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) y.data()[i * n + j] = bias ? bias[j] : 0.0f;
  }
  return true;
}

}  // namespace kernels

// y = x wT + bias, with x (m, k), w (n, k) as Hugging Face stores it (out, in), bias (n) or null, y (m, n). Sums in
// float. y must not overlap x. Where the processor multiplies bf16 and the device's precision is `fast`, x is rounded
// to bf16 where it meets weights in bf16, as it is in PyTorch.
template <WeightElement W>
void linear(HostStream& stream, View<const float> x, View<W> w, View<float> y, const float* bias = nullptr,
            CpuLevel level = cpu_level()) {
  kernels::check_linear(x.shape(), w.shape(), y.shape());
  if (kernels::only_bias(x, y, bias)) return;
  using Stored = std::remove_const_t<W>;
  const Operand<Stored> rows{w.data(), w.shape()[1]};
#if defined(__x86_64__)
  if constexpr (std::same_as<Stored, bf16>) {
    if (level == CpuLevel::avx512 && cpu_has_bf16() && stream.device().options().precision == Precision::fast) {
      return kernels::multiply_all<kernels::FewRowsOf<kernels::PairDots>, kernels::PairProduct>(stream, x, rows, y,
                                                                                                bias);
    }
  }
#endif
  kernels::at_level<kernels::FewRows>(level, [&]<CpuLevel L>(kernels::FewRows<L>) {
    kernels::multiply_all<kernels::FewRows<L>, kernels::FloatProduct<L>>(stream, x, rows, y, bias);
  });
}

// The same with quantised rows; k is a multiple of the block. Where the device's precision is `fast`, a few rows of x
// are rounded to 8 bits in groups of 32 that share a scale (AVX2 and up), and more of them, with the weights, to bf16
// (where the processor multiplies bf16).
template <std::same_as<QuantisedView> W>
void linear(HostStream& stream, View<const float> x, W w, View<float> y, const float* bias = nullptr,
            CpuLevel level = cpu_level()) {
  kernels::check_linear(x.shape(), w.shape(), y.shape());
  if (kernels::only_bias(x, y, bias)) return;
  const std::int64_t k = w.shape()[1];
  expects(k % layout_of(w.type).block == 0, [&] {
    return "rows of " + std::to_string(k) + " elements of " + std::string(to_string(w.type)) +
           " do not exist; they are multiples of " + std::to_string(layout_of(w.type).block);
  });
  const QuantisedRows rows{w.type, w.data, static_cast<std::int64_t>(row_bytes(w.type, k))};
#if defined(__x86_64__)
  if (level != CpuLevel::plain && stream.device().options().precision == Precision::fast) {
    return kernels::with_groups(w.type, [&]<WeightType type>(kernels::Groups<type>) {
      using Few = kernels::FewRowsOf<kernels::ByteRows<type>>;
      using kernels::FloatProduct, kernels::PairProduct, kernels::multiply_all;
      if (level == CpuLevel::avx2) return multiply_all<Few, FloatProduct<CpuLevel::avx2>>(stream, x, rows, y, bias);
      if (!cpu_has_bf16()) return multiply_all<Few, FloatProduct<CpuLevel::avx512>>(stream, x, rows, y, bias);
      return multiply_all<Few, PairProduct>(stream, x, rows, y, bias);
    });
  }
#endif
  kernels::at_level<kernels::FewRows>(level, [&]<CpuLevel L>(kernels::FewRows<L>) {
    kernels::multiply_all<kernels::FewRowsOf<kernels::ExpandedDots<L>>, kernels::FloatProduct<L>>(stream, x, rows, y,
                                                                                                  bias);
  });
}

// The same with panels, which prepare_for_products() made. Rows of x are rounded to 8 bits before quantised ones and to
// bf16 before bf16, few or many, and each row of y has the same bits whatever the other rows are. Where the device may
// use the matrix unit (AMX), it takes all rows before bf16, whose bits are others than without it, and more than a few
// before quantised ones, which have the same bits as without it.
template <std::same_as<PanelView> W>
void linear(HostStream& stream, View<const float> x, W w, View<float> y, const float* bias = nullptr,
            CpuLevel level = cpu_level()) {
  kernels::check_linear(x.shape(), w.shape(), y.shape());
  if (kernels::only_bias(x, y, bias)) return;
  const kernels::PanelTerm term{w.data, y, bias};
  kernels::multiply_by_panels(stream, x, w.type, std::span(&term, 1), level);
}

// Each product by its weight; x is rounded and packed once for those in a row whose weights are panels of one type.
template <std::size_t N>
void linear_together(HostStream& stream, View<const float> x, const std::array<Product<HostDevice>, N>& products) {
  for (std::size_t first = 0, last; first < N; first = last) {
    const auto& weight = products[first].weight;
    const auto alike = [&](const Weight<HostDevice>& other) {
      return other.order() == WeightOrder::panels && weight.order() == WeightOrder::panels &&
             other.type() == weight.type();
    };
    last = first + 1;
    while (last < N && alike(products[last].weight)) ++last;
    if (last > first + 1) {
      std::array<kernels::PanelTerm, N> terms;
      std::size_t count = 0;
      for (std::size_t i = first; i < last; ++i) {
        const auto& [w, y, bias] = products[i];
        kernels::check_linear(x.shape(), w.shape(), y.shape());
        if (!kernels::only_bias(x, y, bias)) terms[count++] = {w.data(), y, bias};
      }
      const std::span<const kernels::PanelTerm> some(terms.data(), count);
      if (count > 0) kernels::multiply_by_panels(stream, x, weight.type(), some, cpu_level());
      continue;
    }
    weight.visit([&](auto w) { linear(stream, x, w, products[first].y, products[first].bias); });
  }
}

// What the library troika::kernels has compiled.
#define TROIKA_LINEAR_INSTANCES(instance)                                                                       \
  instance void linear(HostStream&, View<const float>, View<const float>, View<float>, const float*, CpuLevel); \
  instance void linear(HostStream&, View<const float>, View<const f16>, View<float>, const float*, CpuLevel);   \
  instance void linear(HostStream&, View<const float>, View<const bf16>, View<float>, const float*, CpuLevel);  \
  instance void linear(HostStream&, View<const float>, QuantisedView, View<float>, const float*, CpuLevel);     \
  instance void linear(HostStream&, View<const float>, PanelView, View<float>, const float*, CpuLevel);         \
  instance void kernels::multiply_by_panels(HostStream&, View<const float>, WeightType,                         \
                                            std::span<const kernels::PanelTerm>, CpuLevel);
#if defined(TROIKA_COMPILED_KERNELS)
TROIKA_LINEAR_INSTANCES(extern template)
#endif

}  // namespace troika
