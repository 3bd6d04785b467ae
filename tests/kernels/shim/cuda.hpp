// SPDX-License-Identifier: Apache-2.0
#pragma once

// The words of CUDA that kernels use, for a C++ compiler.

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include <troika/core/dtype.hpp>

#include "machine.hpp"
#include "tensor_core.hpp"

#define __global__
#define __device__
#define __launch_bounds__(...)
#define threadIdx (::troika::shim::current->index)
#define blockIdx (::troika::shim::current->block->index)
#define gridDim (::troika::shim::current->grid->blocks)
#define TROIKA_ARGUMENT const
#define TROIKA_UNROLL
#define TROIKA_ROLLED
#define TROIKA_SHARED(Type, name) Type& name = *reinterpret_cast<Type*>(::troika::shim::shared_memory(sizeof(Type)))

using cudaStream_t = troika::shim::Stream*;

inline void __syncthreads() { troika::shim::barrier(); }
inline int __syncthreads_and(int vote) { return troika::shim::barrier(vote != 0); }
inline void __syncwarp() { troika::shim::meet(); }
template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
  return troika::shim::exchange(mask, value, lane);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane) {
  return troika::shim::exchange(mask, value, troika::shim::lane() ^ lane);
}

// Sums of four products of signed bytes; the low word of two that were moved; bytes of two words by their numbers.
inline int __dp4a(int a, int b, int sum) {
  for (int shift = 0; shift < 32; shift += 8)
    sum += static_cast<std::int8_t>(a >> shift) * static_cast<std::int8_t>(b >> shift);
  return sum;
}
inline std::uint32_t __funnelshift_r(std::uint32_t low, std::uint32_t high, unsigned shift) {
  return static_cast<std::uint32_t>((std::uint64_t{high} << 32 | low) >> (shift & 31));
}
inline std::uint32_t __byte_perm(std::uint32_t low, std::uint32_t high, std::uint32_t names) {
  std::uint32_t result = 0;
  for (int i = 0; i < 4; ++i)
    result |= static_cast<std::uint32_t>((std::uint64_t{high} << 32 | low) >> (names >> (4 * i) & 7) * 8 & 255)
              << (8 * i);
  return result;
}

namespace troika::cuda {

inline constexpr int warp_size = shim::warp_size;
inline constexpr unsigned all_lanes = 0xffffffffu;

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, int threads, cudaStream_t stream, Arguments... arguments) {
  auto grid = std::make_unique<shim::Grid>();
  grid->blocks = blocks;
  grid->threads = threads;
  grid->body = [=] { kernel(arguments...); };
  stream->launch(std::move(grid));
}

using shim::copy_later, shim::end_of_copies;
template <class T>
void multiply_add(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  shim::multiply_add(d, a, b0, b1, [](std::uint16_t bits) { return static_cast<float>(T::from_bits(bits)); });
}
template <bool transposed>
void load_matrices(std::uint32_t (&to)[4], const void* row) {
  shim::load_matrices(to, row, transposed);
}
inline float exp2_fast(float x) { return std::exp2(x); }

using shim::load_acquire, shim::store_release;
template <int n>
void wait_for_copies() {
  shim::wait_for_copies(n);
}
inline float divide_fast(float x, float y) { return x / y; }
inline void pause() { shim::spin(); }
inline std::uint64_t nanoseconds() { return shim::clock(); }

}  // namespace troika::cuda
