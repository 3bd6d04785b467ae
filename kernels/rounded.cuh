// SPDX-License-Identifier: Apache-2.0
#pragma once

// Rows of activations in 8 bits, in groups of 32 with a scale each: what products with quantised weights multiply as
// whole numbers, four at a time (__dp4a).

#include <cstdint>

#include <kernels/weights.cuh>

namespace troika::cuda {

// 2048 elements of a row, in the order in which the lanes of a warp take them, 16 bytes each, from front to back: a lane
// takes two groups.
inline constexpr int piece_elements = 2048;
struct RoundedGroup {
  float scale;
  std::int16_t first, second;  // sums of each half's bytes
};
struct alignas(16) RoundedPiece {
  std::uint32_t words[4][warp_size][4];  // [2 * (first or second group) + half]
  RoundedGroup groups[2][warp_size];
};
constexpr std::int64_t rounded_pieces(std::int64_t k) { return (k + piece_elements - 1) / piece_elements; }

// Which two groups of 32 a lane takes of a piece: neighbours; or, crossed, those two apart, which Q6_K keeps in the same
// bytes.
template <bool crossed>
__device__ int group_of(int lane, int which) {
  return crossed ? lane / 2 * 4 + lane % 2 + 2 * which : 2 * lane + which;
}

// Where elements i to i + 7 of a row go, and the scale of their group.
struct RoundedPlace {
  std::uint32_t* words;
  RoundedGroup* group;

  // Of elements that come `elements` after those, a multiple of 1024.
  __device__ RoundedPlace later(int elements) const {
    const int pieces = elements / piece_elements, lanes = elements % piece_elements / 64;
    return {words + pieces * static_cast<int>(sizeof(RoundedPiece) / sizeof *words) + lanes * 4,
            group + pieces * static_cast<int>(sizeof(RoundedPiece) / sizeof *group) + lanes};
  }
};
template <bool crossed>
__device__ RoundedPlace place_of(RoundedPiece* row, int i) {
  RoundedPiece& piece = row[i / piece_elements];
  const int group = i % piece_elements / 32;
  const int lane = crossed ? group / 4 * 2 + group % 2 : group / 2, which = crossed ? group / 2 % 2 : group % 2;
  return {&piece.words[2 * which + i % 32 / 16][lane][i % 16 / 4], &piece.groups[which][lane]};
}

// By all lanes of a warp at once: lane l with the eight elements after those of lane l - 1, and the first lane at a
// multiple of 256. A group with an element that is no number, or not below 2^126, has no number for its scale.
__device__ inline void round_eight(const Eight& x, bool there, const RoundedPlace& to) {
  // Bits of positive floats are in the order of their values, and those of what is no number come last.
  std::uint32_t largest = 0;
  for (int j = 0; j < 8; ++j) {
    const std::uint32_t bits = bits_of_float(x.at[j]) & 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  for (int step = 1; step <= 2; step *= 2) {
    const std::uint32_t other = __shfl_xor_sync(all_lanes, largest, step);
    largest = other > largest ? other : largest;
  }
  const float most = float_of_bits(largest), factor = most > 1e-36f ? divide_fast(127.0f, most) : 0.0f;
  std::uint32_t bytes[8];
  // Adding 1.5 2^23 rounds to nearest even: the low byte of what comes out is the whole number.
  for (int j = 0; j < 8; ++j) bytes[j] = bits_of_float(x.at[j] * factor + 12582912.0f);
  Pack<std::uint32_t, 2> words;
  for (int j = 0; j < 2; ++j) {
    words.at[j] = __byte_perm(__byte_perm(bytes[4 * j], bytes[4 * j + 1], 0x0040),
                              __byte_perm(bytes[4 * j + 2], bytes[4 * j + 3], 0x0040), 0x5410);
  }
  int sum = __dp4a(static_cast<int>(words.at[0]), 0x01010101, __dp4a(static_cast<int>(words.at[1]), 0x01010101, 0));
  sum += __shfl_xor_sync(all_lanes, sum, 1);
  const int second = __shfl_xor_sync(all_lanes, sum, 2);
  if (!there) return;
  store_pack(words, to.words);
  if (threadIdx.x % 4 == 0) {
    const float scale = largest >= 0x7e800000u ? float_of_bits(0x7fffffffu)
                        : most > 1e-36f        ? most * (1 / 127.0f)
                                               : 0.0f;
    *to.group = {scale, static_cast<std::int16_t>(sum), static_cast<std::int16_t>(second)};
  }
}

// Those of a row of k; after its end, where they are not used, its last ones.
__device__ inline Eight eight_at(const float* row, int i, int k) {
  return weights_at<WeightType::f32>(reinterpret_cast<const std::uint8_t*>(row), i < k ? i : k - 8, 8);
}

// A row of x by all threads of a block. Four reads are under way at once.
template <bool crossed, int threads>
__device__ void round_row(const float* x, int k, RoundedPiece* to) {
  constexpr int deep = 4, step = threads * 8;
  static_assert(step % 1024 == 0);
  const int of_thread = static_cast<int>(threadIdx.x) * 8;
  const RoundedPlace place = place_of<crossed>(to, of_thread);
  for (int begin = 0; begin < k; begin += deep * step) {
    Eight some[deep];
    TROIKA_UNROLL
    for (int u = 0; u < deep; ++u) some[u] = eight_at(x, begin + u * step + of_thread, k);
    TROIKA_UNROLL
    for (int u = 0; u < deep; ++u) {
      const int first = begin + u * step;
      if (first < k) round_eight(some[u], first + of_thread < k, place.later(begin).later(u * step));
    }
  }
}

inline constexpr int round_threads = 128;

// Rows of x, k a multiple of 32; a block takes 1024 elements of one.
template <bool crossed>
__global__ void __launch_bounds__(round_threads) round_kernel(const float* x, int k, RoundedPiece* to) {
  const int i = static_cast<int>(blockIdx.x * round_threads + threadIdx.x) * 8;
  const std::int64_t row = blockIdx.y;
  round_eight(eight_at(x + row * k, i, k), i < k, place_of<crossed>(to + row * rounded_pieces(k), i));
}
template <bool crossed>
void round_rows(const float* x, std::int64_t m, std::int64_t k, RoundedPiece* to, cudaStream_t stream) {
  if (m == 0 || k == 0) return;
  const dim3 blocks(static_cast<unsigned>((k + round_threads * 8 - 1) / (round_threads * 8)), static_cast<unsigned>(m));
  launch(round_kernel<crossed>, blocks, round_threads, stream, x, static_cast<int>(k), to);
}

}  // namespace troika::cuda
