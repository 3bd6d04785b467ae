// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace troika {

// The instruction sets that the host kernels are written for. `plain` is what the compiler targets by itself.
enum class CpuLevel { plain, avx2, avx512 };

constexpr std::string_view to_string(CpuLevel level) {
  switch (level) {
    case CpuLevel::plain: return "plain";
    case CpuLevel::avx2: return "avx2";
    case CpuLevel::avx512: return "avx512";
  }
  return "unknown";
}

// The highest level that this processor and its system support; asked once. Kernels take a level as their last argument,
// so that a test can ask for a lower one.
inline CpuLevel cpu_level() {
  static const CpuLevel level = [] {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      return CpuLevel::avx512;
    }
    if (avx2) return CpuLevel::avx2;  // every processor with AVX2 has F16C
#endif
    return CpuLevel::plain;
  }();
  return level;
}

// Products of pairs of bf16 (AVX-512 BF16) and of fours of bytes (AVX-512 VNNI), beside the highest level. Asked once.
inline bool cpu_has_bf16() {
  static const bool has = [] {
#if defined(__x86_64__)
    return cpu_level() == CpuLevel::avx512 && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
  }();
  return has;
}

inline bool cpu_has_vnni() {
  static const bool has = [] {
#if defined(__x86_64__)
    return cpu_level() == CpuLevel::avx512 && __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
  }();
  return has;
}

// How activations meet a weight that is not f32.
enum class Precision {
  fast,   // rounded to what the processor multiplies with such weights, where it is faster: bf16, or 8 bits in groups of 32
  exact,  // as they are, in f32
};

}  // namespace troika
