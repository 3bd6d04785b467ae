// SPDX-License-Identifier: Apache-2.0
#pragma once

// The few words in which kernels differ between nvcc and a C++ compiler. nvcc makes GPU code of them; g++ and clang++
// make fibres (tests/kernels/shim), so that tests run the same kernels, line by line, on a machine without a GPU: alone,
// or started by the host code of src/device/cuda (tests/cuda/runtime).

#include <cstdint>

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <string>

#include <troika/core/error.hpp>

// Shared memory of a block: one struct a kernel.
#define TROIKA_SHARED(Type, name) __shared__ Type name
// Arguments that stay where the launch put them, also where an array in them is indexed by what only the kernel knows.
#define TROIKA_ARGUMENT const __grid_constant__
#define TROIKA_UNROLL _Pragma("unroll")

namespace troika::cuda {

inline constexpr int warp_size = 32;
inline constexpr unsigned all_lanes = 0xffffffffu;

// Starts `kernel` on `blocks` of `threads`. Throws where the launch is refused; what fails later is told by the stream.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, int threads, cudaStream_t stream, Arguments... arguments) {
  kernel<<<blocks, static_cast<unsigned>(threads), 0, stream>>>(arguments...);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) {
    throw Error(Fault::device_failed, std::string("a kernel was not started: ") + cudaGetErrorString(error));
  }
}

// What another GPU wrote before it released a flag is seen after the flag was read here, and the other way round:
// system scope, since peers are other devices.
__device__ inline std::uint32_t load_acquire(const std::uint32_t* flag) {
  std::uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}
__device__ inline void store_release(std::uint32_t* flag, std::uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}
// Between two looks at a flag.
__device__ inline void pause() { __nanosleep(20); }
// Of a clock that goes on while a thread waits.
__device__ inline std::uint64_t nanoseconds() {
  std::uint64_t time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}

}  // namespace troika::cuda

#else
#include <shim/cuda.hpp>
#endif
