// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <time.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <troika/core/weight_type.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/kernels/amx.hpp>
#include <troika/device/host/topology.hpp>

// What this machine can do at most, measured: virtual machines do not tell their clock rate. Kernels are held against
// it.
namespace bench {

// Of this thread: other programs on the machine take from the wall clock, not from this one.
inline double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}
inline double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
// Lets the compiler believe that the value is read and changed.
template <class T>
void keep(T& value) {
  asm volatile("" : "+m"(value) : : "memory");
}

// Chains of multiply-adds in registers: enough of them to hide the latency of each. The best of several tries, in
// operations a second of one core.
#define TROIKA_BENCH_CHAINS(V)                                                                     \
  typedef float Vector __attribute__((vector_size(V)));                                            \
  constexpr int chains = V == 64 ? 24 : 12, rounds = 20000;                                        \
  Vector sums[chains] = {}, factor = {}, term = {};                                                \
  double best = 0;                                                                                 \
  for (int repeat = 0; repeat < 40; ++repeat) {                                                    \
    keep(factor);                                                                                  \
    keep(term);                                                                                    \
    const double start = thread_seconds();                                                         \
    for (int i = 0; i < rounds; ++i)                                                               \
      _Pragma("GCC unroll 24") for (int j = 0; j < chains; ++j) sums[j] = sums[j] * factor + term; \
    best = std::max(best, rounds * chains * 2.0 * (V / 4) / (thread_seconds() - start));           \
  }                                                                                                \
  keep(sums);                                                                                      \
  return best;
#if defined(__x86_64__)
__attribute__((target("avx512f"))) inline double avx512_rate() { TROIKA_BENCH_CHAINS(64) }
__attribute__((target("avx2,fma"))) inline double avx2_rate() { TROIKA_BENCH_CHAINS(32) }
#endif
inline double plain_rate() { TROIKA_BENCH_CHAINS(16) }
#undef TROIKA_BENCH_CHAINS

// The same in pairs of bf16 and in fours of bytes.
#if defined(__x86_64__)
enum class Chain { pairs, bytes };
template <Chain chain>
__attribute__((target("avx512f,avx512bf16,avx512vnni"))) inline double rate_of_products() {
  constexpr int chains = 12, rounds = 40000;
  __m512 sums[chains], factor = _mm512_set1_ps(0.5f);
  for (int j = 0; j < chains; ++j) sums[j] = _mm512_set1_ps(static_cast<float>(j));
  double best = 0;
  for (int repeat = 0; repeat < 40; ++repeat) {
    keep(factor);
    const double start = thread_seconds();
    for (int i = 0; i < rounds; ++i) {
      _Pragma("GCC unroll 12") for (int j = 0; j < chains; ++j) {
        if constexpr (chain == Chain::pairs)
          sums[j] = _mm512_dpbf16_ps(sums[j], (__m512bh)factor, (__m512bh)factor);
        else
          sums[j] = (__m512)_mm512_dpbusd_epi32((__m512i)sums[j], (__m512i)factor, (__m512i)factor);
      }
    }
    best = std::max(best, rounds * chains * (chain == Chain::pairs ? 64.0 : 128.0) / (thread_seconds() - start));
  }
  keep(sums);
  return best;
}
#endif

// Fours of bytes with AVX2: pairs of products, summed in 16 bits.
#if defined(__x86_64__)
__attribute__((target("avx2"))) inline double avx2_rate_of_bytes() {
  constexpr int chains = 12, rounds = 40000;
  __m256i sums[chains], factor = _mm256_set1_epi8(1);
  for (int j = 0; j < chains; ++j) sums[j] = _mm256_set1_epi8(static_cast<char>(j));
  double best = 0;
  for (int repeat = 0; repeat < 40; ++repeat) {
    keep(factor);
    const double start = thread_seconds();
    for (int i = 0; i < rounds; ++i) {
      _Pragma("GCC unroll 12") for (int j = 0; j < chains; ++j) {
        sums[j] = _mm256_add_epi16(sums[j], _mm256_maddubs_epi16(factor, sums[j]));
        asm("" : "+x"(sums[j]));  // one after the other: there are 16 registers
      }
    }
    best = std::max(best, rounds * chains * 64.0 / (thread_seconds() - start));
  }
  keep(sums);
  return best;
}
#endif

// The same in tiles, where the processor has them.
#if defined(__x86_64__)
template <Chain chain>
double rate_of_tiles() {
  constexpr int rounds = 20000;
  troika::kernels::AmxUnit unit(troika::kernels::TileShapes{}.set(0, 8, 16, 64));
  double best = 0;
  for (int repeat = 0; repeat < 40; ++repeat) {
    const double start = thread_seconds();
    for (int i = 0; i < rounds; ++i) {
      if constexpr (chain == Chain::pairs) {
        unit.pairs<0, 4, 6>();
        unit.pairs<1, 4, 7>();
        unit.pairs<2, 5, 6>();
        unit.pairs<3, 5, 7>();
      } else {
        unit.bytes<0, 4, 6>();
        unit.bytes<1, 4, 7>();
        unit.bytes<2, 5, 6>();
        unit.bytes<3, 5, 7>();
      }
    }
    const double products = rounds * 4.0 * 16 * 16 * (chain == Chain::pairs ? 32 : 64);
    best = std::max(best, 2 * products / (thread_seconds() - start));
  }
  return best;
}
#endif

// Operations a second of one core with weights of this type, by the fastest instructions that the kernels have for it.
inline double peak_rate(troika::WeightType type) {
  static const double floats = [] {
#if defined(__x86_64__)
    if (troika::cpu_level() == troika::CpuLevel::avx512) return avx512_rate();
    if (troika::cpu_level() == troika::CpuLevel::avx2) return avx2_rate();
#endif
    return plain_rate();
  }();
#if defined(__x86_64__)
  static const double pairs = troika::cpu_has_amx()    ? rate_of_tiles<Chain::pairs>()
                              : troika::cpu_has_bf16() ? rate_of_products<Chain::pairs>()
                                                       : floats;
  static const double bytes = troika::cpu_has_amx()                             ? rate_of_tiles<Chain::bytes>()
                              : troika::cpu_has_vnni()                          ? rate_of_products<Chain::bytes>()
                              : troika::panel_level() == troika::CpuLevel::avx2 ? avx2_rate_of_bytes()
                                                                                : floats;
  return type == troika::WeightType::bf16 ? pairs : troika::is_quantised(type) ? bytes : floats;
#else
  (void)type;
  return floats;
#endif
}

// Reads `count` numbers once, in `places` streams.
template <std::size_t places>
void read_all(const std::uint64_t* memory, std::size_t count) {
  const std::size_t each = count / places;
  std::uint64_t parts[places] = {};
  for (std::size_t i = 0; i < each; i += 8) {  // a cache line of each
    for (std::size_t place = 0; place < places; ++place) {
      for (std::size_t j = 0; j < 8; ++j) parts[place] += memory[place * each + i + j];
    }
  }
  keep(parts);
}

// Bytes a second that these cores read from memory together, each from its own, which is more than the caches hold. The
// best of several tries and numbers of streams.
inline double read_bandwidth(const std::vector<int>& cores) {
  const std::size_t count = (std::size_t{32} << 20) + 8 * 8 * 5;  // streams do not share cache sets
  constexpr int repeats = 6;
  std::vector<std::vector<double>> begins(cores.size()), ends(cores.size());
  std::vector<std::thread> threads;
  std::barrier together(static_cast<std::ptrdiff_t>(cores.size()));
  for (std::size_t c = 0; c < cores.size(); ++c) {
    threads.emplace_back([&, c] {
      troika::HostDevice device(0, {{cores[c]}});
      device.team().pin_caller();
      auto buffer = device.allocate_exact(count * sizeof(std::uint64_t));  // where weights lie, too
      auto* const memory = reinterpret_cast<std::uint64_t*>(buffer.data());
      std::fill(memory, memory + count, 1);
      for (int i = 0; i < 3 * repeats; ++i) {
        together.arrive_and_wait();
        begins[c].push_back(seconds());
        if (i % 3 == 0) read_all<1>(memory, count);
        if (i % 3 == 1) read_all<4>(memory, count);
        if (i % 3 == 2) read_all<8>(memory, count);
        ends[c].push_back(seconds());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  double best = 0;
  for (std::size_t i = 0; i < 3 * repeats; ++i) {
    double begin = begins[0][i], end = ends[0][i];
    for (std::size_t c = 1; c < cores.size(); ++c) {
      begin = std::min(begin, begins[c][i]);
      end = std::max(end, ends[c][i]);
    }
    best = std::max(best, static_cast<double>(cores.size() * count * sizeof(std::uint64_t)) / (end - begin));
  }
  return best;
}

}  // namespace bench
