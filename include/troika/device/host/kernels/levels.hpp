// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>

#include <troika/core/weight_type.hpp>
#include <troika/device/host/cpu_features.hpp>

// How the kernels of this folder are made. A function may use an instruction set that the rest of the program was not
// compiled for, if an attribute says so; but the attribute cannot depend on a template parameter. So each file here is
// compiled once for each level, under three macros: TROIKA_LEVEL (avx512, avx2 or plain), TROIKA_WIDTH (floats in a
// vector) and TROIKA_TARGET (the attribute). kernels.hpp sets them. Lambdas do not inherit the attribute: use none
// here.
namespace troika::kernels {

#define TROIKA_INLINE __attribute__((always_inline)) TROIKA_TARGET static inline

#if defined(__clang__)
#define TROIKA_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TROIKA_UNROLL _Pragma("GCC unroll 32")
#endif

template <CpuLevel L>
struct Vector;  // the widest vector of floats
template <CpuLevel L>
struct Elementwise;  // one float in, one float out
template <CpuLevel L>
struct Rows;  // work on whole rows: norms, softmax, rotation, largest values
template <CpuLevel L>
struct Tiles;  // matrix times matrix: packing and the inner tile
template <CpuLevel L>
struct Dots;  // a few rows times a matrix that is read once
template <WeightType type>
struct ByteDots;  // a few rows in 8 bits times quantised rows

// Where products of x with a panel go: y(i, j) for the rows j of the panel that are in `columns` is bias(j), or what it
// was where `accumulate`, plus the product.
struct PanelPlace {
  float* data;
  std::int64_t step;      // from row to row
  std::uint16_t columns;  // a bit for each
  bool accumulate;
  const float* bias;  // or null
};

// f(Kernels<level>{}).
template <template <CpuLevel> class Kernels, class F>
decltype(auto) at_level([[maybe_unused]] CpuLevel level, F&& f) {
#if defined(__x86_64__)
  if (level == CpuLevel::avx512) return std::forward<F>(f)(Kernels<CpuLevel::avx512>{});
  if (level == CpuLevel::avx2) return std::forward<F>(f)(Kernels<CpuLevel::avx2>{});
#endif
  return std::forward<F>(f)(Kernels<CpuLevel::plain>{});
}

}  // namespace troika::kernels
