// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include <support/catch.hpp>

#include <troika/core/dequantize.hpp>

// The expected values are worked out by hand from the layouts of GGML; every type on random bytes is compared with the
// package `gguf` in tests/oracles/dequantize_oracle.py.
namespace {

using troika::WeightType;

std::vector<std::byte> block_of(WeightType type) { return std::vector<std::byte>(troika::layout_of(type).bytes); }

void put(std::vector<std::byte>& block, std::size_t at, std::initializer_list<int> values) {
  for (const int value : values) block[at++] = static_cast<std::byte>(value);
}

std::vector<float> values_of(WeightType type, const std::vector<std::byte>& block) {
  std::vector<float> out(block.size() / troika::layout_of(type).bytes *
                         static_cast<std::size_t>(troika::layout_of(type).block));
  troika::dequantize(type, block.data(), out);
  return out;
}

constexpr std::initializer_list<int> half_of_2{0x00, 0x40}, half_of_1{0x00, 0x3c}, half_of_half{0x00, 0x38};

}  // namespace

TEST_CASE("blocks of 32 hold their first half in the low bits and their second in the high ones") {
  auto q4_0 = block_of(WeightType::q4_0);
  put(q4_0, 0, half_of_2);
  put(q4_0, 2, {0x1f, 0x80});
  auto values = values_of(WeightType::q4_0, q4_0);
  CHECK(values[0] == 14);    // 15 - 8, twice
  CHECK(values[16] == -14);  // 1 - 8
  CHECK(values[1] == -16);
  CHECK(values[17] == 0);

  auto q4_1 = block_of(WeightType::q4_1);
  put(q4_1, 0, half_of_2);
  put(q4_1, 2, half_of_half);
  put(q4_1, 4, {0x1f});
  values = values_of(WeightType::q4_1, q4_1);
  CHECK(values[0] == 30.5f);
  CHECK(values[16] == 2.5f);
  CHECK(values[31] == 0.5f);

  auto iq4_nl = block_of(WeightType::iq4_nl);
  put(iq4_nl, 0, half_of_half);
  put(iq4_nl, 2, {0xf0});
  values = values_of(WeightType::iq4_nl, iq4_nl);
  CHECK(values[0] == -63.5f);
  CHECK(values[16] == 56.5f);

  auto mxfp4 = block_of(WeightType::mxfp4);
  put(mxfp4, 0, {128, 0x97});  // 2^(128 - 127), 0x9 is -0.5 and 0x7 is 6
  values = values_of(WeightType::mxfp4, mxfp4);
  CHECK(values[0] == 12);
  CHECK(values[16] == -1);
}

TEST_CASE("the fifth bits of Q5_0 and Q5_1 stand apart, one for each element in order") {
  auto q5_0 = block_of(WeightType::q5_0);
  put(q5_0, 0, half_of_1);
  put(q5_0, 2, {0x02, 0x00, 0x01, 0x00});  // elements 1 and 16
  put(q5_0, 6, {0x30, 0x05});
  auto values = values_of(WeightType::q5_0, q5_0);
  CHECK(values[0] == -16);
  CHECK(values[1] == 5);
  CHECK(values[16] == 3);
  CHECK(values[17] == -16);

  auto q5_1 = block_of(WeightType::q5_1);
  put(q5_1, 0, half_of_1);
  put(q5_1, 2, half_of_half);
  put(q5_1, 4, {0x02, 0x00, 0x01, 0x00});
  put(q5_1, 8, {0x30, 0x05});
  values = values_of(WeightType::q5_1, q5_1);
  CHECK(values[0] == 0.5f);
  CHECK(values[1] == 21.5f);
  CHECK(values[16] == 19.5f);
}

TEST_CASE("Q8_0 is signed bytes times a scale") {
  auto block = block_of(WeightType::q8_0);
  put(block, 0, half_of_half);
  put(block, 2, {127, 128, 255});
  const auto values = values_of(WeightType::q8_0, block);
  CHECK(values[0] == 63.5f);
  CHECK(values[1] == -64);
  CHECK(values[2] == -0.5f);
}

TEST_CASE("K types unpack their scales of 6 bits") {
  // Scale 37 = 2 << 4 | 5 and minimum 50 = 3 << 4 | 2 in group 5; scale 33 in group 0.
  auto q4_k = block_of(WeightType::q4_k);
  put(q4_k, 0, half_of_1);
  put(q4_k, 2, half_of_half);
  put(q4_k, 4, {33, 2 << 6, 0, 0, 0, 3 << 6, 0, 0, 0, 2 << 4 | 5, 0, 0});
  put(q4_k, 16, {0x07});       // element 0 is 7, element 32 is 0
  put(q4_k, 16 + 64, {0xa0});  // element 128 is 0, element 160 is 10, in group 5
  auto values = values_of(WeightType::q4_k, q4_k);
  CHECK(values[0] == 7 * 33);
  CHECK(values[160] == 10 * 37 - 25);

  auto q5_k = block_of(WeightType::q5_k);
  put(q5_k, 0, half_of_1);
  put(q5_k, 4, {33, 2 << 6, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0});
  put(q5_k, 16, {0x21});  // the fifth bits of elements 0 and 160
  put(q5_k, 48, {0x07});
  put(q5_k, 48 + 64, {0xa0});
  values = values_of(WeightType::q5_k, q5_k);
  CHECK(values[0] == 23 * 33);
  CHECK(values[160] == 26 * 37);

  auto q3_k = block_of(WeightType::q3_k);
  put(q3_k, 0, {0x10});                              // the third bit of element 128
  put(q3_k, 32 + 32, {0x02});                        // element 128 is 2 in its low bits
  put(q3_k, 96, {0x70, 0, 0, 0, 0, 0, 0, 0, 0x20});  // scale of group 8: 7 | 2 << 4, less 32
  put(q3_k, 108, half_of_1);
  values = values_of(WeightType::q3_k, q3_k);
  CHECK(values[128] == 2 * 7);
  CHECK(values[129] == -4 * 7);  // no third bit: 4 less
}

TEST_CASE("Q2_K and Q6_K find their bits") {
  auto q2_k = block_of(WeightType::q2_k);
  put(q2_k, 9, {0x35});             // group 9 holds elements 144 to 159: scale 5, minimum 3
  put(q2_k, 16 + 32 + 16, {0x03});  // element 144
  put(q2_k, 80, half_of_2);
  put(q2_k, 82, half_of_1);
  auto values = values_of(WeightType::q2_k, q2_k);
  CHECK(values[144] == 3 * 10 - 3);
  CHECK(values[145] == -3);
  CHECK(values[0] == 0);

  auto q6_k = block_of(WeightType::q6_k);
  put(q6_k, 64, {0xb0});        // element 192 (128 + 64) is 11 in its low bits
  put(q6_k, 128 + 32, {0x30});  // and 3 in its high bits
  put(q6_k, 192 + 12, {-2});
  put(q6_k, 208, half_of_half);
  values = values_of(WeightType::q6_k, q6_k);
  CHECK(values[192] == -1.0f * (11 + 48 - 32));
  CHECK(values[193] == 32);
}

TEST_CASE("plain types are read from any address, and blocks are never cut") {
  const std::array<std::byte, 5> bytes{std::byte{0xff}, std::byte{0x00}, std::byte{0x40}, std::byte{0x80},
                                       std::byte{0x3f}};
  std::array<float, 2> out{};
  troika::dequantize(WeightType::f16, bytes.data() + 1, std::span(out).first(1));
  CHECK(out[0] == 2);
  troika::dequantize(WeightType::bf16, bytes.data() + 3, std::span(out).first(1));
  CHECK(out[0] == 1);
  troika::dequantize(WeightType::f32, bytes.data() + 1, std::span(out).first(1));
  CHECK(out[0] == 0x1.008p0f);
  std::vector<float> cut(33);
  CHECK_THROWS_WITH(
      troika::dequantize(WeightType::q4_0, nullptr, cut),
      Catch::Matchers::ContainsSubstring("33 elements of Q4_0 were asked for; they come in blocks of 32"));
}
