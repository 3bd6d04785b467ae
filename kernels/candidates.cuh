// SPDX-License-Identifier: Apache-2.0
#pragma once

// The best tokens of one rank's part of the vocabulary, so that the logits need not leave the GPU: first those of
// slices, a block each, then those of all slices. Each round takes the best of what is left, so k rounds give k, best
// first.

#include <cmath>
#include <cstdint>

#include <kernels/language.cuh>
#include <troika/device/candidate.hpp>

namespace troika::cuda {

inline constexpr int candidate_threads = 256, candidate_slice = 2048, most_candidates = 256;

// A place that nothing is in; any token is better.
inline constexpr std::int32_t no_token = 0x7fffffff;

__device__ inline bool precedes(Candidate a, Candidate b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

struct CandidateScratch {
  Candidate slice[candidate_slice];
  Candidate best[candidate_threads / warp_size];
};

// The best of `count` candidates in shared memory, k times: out[0] to out[k - 1], with no_token where there are fewer.
__device__ inline void choose(CandidateScratch& s, int count, int k, Candidate* out) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int round = 0; round < k; ++round) {
    Candidate best{-INFINITY, no_token};
    for (int i = thread; i < count; i += candidate_threads) {
      if (precedes(s.slice[i], best)) best = s.slice[i];
    }
    for (int step = warp_size / 2; step > 0; step /= 2) {
      const Candidate other{__shfl_xor_sync(all_lanes, best.logit, step), __shfl_xor_sync(all_lanes, best.id, step)};
      if (precedes(other, best)) best = other;
    }
    if (round > 0) __syncthreads();  // all have read the best of the round before
    if (thread % warp_size == 0) s.best[thread / warp_size] = best;
    __syncthreads();
    for (int i = 0; i < candidate_threads / warp_size; ++i) {
      if (precedes(s.best[i], best)) best = s.best[i];
    }
    // Whose it is takes it out; only that thread looks at it again.
    for (int i = thread; i < count; i += candidate_threads) {
      if (s.slice[i].id == best.id) s.slice[i] = {-INFINITY, no_token};
    }
    if (thread == 0) out[round] = best;
  }
}

// best (slices, k): those of each slice of `logits`. *nan becomes 1 where a logit is no number: there is no best of it.
static __global__ void __launch_bounds__(candidate_threads)
    slice_candidates_kernel(const float* logits, std::int64_t size, std::int32_t first_id, int k, Candidate* best,
                            std::uint32_t* nan) {
  TROIKA_SHARED(CandidateScratch, s);
  const std::int64_t begin = std::int64_t{blockIdx.x} * candidate_slice;
  const int count = static_cast<int>(size - begin < candidate_slice ? size - begin : candidate_slice);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += candidate_threads) {
    const float logit = logits[begin + i];
    if (logit != logit) *nan = 1;
    s.slice[i] = {logit, first_id + static_cast<std::int32_t>(begin) + i};
  }
  choose(s, count, k, best + std::int64_t{blockIdx.x} * k);
}

// in (blocks, candidate_slice), the last one shorter, to out (blocks, k).
static __global__ void __launch_bounds__(candidate_threads)
    merge_candidates_kernel(const Candidate* in, std::int64_t size, int k, Candidate* out) {
  TROIKA_SHARED(CandidateScratch, s);
  const std::int64_t begin = std::int64_t{blockIdx.x} * candidate_slice;
  const int count = static_cast<int>(size - begin < candidate_slice ? size - begin : candidate_slice);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += candidate_threads) s.slice[i] = in[begin + i];
  choose(s, count, k, out + std::int64_t{blockIdx.x} * k);
}

inline std::int64_t candidate_slices(std::int64_t size) { return (size + candidate_slice - 1) / candidate_slice; }
// Candidates of scratch that top_candidates needs.
inline std::int64_t candidate_scratch(std::int64_t size, int k) { return 2 * candidate_slices(size) * k; }

// out[0] to out[k - 1], best first; where there are fewer, the id of the others is no_token. 1 <= k <= most_candidates;
// *nan is 0 at first. The logit at i belongs to token first_id + i.
inline void top_candidates(const float* logits, std::int64_t size, std::int32_t first_id, int k, Candidate* scratch,
                           Candidate* out, std::uint32_t* nan, cudaStream_t stream) {
  std::int64_t slices = candidate_slices(size);
  Candidate* other = scratch + slices * k;
  const auto blocks = [](std::int64_t count) { return dim3(static_cast<unsigned>(count)); };
  launch(slice_candidates_kernel, blocks(slices > 1 ? slices : 1), candidate_threads, stream, logits, size, first_id, k,
         slices > 1 ? scratch : out, nan);
  while (slices > 1) {
    const std::int64_t left = slices * k;
    slices = candidate_slices(left);
    launch(merge_candidates_kernel, blocks(slices), candidate_threads, stream, static_cast<const Candidate*>(scratch),
           left, k, slices > 1 ? other : out);
    Candidate* const next = other;
    other = scratch;
    scratch = next;
  }
}

}  // namespace troika::cuda
