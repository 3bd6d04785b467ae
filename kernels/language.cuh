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
// 16 bytes of memory to shared memory, both at multiples of 16, beside what the thread does; the first `bytes` of them are
// read, and zeros take the place of the others. There are groups of such copies, each up to an end_of_copies(), and
// wait_for_copies<n>() waits for all of the thread's but the n last ones: after a barrier others see them, too.
__device__ inline void copy_later(void* to, const void* from, int bytes) {
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))),
      "l"(__cvta_generic_to_global(from)), "r"(bytes)
      : "memory");
}
__device__ inline void end_of_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int n>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
}
// x / y to 2 units in the last place, for y below 2^126.
__device__ inline float divide_fast(float x, float y) { return __fdividef(x, y); }
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
