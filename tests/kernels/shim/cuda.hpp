// SPDX-License-Identifier: Apache-2.0
#pragma once

// The words of CUDA that kernels use, for a C++ compiler.

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "machine.hpp"

#define __global__
#define __device__
#define __launch_bounds__(...)
#define threadIdx (::troika::shim::current->index)
#define blockIdx (::troika::shim::current->block->index)
#define gridDim (::troika::shim::current->grid->blocks)
#define TROIKA_ARGUMENT const
#define TROIKA_UNROLL
#define TROIKA_SHARED(Type, name) Type& name = *reinterpret_cast<Type*>(::troika::shim::shared_memory(sizeof(Type)))

using cudaStream_t = troika::shim::Stream*;

inline void __syncthreads() { troika::shim::barrier(); }
inline int __syncthreads_and(int vote) { return troika::shim::barrier(vote != 0); }
template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
  return troika::shim::exchange(mask, value, lane);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane) {
  return troika::shim::exchange(mask, value, troika::shim::lane() ^ lane);
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

using shim::load_acquire, shim::store_release;
inline void pause() { shim::spin(); }
inline std::uint64_t nanoseconds() { return shim::clock(); }

}  // namespace troika::cuda
