// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this where its macros are set.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

// Quantised blocks in registers, 32 elements at a time: element i is scale * (byte i - offset) - minimum.
// core/dequantize.hpp says what each type means, in plain words.
namespace troika::kernels {

struct GroupScales {
  alignas(32) float scale[16], minimum[16];
};

// What blocks of 32 elements share: one group.
struct SmallBlock {
  static constexpr int groups = 1, offset = 0;
  static constexpr bool has_minimum = false;

  TROIKA_INLINE void prepare(const std::byte*, GroupScales&) {}
  TROIKA_INLINE __m256 scale(const std::byte* block, const GroupScales&, int) { return half(block); }
  TROIKA_INLINE __m256 minimum(const std::byte* block, const GroupScales&, int) { return -half(block + 2); }

  TROIKA_INLINE __m256 half(const std::byte* at) {
    std::int16_t bits;
    std::memcpy(&bits, at, 2);
    return _mm256_cvtph_ps(_mm_set1_epi16(bits));
  }
  TROIKA_INLINE __m256i load(const std::byte* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }
  TROIKA_INLINE __m256i nibbles(const std::byte* at) {
    const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(both, 4), both), _mm256_set1_epi8(15));
  }
  // Bit i of the 4 bytes, times 16, in byte i.
  TROIKA_INLINE __m256i fifths(const std::byte* at) {
    std::int32_t bits;
    std::memcpy(&bits, at, 4);
    const __m256i spread = _mm256_shuffle_epi8(
        _mm256_set1_epi32(bits), _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
    const __m256i bit = _mm256_set1_epi64x(static_cast<std::int64_t>(0x8040201008040201));
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit), _mm256_set1_epi8(16));
  }
  TROIKA_INLINE __m256i lookup(__m256i index, __m128i table) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), index);
  }
};

template <WeightType type>
struct Groups;

template <>
struct Groups<WeightType::q4_0> : SmallBlock {
  static constexpr int offset = 8;
  TROIKA_INLINE __m256i bytes(const std::byte* block, int) { return nibbles(block + 2); }
};
template <>
struct Groups<WeightType::q4_1> : SmallBlock {
  static constexpr bool has_minimum = true;
  TROIKA_INLINE __m256i bytes(const std::byte* block, int) { return nibbles(block + 4); }
};
template <>
struct Groups<WeightType::q5_0> : SmallBlock {
  static constexpr int offset = 16;
  TROIKA_INLINE __m256i bytes(const std::byte* block, int) {
    return _mm256_or_si256(nibbles(block + 6), fifths(block + 2));
  }
};
template <>
struct Groups<WeightType::q5_1> : SmallBlock {
  static constexpr bool has_minimum = true;
  TROIKA_INLINE __m256i bytes(const std::byte* block, int) {
    return _mm256_or_si256(nibbles(block + 8), fifths(block + 4));
  }
};
template <>
struct Groups<WeightType::q8_0> : SmallBlock {
  static constexpr int offset = 128;
  TROIKA_INLINE __m256i bytes(const std::byte* block, int) {
    return _mm256_xor_si256(load(block + 2), _mm256_set1_epi8(static_cast<char>(0x80)));
  }
};
template <>
struct Groups<WeightType::iq4_nl> : SmallBlock {
  static constexpr int offset = 128;
  TROIKA_INLINE __m256i bytes(const std::byte* block, int) {  // quantised::iq4_nl_values + 128
    return lookup(nibbles(block + 2),
                  _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39, -15));
  }
};
template <>
struct Groups<WeightType::mxfp4> : SmallBlock {
  static constexpr int offset = 12;
  TROIKA_INLINE __m256i bytes(const std::byte* block, int) {  // quantised::mxfp4_values + 12
    return lookup(nibbles(block + 1), _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  }
  TROIKA_INLINE __m256 scale(const std::byte* block, const GroupScales&, int) {
    return _mm256_set1_ps(quantised::e8m0_half(std::to_integer<int>(block[0])));
  }
};

// What blocks of 256 share: 8 groups, whose scales are small integers times a half.
struct LargeBlock : SmallBlock {
  static constexpr int groups = 8;

  TROIKA_INLINE __m256 scale(const std::byte*, const GroupScales& s, int j) { return _mm256_broadcast_ss(s.scale + j); }
  TROIKA_INLINE __m256 minimum(const std::byte*, const GroupScales& s, int j) {
    return _mm256_broadcast_ss(s.minimum + j);
  }
  TROIKA_INLINE __m256i shifted(const std::byte* at, int shift, int mask) {
    return _mm256_and_si256(_mm256_srli_epi16(load(at), shift), _mm256_set1_epi8(static_cast<char>(mask)));
  }
  // 16 signed bytes times a half; the same of unsigned ones.
  TROIKA_INLINE void times_signed(__m128i bytes, __m256 factor, float* to) {
    _mm256_store_ps(to, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)) * factor);
    _mm256_store_ps(to + 8, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))) * factor);
  }
  TROIKA_INLINE __m256 floats(__m128i bytes) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)); }
  // 8 scales and 8 minima of 6 bits in 12 bytes, as quantised::q4_k_scale takes them apart.
  TROIKA_INLINE void six_bits(const std::byte* block, GroupScales& s) {
    std::uint32_t a[3];
    std::memcpy(a, block + 4, 12);
    const std::uint32_t low_scales = a[0] & 0x3f3f3f3fu, low_minima = a[1] & 0x3f3f3f3fu;
    const std::uint32_t high_scales = (a[2] & 0x0f0f0f0fu) | (a[0] >> 2 & 0x30303030u);
    const std::uint32_t high_minima = (a[2] >> 4 & 0x0f0f0f0fu) | (a[1] >> 2 & 0x30303030u);
    const auto both = [](std::uint32_t low, std::uint32_t high) {
      return static_cast<long long>(std::uint64_t{high} << 32 | low);
    };
    _mm256_store_ps(s.scale, floats(_mm_cvtsi64_si128(both(low_scales, high_scales))) * half(block));
    _mm256_store_ps(s.minimum, floats(_mm_cvtsi64_si128(both(low_minima, high_minima))) * half(block + 2));
  }
};
// Scales of 16 elements: two in a group.
struct FineBlock : LargeBlock {
  TROIKA_INLINE __m256 two(const float* at) {
    return _mm256_blend_ps(_mm256_broadcast_ss(at), _mm256_broadcast_ss(at + 1), 0xf0);
  }
  TROIKA_INLINE __m256 scale(const std::byte*, const GroupScales& s, int j) { return two(s.scale + 2 * j); }
  TROIKA_INLINE __m256 minimum(const std::byte*, const GroupScales& s, int j) { return two(s.minimum + 2 * j); }
};

template <>
struct Groups<WeightType::q2_k> : FineBlock {
  static constexpr bool has_minimum = true;
  TROIKA_INLINE void prepare(const std::byte* block, GroupScales& s) {
    const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block)), low = _mm_set1_epi8(15);
    times_signed(_mm_and_si128(both, low), half(block + 80), s.scale);
    times_signed(_mm_and_si128(_mm_srli_epi16(both, 4), low), half(block + 82), s.minimum);
  }
  TROIKA_INLINE __m256i bytes(const std::byte* block, int j) { return shifted(block + 16 + j / 4 * 32, j % 4 * 2, 3); }
};
template <>
struct Groups<WeightType::q3_k> : FineBlock {
  static constexpr int offset = 4;
  TROIKA_INLINE void prepare(const std::byte* block, GroupScales& s) {
    alignas(16) std::int8_t scales[16];
    for (int i = 0; i < 16; ++i) scales[i] = static_cast<std::int8_t>(quantised::q3_k_scale({block}, 96, i));
    times_signed(_mm_load_si128(reinterpret_cast<const __m128i*>(scales)), half(block + 108), s.scale);
  }
  TROIKA_INLINE __m256i bytes(const std::byte* block, int j) {
    return _mm256_or_si256(shifted(block + 32 + j / 4 * 32, j % 4 * 2, 3), _mm256_slli_epi16(shifted(block, j, 1), 2));
  }
};
template <>
struct Groups<WeightType::q4_k> : LargeBlock {
  static constexpr bool has_minimum = true;
  TROIKA_INLINE void prepare(const std::byte* block, GroupScales& s) { six_bits(block, s); }
  TROIKA_INLINE __m256i bytes(const std::byte* block, int j) { return shifted(block + 16 + j / 2 * 32, j % 2 * 4, 15); }
};
template <>
struct Groups<WeightType::q5_k> : LargeBlock {
  static constexpr bool has_minimum = true;
  TROIKA_INLINE void prepare(const std::byte* block, GroupScales& s) { six_bits(block, s); }
  TROIKA_INLINE __m256i bytes(const std::byte* block, int j) {
    return _mm256_or_si256(shifted(block + 48 + j / 2 * 32, j % 2 * 4, 15),
                           _mm256_slli_epi16(shifted(block + 16, j, 1), 4));
  }
};
template <>
struct Groups<WeightType::q6_k> : FineBlock {
  static constexpr int offset = 32;
  TROIKA_INLINE void prepare(const std::byte* block, GroupScales& s) {
    times_signed(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 192)), half(block + 208), s.scale);
  }
  TROIKA_INLINE __m256i bytes(const std::byte* block, int j) {
    return _mm256_or_si256(shifted(block + j / 4 * 64 + j % 2 * 32, j % 4 / 2 * 4, 15),
                           _mm256_slli_epi16(shifted(block + 128 + j / 4 * 32, j % 4 * 2, 3), 4));
  }
};

// f(Groups<type>{}) for a quantised type.
template <class F>
decltype(auto) with_groups(WeightType type, F&& f) {
  switch (type) {
    case WeightType::q4_0: return f(Groups<WeightType::q4_0>{});
    case WeightType::q4_1: return f(Groups<WeightType::q4_1>{});
    case WeightType::q5_0: return f(Groups<WeightType::q5_0>{});
    case WeightType::q5_1: return f(Groups<WeightType::q5_1>{});
    case WeightType::q8_0: return f(Groups<WeightType::q8_0>{});
    case WeightType::q2_k: return f(Groups<WeightType::q2_k>{});
    case WeightType::q3_k: return f(Groups<WeightType::q3_k>{});
    case WeightType::q4_k: return f(Groups<WeightType::q4_k>{});
    case WeightType::q5_k: return f(Groups<WeightType::q5_k>{});
    case WeightType::q6_k: return f(Groups<WeightType::q6_k>{});
    case WeightType::iq4_nl: return f(Groups<WeightType::iq4_nl>{});
    case WeightType::mxfp4: return f(Groups<WeightType::mxfp4>{});
    case WeightType::f32:
    case WeightType::f16:
    case WeightType::bf16: break;
  }
  throw Error(Fault::invalid_argument, std::string(to_string(type)) + " is not quantised");
}

// `count` blocks, as floats.
template <class G>
TROIKA_TARGET void expand_groups(const std::byte* block, std::size_t bytes, std::int64_t count, float* to) {
  GroupScales scales;
  for (std::int64_t b = 0; b < count; ++b, block += bytes) {
    G::prepare(block, scales);
    TROIKA_UNROLL
    for (int j = 0; j < G::groups; ++j, to += 32) {
      const __m256 scale = G::scale(block, scales, j);
      const __m256 first = _mm256_permute2f128_ps(scale, scale, 0x00),
                   second = _mm256_permute2f128_ps(scale, scale, 0x11);
      __m256 less[2] = {};
      if constexpr (G::has_minimum) {
        const __m256 minimum = G::minimum(block, scales, j);
        less[0] = _mm256_permute2f128_ps(minimum, minimum, 0x00);
        less[1] = _mm256_permute2f128_ps(minimum, minimum, 0x11);
      }
      alignas(32) std::byte bytes_of[32];
      _mm256_store_si256(reinterpret_cast<__m256i*>(bytes_of), G::bytes(block, j));
      TROIKA_UNROLL
      for (int i = 0; i < 4; ++i) {
        const __m256i q = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes_of + 8 * i)));
        __m256 value = _mm256_cvtepi32_ps(_mm256_sub_epi32(q, _mm256_set1_epi32(G::offset))) * (i < 2 ? first : second);
        if constexpr (G::has_minimum) value -= less[i / 2];
        _mm256_storeu_ps(to + 8 * i, value);
      }
    }
  }
}

}  // namespace troika::kernels
#endif
