// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <troika/device/host/cpu_features.hpp>

// What a core can do at most, measured: virtual machines do not tell their clock rate. Kernels are held against it.
namespace bench {

// The sums must stay in registers, and differ, lest the compiler computes one for all.
#if defined(__clang__)
#define TROIKA_BENCH_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TROIKA_BENCH_UNROLL _Pragma("GCC unroll 16")
#endif

inline constexpr int fma_chains = 12;  // hides 4 cycles of latency on 2 units, and fits in 16 registers

#if defined(__x86_64__)
__attribute__((target("avx512f"), noinline)) inline float fma_avx512(long rounds) {
  const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
  __m512 sums[fma_chains];
  TROIKA_BENCH_UNROLL
  for (int i = 0; i < fma_chains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i + rounds));
  for (long r = 0; r < rounds; ++r) {
    TROIKA_BENCH_UNROLL
    for (auto& sum : sums) sum = _mm512_fmadd_ps(sum, x, y);
  }
  TROIKA_BENCH_UNROLL
  for (int i = 1; i < fma_chains; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}
__attribute__((target("avx2,fma"), noinline)) inline float fma_avx2(long rounds) {
  const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
  __m256 sums[fma_chains];
  TROIKA_BENCH_UNROLL
  for (int i = 0; i < fma_chains; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i + rounds));
  for (long r = 0; r < rounds; ++r) {
    TROIKA_BENCH_UNROLL
    for (auto& sum : sums) sum = _mm256_fmadd_ps(sum, x, y);
  }
  TROIKA_BENCH_UNROLL
  for (int i = 1; i < fma_chains; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
  return _mm256_cvtss_f32(sums[0]);
}
#endif
__attribute__((noinline)) inline float fma_plain(long rounds) {
  typedef float F __attribute__((vector_size(16)));
  const F x{0.999f, 0.999f, 0.999f, 0.999f}, y{0.001f, 0.001f, 0.001f, 0.001f};
  F sums[fma_chains];
  TROIKA_BENCH_UNROLL
  for (int i = 0; i < fma_chains; ++i) sums[i] = y * static_cast<float>(i + rounds);
  for (long r = 0; r < rounds; ++r) {
    TROIKA_BENCH_UNROLL
    for (auto& sum : sums) sum = sum * x + y;
  }
  TROIKA_BENCH_UNROLL
  for (int i = 1; i < fma_chains; ++i) sums[0] += sums[i];
  return sums[0][0];
}

#undef TROIKA_BENCH_UNROLL

// Floating-point operations per second of one core, the best of some milliseconds each.
inline double fma_peak() {
  auto* run = fma_plain;
  int width = 4;
#if defined(__x86_64__)
  if (troika::cpu_level() == troika::CpuLevel::avx512) run = fma_avx512, width = 16;
  if (troika::cpu_level() == troika::CpuLevel::avx2) run = fma_avx2, width = 8;
#endif
  constexpr long rounds = 500'000;
  [[maybe_unused]] volatile float result = 0;
  double best = 0;
  for (int i = 0; i < 40; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    result = run(rounds);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    best = std::max(best, 2.0 * width * fma_chains * rounds / seconds);
  }
  return best;
}

}  // namespace bench
