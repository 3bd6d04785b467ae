// SPDX-License-Identifier: Apache-2.0
#pragma once

// Weights as files have them become floats, eight at a time: what one thread takes of a row. Blocks of GGML's types are
// read as they lie in GGUF files; core/dequantize.hpp is their truth, and says what their bytes mean.

#include <cstdint>
#include <cstring>

#include <kernels/element.cuh>
#include <troika/core/dequantize.hpp>
#include <troika/core/weight_type.hpp>

namespace troika::cuda {

struct Eight {
  float at[8];
};

// The bytes of a block. All blocks but those of MXFP4 have an even number of bytes, so that two can be read at once.
struct BlockBytes {
  const std::uint8_t* data;

  __device__ int u8(int at) const { return data[at]; }
  __device__ int i8(int at) const { return static_cast<std::int8_t>(data[at]); }
  __device__ std::uint16_t u16(int at) const { return *reinterpret_cast<const std::uint16_t*>(data + at); }
  __device__ std::uint32_t u32(int at) const { return u16(at) | static_cast<std::uint32_t>(u16(at + 2)) << 16; }
  __device__ std::uint64_t eight(int at) const { return u32(at) | static_cast<std::uint64_t>(u32(at + 4)) << 32; }
  __device__ float half(int at) const { return to_float(f16::from_bits(u16(at))); }
};

__device__ inline float float_of_bits(std::uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
__device__ inline std::uint32_t bits_of_float(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Calls value(j, byte j of `bytes`) for the eight.
template <class Value>
__device__ Eight each_of(std::uint64_t bytes, Value value) {
  Eight result;
  for (int j = 0; j < 8; ++j) result.at[j] = value(j, static_cast<int>(bytes >> (8 * j) & 255));
  return result;
}

// Sixteen small numbers in two words, since a table in memory would be read by each thread elsewhere.
struct Table16 {
  std::uint64_t low = 0, high = 0;
  constexpr explicit Table16(const std::array<std::int8_t, 16>& values) {
    for (std::size_t i = 0; i < 16; ++i)
      (i < 8 ? low : high) |= std::uint64_t{static_cast<std::uint8_t>(values[i])} << (i % 8 * 8);
  }
  __device__ float operator[](int i) const {
    return static_cast<float>(static_cast<std::int8_t>((i < 8 ? low : high) >> (i % 8 * 8) & 255));
  }
};

// Piece p of a block of 32 whose halves are the low and high halves of 16 bytes at `at`.
__device__ inline int half_bytes(int at, int p) { return at + p % 2 * 8; }
__device__ inline int half_shift(int p) { return p / 2 * 4; }

__device__ inline void q4_k_scale(BlockBytes b, int group, float& scale, float& minimum) {
  int s = b.u8(4 + group % 4), m = b.u8(8 + group % 4);
  if (group < 4) {
    s &= 63;
    m &= 63;
  } else {
    const int both = b.u8(8 + group);
    s = (both & 15) | s >> 6 << 4;
    m = both >> 4 | m >> 6 << 4;
  }
  scale = b.half(0) * static_cast<float>(s);
  minimum = b.half(2) * static_cast<float>(m);
}

// Elements 8p to 8p + 7 of a block.
template <WeightType type>
__device__ Eight eight_of(BlockBytes b, int p) {
  if constexpr (type == WeightType::q4_0) {
    const float d = b.half(0);
    const int shift = half_shift(p);
    return each_of(b.eight(half_bytes(2, p)),
                   [=](int, int q) { return d * static_cast<float>((q >> shift & 15) - 8); });
  } else if constexpr (type == WeightType::q4_1) {
    const float d = b.half(0), m = b.half(2);
    const int shift = half_shift(p);
    return each_of(b.eight(half_bytes(4, p)), [=](int, int q) { return d * static_cast<float>(q >> shift & 15) + m; });
  } else if constexpr (type == WeightType::q5_0) {
    const float d = b.half(0);
    const int shift = half_shift(p);
    const std::uint32_t fifth = b.u32(2) >> (8 * p);
    return each_of(b.eight(half_bytes(6, p)), [=](int j, int q) {
      return d * static_cast<float>(((q >> shift & 15) | static_cast<int>(fifth >> j & 1) << 4) - 16);
    });
  } else if constexpr (type == WeightType::q5_1) {
    const float d = b.half(0), m = b.half(2);
    const int shift = half_shift(p);
    const std::uint32_t fifth = b.u32(4) >> (8 * p);
    return each_of(b.eight(half_bytes(8, p)), [=](int j, int q) {
      return d * static_cast<float>((q >> shift & 15) | static_cast<int>(fifth >> j & 1) << 4) + m;
    });
  } else if constexpr (type == WeightType::q8_0) {
    const float d = b.half(0);
    return each_of(b.eight(2 + 8 * p), [=](int, int q) { return d * static_cast<float>(static_cast<std::int8_t>(q)); });
  } else if constexpr (type == WeightType::iq4_nl) {
    constexpr Table16 table(quantised::iq4_nl_values);
    const float d = b.half(0);
    const int shift = half_shift(p);
    return each_of(b.eight(half_bytes(2, p)), [=](int, int q) { return d * Table16(table)[q >> shift & 15]; });
  } else if constexpr (type == WeightType::mxfp4) {
    constexpr Table16 table(quantised::mxfp4_values);
    // 2^(e - 128): an exponent without sign or fraction, halved.
    const int e = b.u8(0);
    const float d = float_of_bits(e < 2 ? 0x00200000u << e : static_cast<std::uint32_t>(e - 1) << 23);
    const int shift = half_shift(p), at = half_bytes(1, p);
    Eight result;
    for (int j = 0; j < 8; ++j) result.at[j] = d * Table16(table)[b.u8(at + j) >> shift & 15];
    return result;
  } else if constexpr (type == WeightType::q2_k) {
    const int scales = b.u8(p / 2), shift = p % 16 / 4 * 2;
    const float d = b.half(80) * static_cast<float>(scales & 15), m = b.half(82) * static_cast<float>(scales >> 4);
    return each_of(b.eight(16 + p / 16 * 32 + p % 4 * 8),
                   [=](int, int q) { return d * static_cast<float>(q >> shift & 3) - m; });
  } else if constexpr (type == WeightType::q3_k) {
    const int group = p / 2, shift = p % 16 / 4 * 2, bit = p / 4;
    const int low = b.u8(96 + group % 8) >> (group / 8 * 4) & 15, high = b.u8(104 + group % 4) >> (group / 4 * 2) & 3;
    const float d = b.half(108) * static_cast<float>((low | high << 4) - 32);
    const std::uint64_t third = b.eight(p % 4 * 8);
    return each_of(b.eight(32 + p / 16 * 32 + p % 4 * 8), [=](int j, int q) {
      return d * static_cast<float>((q >> shift & 3) - (third >> (8 * j + bit) & 1 ? 0 : 4));
    });
  } else if constexpr (type == WeightType::q4_k) {
    float d, m;
    q4_k_scale(b, p / 4, d, m);
    const int shift = p % 8 / 4 * 4;
    return each_of(b.eight(16 + p / 8 * 32 + p % 4 * 8),
                   [=](int, int q) { return d * static_cast<float>(q >> shift & 15) - m; });
  } else if constexpr (type == WeightType::q5_k) {
    float d, m;
    q4_k_scale(b, p / 4, d, m);
    const int shift = p % 8 / 4 * 4, bit = p / 4;
    const std::uint64_t fifth = b.eight(16 + p % 4 * 8);
    return each_of(b.eight(48 + p / 8 * 32 + p % 4 * 8), [=](int j, int q) {
      return d * static_cast<float>((q >> shift & 15) | static_cast<int>(fifth >> (8 * j + bit) & 1) << 4) - m;
    });
  } else {
    static_assert(type == WeightType::q6_k);
    const float d = b.half(208) * static_cast<float>(b.i8(192 + p / 2));
    const int part = p / 16, in = p % 16, shift = in / 8 * 4, high_shift = in / 4 * 2;
    const std::uint64_t high = b.eight(128 + part * 32 + in % 4 * 8);
    return each_of(b.eight(part * 64 + in % 8 * 8), [=](int j, int q) {
      return d * static_cast<float>(((q >> shift & 15) | static_cast<int>(high >> (8 * j + high_shift) & 3) << 4) - 32);
    });
  }
}

// What an element is that is not quantised.
template <WeightType type>
using StoredAs =
    std::conditional_t<type == WeightType::f32, float, std::conditional_t<type == WeightType::f16, f16, bf16>>;

// Elements i to i + 7 of a row of `d`, i a multiple of 8, zeros after its end. A row begins at a multiple of 16 bytes
// if it is not quantised and d allows packs.
template <WeightType type>
__device__ Eight weights_at(const std::uint8_t* row, std::int64_t i, std::int64_t d) {
  constexpr WeightLayout layout = layout_of(type);
  if constexpr (layout.block > 1) {
    const std::int64_t block = i / layout.block;
    return eight_of<type>({row + block * static_cast<std::int64_t>(layout.bytes)},
                          static_cast<int>(i % layout.block) / 8);
  } else {
    using T = StoredAs<type>;
    const T* const from = reinterpret_cast<const T*>(row) + i;
    Eight result;
    if (d % 8 == 0) {
      constexpr int N = pack_of<T>;
      for (int j = 0; j < 8; j += N) {
        const auto pack = load_pack<Pack<T, N>>(from + j);
        for (int n = 0; n < N; ++n) result.at[j + n] = to_float(pack.at[n]);
      }
    } else {
      for (int j = 0; j < 8; ++j) result.at[j] = i + j < d ? to_float(from[j]) : 0.0f;
    }
    return result;
  }
}

template <WeightType type>
using TypeConstant = std::integral_constant<WeightType, type>;

// Calls f(TypeConstant<type>).
template <class F>
void with_weight_type(WeightType type, F f) {
  using enum WeightType;
  switch (type) {
    case f32: return f(TypeConstant<f32>{});
    case WeightType::f16: return f(TypeConstant<WeightType::f16>{});
    case WeightType::bf16: return f(TypeConstant<WeightType::bf16>{});
    case q4_0: return f(TypeConstant<q4_0>{});
    case q4_1: return f(TypeConstant<q4_1>{});
    case q5_0: return f(TypeConstant<q5_0>{});
    case q5_1: return f(TypeConstant<q5_1>{});
    case q8_0: return f(TypeConstant<q8_0>{});
    case q2_k: return f(TypeConstant<q2_k>{});
    case q3_k: return f(TypeConstant<q3_k>{});
    case q4_k: return f(TypeConstant<q4_k>{});
    case q5_k: return f(TypeConstant<q5_k>{});
    case q6_k: return f(TypeConstant<q6_k>{});
    case iq4_nl: return f(TypeConstant<iq4_nl>{});
    case mxfp4: return f(TypeConstant<mxfp4>{});
  }
}

}  // namespace troika::cuda
