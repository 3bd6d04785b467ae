// SPDX-License-Identifier: Apache-2.0
#include "tensor_core.hpp"

#include <cstddef>
#include <cstring>

#include "machine.hpp"

namespace troika::shim {

namespace {

constexpr unsigned all = 0xffffffffu;

// Element i of what lane `lane` gives, two in 32 bits.
std::uint16_t element(const WordsOfWarp& warp, int lane, int i) {
  const std::uint64_t word = warp[static_cast<std::size_t>(lane)][static_cast<std::size_t>(i / 4)];
  return static_cast<std::uint16_t>(word >> (i % 4 * 16));
}

}  // namespace

// The fragments of mma.m16n8k16 in the PTX ISA, from a row and a column to the lane that has it.
void multiply_add(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                  float (*number)(std::uint16_t bits)) {
  const auto two = [](std::uint32_t low, std::uint32_t high) { return low | static_cast<std::uint64_t>(high) << 32; };
  const WordsOfWarp warp = exchange_words(all, {two(a[0], a[1]), two(a[2], a[3]), two(b0, b1)});
  for (int i = 0; i < 4; ++i) {
    const int row = lane() / 4 + i / 2 * 8, column = lane() % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k) {
      const std::uint16_t of_a = element(warp, row % 8 * 4 + k % 8 / 2, k % 2 + row / 8 * 2 + k / 8 * 4);
      const std::uint16_t of_b = element(warp, column * 4 + k % 8 / 2, 8 + k % 2 + k / 8 * 2);
      d[i] += number(of_a) * number(of_b);
    }
  }
}

void load_matrices(std::uint32_t (&to)[4], const void* row, bool transposed) {
  const auto address = reinterpret_cast<std::uintptr_t>(row);
  if (address % 16 != 0) fail("a row of a matrix is not at a multiple of 16 bytes");
  const WordsOfWarp warp = exchange_words(all, {address});
  const auto read = [&](int matrix, int of_row, int column) {
    const auto* const at = reinterpret_cast<const std::byte*>(
                               static_cast<std::uintptr_t>(warp[static_cast<std::size_t>(matrix * 8 + of_row)][0])) +
                           2 * column;
    touch(at, 2, false);
    std::uint16_t value;
    std::memcpy(&value, at, sizeof value);
    return std::uint32_t{value};
  };
  const int g = lane() / 4, t = lane() % 4;
  for (int i = 0; i < 4; ++i) {
    to[i] =
        transposed ? read(i, 2 * t, g) | read(i, 2 * t + 1, g) << 16 : read(i, g, 2 * t) | read(i, g, 2 * t + 1) << 16;
  }
}

}  // namespace troika::shim
