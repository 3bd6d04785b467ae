// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace troika {

// 16-bit storage types. Arithmetic happens in float; the conversions round to nearest even and keep NaN a NaN.
struct bf16 {
  std::uint16_t bits = 0;

  bf16() = default;
  constexpr explicit bf16(float value) : bits(round(std::bit_cast<std::uint32_t>(value))) {}
  constexpr explicit operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
  static constexpr bf16 from_bits(std::uint16_t bits) {
    bf16 value;
    value.bits = bits;
    return value;
  }

 private:
  static constexpr std::uint16_t round(std::uint32_t u) {
    if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((u >> 16) | 0x40u);  // quiet NaN
    return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
};

struct f16 {
  std::uint16_t bits = 0;

  f16() = default;
  constexpr explicit f16(float value) : bits(round(std::bit_cast<std::uint32_t>(value))) {}
  constexpr explicit operator float() const { return widen(bits); }
  static constexpr f16 from_bits(std::uint16_t bits) {
    f16 value;
    value.bits = bits;
    return value;
  }

 private:
  // Subnormal results come out of one float addition, which rounds for us: the trick of F. Giesen's
  // float_to_half_fast3.
  static constexpr std::uint16_t round(std::uint32_t u) {
    const auto sign = static_cast<std::uint16_t>((u >> 16) & 0x8000u);
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return sign | 0x7e00u;
    if (u >= 0x47800000u) return sign | 0x7c00u;  // 65536 and more; what rounds up to it carries over below
    if (u < 0x38800000u) {                        // below the smallest normal half
      const float magic = std::bit_cast<float>(0x3f000000u);
      const float sum = std::bit_cast<float>(u) + magic;
      return sign | static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(sum) - 0x3f000000u);
    }
    u += ((u >> 13) & 1u) + 0xc8000fffu;  // exponent bias 127 -> 15, and round to nearest even
    return sign | static_cast<std::uint16_t>(u >> 13);
  }
  static constexpr float widen(std::uint16_t h) {
    const std::uint32_t sign = std::uint32_t{h & 0x8000u} << 16;
    const std::uint32_t exponent = (h >> 10) & 0x1fu, fraction = h & 0x3ffu;
    if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
    const float small = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -small : small;
  }
};

enum class DType : std::uint8_t { f32, f16, bf16, i32, i8, u8 };

constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32: return 4;
    case DType::f16:
    case DType::bf16: return 2;
    case DType::i8:
    case DType::u8: return 1;
  }
  return 0;
}

constexpr std::string_view to_string(DType dtype) {
  constexpr std::string_view names[] = {"f32", "f16", "bf16", "i32", "i8", "u8"};
  return names[static_cast<std::size_t>(dtype)];
}

template <class T>
struct dtype_of_type;
template <>
struct dtype_of_type<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct dtype_of_type<f16> {
  static constexpr DType value = DType::f16;
};
template <>
struct dtype_of_type<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct dtype_of_type<std::int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct dtype_of_type<std::int8_t> {
  static constexpr DType value = DType::i8;
};
template <>
struct dtype_of_type<std::uint8_t> {
  static constexpr DType value = DType::u8;
};

template <class T>
concept Element = requires {
  dtype_of_type<std::remove_cv_t<T>>::value;
};
template <Element T>
inline constexpr DType dtype_of = dtype_of_type<std::remove_cv_t<T>>::value;

// Calls f with a value of the C++ type that stands for `dtype`.
template <class F>
decltype(auto) visit(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f16: return f(f16{});
    case DType::bf16: return f(bf16{});
    case DType::i32: return f(std::int32_t{});
    case DType::i8: return f(std::int8_t{});
    case DType::u8: return f(std::uint8_t{});
    case DType::f32: break;
  }
  return f(float{});
}

}  // namespace troika
