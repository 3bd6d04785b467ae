// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <troika/core/dtype.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/gemm.hpp>
#include <troika/device/host/gemv.hpp>
#include <troika/device/host/kernels.hpp>

namespace troika {

// y = x wT + bias, with x (m, k), w (n, k) as Hugging Face stores it (out, in), bias (n) or null, y (m, n). Sums in
// float. y must not overlap x. Where the processor multiplies bf16 and the device's precision is `fast`, x is rounded to
// bf16 where it meets weights in bf16, as it is in PyTorch.
template <WeightElement W>
void linear(HostStream& stream, View<const float> x, View<W> w, View<float> y, const float* bias = nullptr,
            CpuLevel level = cpu_level()) {
  expects(x.shape().dims() == 2 && w.shape().dims() == 2 && y.shape().dims() == 2 && x.shape()[1] == w.shape()[1] &&
              y.shape()[0] == x.shape()[0] && y.shape()[1] == w.shape()[0],
          [&] {
            return "linear takes x (m, k), w (n, k), y (m, n), not " + x.shape().to_string() + ", " +
                   w.shape().to_string() + ", " + y.shape().to_string();
          });
  using Stored = std::remove_const_t<W>;
  const std::int64_t m = x.shape()[0], n = w.shape()[0], k = w.shape()[1];
  if (m == 0 || n == 0) return;
  const auto multiply = [&]<class Few, class Product>(Few, Product) {
    if (m > Few::limit) {
      kernels::multiply_in_team<Product>(stream, m, n, k, Operand<float>{x.data(), k}, Operand<Stored>{w.data(), k},
                                         y.data(), n, bias, false);
      return;
    }
    auto buffer = stream.device().allocate(static_cast<std::size_t>(Few::scratch(m, k)) * sizeof(float));
    auto* const prepared = reinterpret_cast<float*>(buffer.data());
    Few::prepare(x.data(), k, m, k, prepared);
    const std::int64_t grain = std::max<std::int64_t>(48, (std::int64_t{1} << 16) / (k * m));
    parallel_for(stream.device().team(), n, grain, [&](std::int64_t begin, std::int64_t end) {
      Few::template multiply<Stored>(prepared, m, w.data() + begin * k, k, end - begin, k, y.data() + begin, n,
                                     bias ? bias + begin : bias);
    });
  };
  if (k == 0) {
    gemm(stream, m, n, k, Operand<float>{x.data(), k}, Operand<Stored>{w.data(), k}, y.data(), n, bias, false, level);
    return;
  }
#if defined(__x86_64__)
  if constexpr (std::same_as<Stored, bf16>) {
    if (level == CpuLevel::avx512 && cpu_has_bf16() && stream.device().options().precision == Precision::fast) {
      return multiply(kernels::FewRowsOf<kernels::PairDots>{}, kernels::PairProduct{});
    }
  }
#endif
  kernels::at_level<kernels::FewRows>(level, [&]<CpuLevel L>(kernels::FewRows<L> few) {
    multiply(few, kernels::FloatProduct<L>{});
  });
}

// What the library troika::kernels has compiled.
#define TROIKA_LINEAR_INSTANCES(instance)                                                                       \
  instance void linear(HostStream&, View<const float>, View<const float>, View<float>, const float*, CpuLevel); \
  instance void linear(HostStream&, View<const float>, View<const f16>, View<float>, const float*, CpuLevel);   \
  instance void linear(HostStream&, View<const float>, View<const bf16>, View<float>, const float*, CpuLevel);
#if defined(TROIKA_COMPILED_KERNELS)
TROIKA_LINEAR_INSTANCES(extern template)
#endif

}  // namespace troika
