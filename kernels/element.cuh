// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

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

}  // namespace troika::cuda
