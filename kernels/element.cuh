// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>

#include <kernels/language.cuh>
#include <troika/core/dtype.hpp>

namespace troika::cuda {

// N elements that are read and written at once: 16 bytes of them are one instruction of the memory.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T at[N];
};
template <class T>
inline constexpr int pack_of = static_cast<int>(16 / sizeof(T));

template <class P, class T>
__device__ P load_pack(const T* from) {
  return *reinterpret_cast<const P*>(from);
}
// The same of 16 bytes that are read once, so that they do not drive from the first-level cache what is read again.
template <class P, class T>
__device__ P load_once(const T* from) {
  static_assert(sizeof(P) == 16);
#if defined(__CUDA_ARCH__)
  std::uint32_t words[4];
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
      : "l"(from));
  P pack;
  memcpy(&pack, words, sizeof pack);
  return pack;
#else
  return load_pack<P>(from);
#endif
}
template <class P, class T>
__device__ void store_pack(const P& pack, T* to) {
  *reinterpret_cast<P*>(to) = pack;
}

inline bool aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

// Sums are formed in float, whatever is stored. GPUs have an instruction for each; elsewhere it is that of
// core/dtype.hpp, which rounds to nearest even as they do.
__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(bf16 value) { return static_cast<float>(value); }
__device__ inline float to_float(f16 value) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
#else
  return static_cast<float>(value);
#endif
}

// Of all elements of a pack: two of bf16 are a shift and a mask of their word.
template <class T, int N>
__device__ Pack<float, N> to_floats(const Pack<T, N>& pack) {
  Pack<float, N> result;
  if constexpr (sizeof(T) == 2 && dtype_of<T> == DType::bf16 && N % 2 == 0) {
    std::uint32_t words[N / 2];
    memcpy(words, &pack, sizeof pack);
    for (int i = 0; i < N / 2; ++i) {
      const std::uint32_t both[2] = {words[i] << 16, words[i] & 0xffff0000u};
      memcpy(&result.at[2 * i], both, sizeof both);
    }
  } else {
    for (int i = 0; i < N; ++i) result.at[i] = to_float(pack.at[i]);
  }
  return result;
}

template <class T>
__device__ T from_float(float value) {
#if defined(__CUDA_ARCH__)
  T result;
  if constexpr (sizeof(T) == sizeof(float)) {
    result = T(value);
  } else if constexpr (dtype_of<T> == DType::f16) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  } else {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  }
  return result;
#else
  return T(value);
#endif
}

// Two of T, bf16 or f16, in a word.
template <class T>
__device__ std::uint32_t pair_of(float low, float high) {
#if defined(__CUDA_ARCH__)
  std::uint32_t result;
  if constexpr (dtype_of<T> == DType::f16) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  }
  return result;
#else
  return std::uint32_t{T(low).bits} | static_cast<std::uint32_t>(T(high).bits) << 16;
#endif
}

}  // namespace troika::cuda
