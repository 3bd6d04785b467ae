// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <troika/device/precision.hpp>

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

// The highest level that this processor and its system support; asked once. Kernels take a level as their last
// argument, so that a test can ask for a lower one.
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

// By which kernels quantised weights in panels are multiplied; plain: there are none. Asked once.
inline CpuLevel panel_level() {
  static const CpuLevel level = cpu_has_vnni()                   ? CpuLevel::avx512
                                : cpu_level() == CpuLevel::plain ? CpuLevel::plain
                                                                 : CpuLevel::avx2;
  return level;
}

// The matrix unit (AMX): tiles, products of bytes and of bf16. True only where the processor has all three, the system
// saves their state, and has given this process the permission to use them, for which this asks once: then all threads
// may.
inline bool cpu_has_amx() {
  static const bool has = [] {
#if defined(__x86_64__) && defined(__linux__)
    if (!cpu_has_bf16() || !cpu_has_vnni()) return false;
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned pairs = 1u << 22, tiles = 1u << 24, bytes = 1u << 25, all = pairs | tiles | bytes;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & all) != all) return false;
    asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    constexpr unsigned configuration = 1u << 17, data = 1u << 18;
    if ((a & (configuration | data)) != (configuration | data)) return false;
    constexpr long get_permission = 0x1022, ask_permission = 0x1023, tile_data = 18;  // <asm/prctl.h>, Linux 5.16
    unsigned long granted = 0;
    return syscall(SYS_arch_prctl, ask_permission, tile_data) == 0 &&
           syscall(SYS_arch_prctl, get_permission, &granted) == 0 && (granted >> tile_data & 1) != 0;
#else
    return false;
#endif
  }();
  return has;
}

}  // namespace troika
