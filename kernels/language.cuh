// SPDX-License-Identifier: Apache-2.0
#pragma once

// The few words in which kernels differ between nvcc and a C++ compiler. nvcc makes GPU code of them; g++ and clang++
// make fibres (tests/kernels/shim), so that tests run the same kernels, line by line, on a machine without a GPU: alone,
// or started by the host code of src/device/cuda (tests/cuda/runtime).

#include <cstdint>

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <string>

#include <troika/core/dtype.hpp>
#include <troika/core/error.hpp>

// Shared memory of a block: one struct a kernel.
#define TROIKA_SHARED(Type, name) __shared__ Type name
// Arguments that stay where the launch put them, also where an array in them is indexed by what only the kernel knows.
#define TROIKA_ARGUMENT const __grid_constant__
#define TROIKA_UNROLL _Pragma("unroll")
#define TROIKA_ROLLED _Pragma("unroll 1")

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
// d += a b, of a warp on its tensor core: a (16, 16) and b (16, 8) of T, bf16 or f16, in pairs, d (16, 8). Where element
// i of a lane's part is, with g = lane / 4 and t = lane % 4: of a in row g + i / 2 % 2 * 8, column 2 t + i % 2 + i / 4 * 8;
// of b in row 2 t + i % 2 + i / 2 * 8, column g; of d in row g + i / 2 * 8, column 2 t + i % 2.
template <class T>
__device__ void multiply_add(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  if constexpr (dtype_of<T> == DType::f16) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}
// Four matrices (8, 8) of 16 bits an element from shared memory. Lane i says where row i % 8 of matrix i / 8 is, at a
// multiple of 16 bytes; it gets elements 2 t and 2 t + 1 of row g of each or, transposed, of column g.
template <bool transposed>
__device__ void load_matrices(std::uint32_t (&to)[4], const void* row) {
  const auto from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
  }
}
// 2 to the power of x in one instruction, to about 22 bits; 0 where that is below the normal numbers.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
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
