// SPDX-License-Identifier: Apache-2.0
#pragma once

// y[i] = op(a[i], b[i], ...): casts, sums, activations. Memory is all that these cost, so a thread takes four elements
// at once wherever all arrays allow it.

#include <algorithm>
#include <cstdint>

#include <kernels/element.cuh>

namespace troika::cuda {

inline constexpr int map_threads = 256;

template <int N, class Op, class Out, class... In>
__global__ void __launch_bounds__(map_threads) map_kernel(Op op, std::int64_t count, Out* y, const In*... in) {
  const std::int64_t step = std::int64_t{gridDim.x} * map_threads;
  const std::int64_t thread = std::int64_t{blockIdx.x} * map_threads + threadIdx.x;
  const std::int64_t whole = count / N * N;
  const auto some = [&](std::int64_t i, const auto&... packs) {
    Pack<Out, N> result;
    for (int j = 0; j < N; ++j) result.at[j] = from_float<Out>(op(to_float(packs.at[j])...));
    store_pack(result, y + i);
  };
  for (std::int64_t i = thread * N; i < whole; i += step * N) some(i, load_pack<Pack<In, N>>(in + i)...);
  for (std::int64_t i = whole + thread; i < count; i += step) y[i] = from_float<Out>(op(to_float(in[i])...));
}

// y may be one of the inputs. `op` takes floats and gives a float.
template <class Op, class Out, class... In>
void map(Op op, std::int64_t count, cudaStream_t stream, Out* y, const In*... in) {
  if (count == 0) return;
  const bool wide = aligned(y) && (aligned(in) && ...);
  const std::int64_t each = map_threads * (wide ? 4 : 1);
  // Beyond this every multiprocessor has enough of them, and threads take several elements.
  const std::int64_t blocks = std::min<std::int64_t>((count + each - 1) / each, 4096);
  launch(wide ? map_kernel<4, Op, Out, In...> : map_kernel<1, Op, Out, In...>, dim3(static_cast<unsigned>(blocks)),
         map_threads, stream, op, count, y, in...);
}

// The same value, as another type, rounded to nearest even.
struct Same {
  __device__ float operator()(float x) const { return x; }
};
template <class To, class From>
void cast(const From* x, To* y, std::int64_t count, cudaStream_t stream) {
  map(Same{}, count, stream, y, x);
}

struct Add {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Scale {
  float factor;
  __device__ float operator()(float x) const { return factor * x; }
};

}  // namespace troika::cuda
