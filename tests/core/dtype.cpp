// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <Eigen/Core>
#include <support/catch.hpp>

#include <troika/core/dtype.hpp>

// Eigen's conversions are the independent reference.
namespace {

bool same(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

// Every 997th bit pattern of float, and those around the borders of the narrow types.
template <class Check>
bool holds_for_floats(Check check) {
  for (std::uint64_t bits = 0; bits <= 0xffffffffu; bits += 997) {
    if (!check(std::bit_cast<float>(static_cast<std::uint32_t>(bits)))) return false;
  }
  for (const float edge : {65504.0f, 65519.0f, 65520.0f, 65536.0f, 0x1p-14f, 0x1p-24f, 0x1p-25f, 0x1.8p-25f, 0.0f}) {
    for (const float value : {std::nextafter(edge, 0.0f), edge, std::nextafter(edge, 1e30f)}) {
      if (!check(value) || !check(-value)) return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("every f16 widens as Eigen widens it, and comes back") {
  bool widened = true, returned = true;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = troika::f16::from_bits(static_cast<std::uint16_t>(bits));
    const auto value = static_cast<float>(half);
    widened &= same(value, Eigen::half_impl::half_to_float(Eigen::half_impl::raw_uint16_to_half(half.bits)));
    returned &=
        std::isnan(value) ? std::isnan(static_cast<float>(troika::f16(value))) : troika::f16(value).bits == half.bits;
  }
  CHECK(widened);
  CHECK(returned);
}

TEST_CASE("floats round to f16 and bf16 as Eigen rounds them") {
  CHECK(holds_for_floats([](float x) {
    const auto ours = static_cast<float>(troika::f16(x));
    return same(ours, static_cast<float>(Eigen::half(x)));
  }));
  CHECK(holds_for_floats([](float x) {
    const auto ours = static_cast<float>(troika::bf16(x));
    return same(ours, static_cast<float>(Eigen::bfloat16(x)));
  }));
}

TEST_CASE("a dtype knows its size, its name and its C++ type") {
  CHECK(troika::size_of(troika::DType::bf16) == 2);
  CHECK(troika::to_string(troika::DType::i8) == "i8");
  for (const auto dtype : {troika::DType::f32, troika::DType::f16, troika::DType::bf16, troika::DType::i32,
                           troika::DType::i8, troika::DType::u8}) {
    const auto size = troika::visit(dtype, [](auto value) { return sizeof value; });
    CHECK(size == troika::size_of(dtype));
    CHECK(troika::visit(dtype, [](auto value) { return troika::dtype_of<decltype(value)>; }) == dtype);
  }
  STATIC_REQUIRE_FALSE(troika::Element<double>);
}
