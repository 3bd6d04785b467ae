// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include <troika/device/host/kernels/amx.hpp>

namespace troika::test {

// The tile instructions in plain C++, after the operation sections of Intel's Software Developer's Manual: TDPBSSD, and
// TDPBF16PS with its two sums, its rounding to nearest and its flush of numbers below 2^-126 to zero. What would be a
// fault of the processor throws.
class AmxModel {
 public:
  explicit AmxModel(const kernels::TileShapes& shapes) {
    require(shapes.palette == 1 && shapes.start_row == 0, "palette");
    for (const auto value : shapes.reserved) require(value == 0, "reserved bytes");
    for (std::size_t i = 0; i < 16; ++i) {
      const unsigned rows = shapes.rows[i], bytes = shapes.row_bytes[i];
      if (i >= tiles_.size()) {
        require(rows == 0 && bytes == 0, "tiles beyond the eighth");
        continue;
      }
      require(rows <= 16 && bytes <= 64 && (rows == 0) == (bytes == 0), "shape");
      tiles_[i].rows = rows;
      tiles_[i].bytes = bytes;
    }
  }

  template <int tile>
  void zero() {
    at<tile>().data = {};
  }
  template <int tile>
  void load(const void* from, std::int64_t step) {
    Tile& to = at<tile>();
    to.data = {};
    for (std::size_t row = 0; row < to.rows; ++row) {
      std::memcpy(to.data[row].data(), static_cast<const std::byte*>(from) + static_cast<std::int64_t>(row) * step,
                  to.bytes);
    }
  }
  template <int tile>
  void store(void* to, std::int64_t step) {
    const Tile& from = at<tile>();
    for (std::size_t row = 0; row < from.rows; ++row) {
      std::memcpy(static_cast<std::byte*>(to) + static_cast<std::int64_t>(row) * step, from.data[row].data(),
                  from.bytes);
    }
  }

  template <int sum, int a, int b>
  void bytes() {
    for_products<sum, a, b>([&](std::size_t row, std::size_t column, std::size_t depth) {
      std::uint32_t total = word<std::uint32_t>(at<sum>(), row, column);
      for (std::size_t k = 0; k < depth; ++k) {
        for (std::size_t i = 0; i < 4; ++i) {
          const auto product =
              static_cast<std::int32_t>(byte(at<a>(), row, 4 * k + i)) * byte(at<b>(), k, 4 * column + i);
          total += static_cast<std::uint32_t>(product);
        }
      }
      return total;
    });
  }
  template <int sum, int a, int b>
  void pairs() {
    for_products<sum, a, b>([&](std::size_t row, std::size_t column, std::size_t depth) {
      float even = 0, odd = 0;
      for (std::size_t k = 0; k < depth; ++k) {
        const auto x = word<std::uint32_t>(at<a>(), row, k), w = word<std::uint32_t>(at<b>(), k, column);
        even = flushed(std::fma(low(x), low(w), even));
        odd = flushed(std::fma(high(x), high(w), odd));
      }
      return flushed(flushed(word<float>(at<sum>(), row, column)) + flushed(even + odd));
    });
  }

 private:
  struct Tile {
    std::size_t rows = 0, bytes = 0;
    std::array<std::array<std::byte, 64>, 16> data{};
  };

  static void require(bool holds, const char* what) {
    if (!holds) throw std::logic_error("the processor would refuse this: " + std::string(what));
  }
  template <int tile>
  Tile& at() {
    static_assert(tile >= 0 && tile < 8);
    require(tiles_[tile].rows > 0, "a tile without a shape");
    return tiles_[tile];
  }
  template <class T>
  static T word(const Tile& tile, std::size_t row, std::size_t i) {
    T value;
    std::memcpy(&value, tile.data[row].data() + 4 * i, sizeof value);
    return value;
  }
  static std::int8_t byte(const Tile& tile, std::size_t row, std::size_t i) {
    return static_cast<std::int8_t>(tile.data[row][i]);
  }
  static float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }
  static float low(std::uint32_t pair) { return flushed(std::bit_cast<float>(pair << 16)); }
  static float high(std::uint32_t pair) { return flushed(std::bit_cast<float>(pair & 0xffff0000u)); }

  // What all products check, and how they write: f(row, column, words of a row of a) is the new word of the sum.
  template <int sum, int a, int b, class F>
  void for_products(F&& f) {
    Tile& to = at<sum>();
    require(sum != a && sum != b && a != b, "a tile twice");
    require(at<a>().bytes % 4 == 0 && at<b>().bytes % 4 == 0 && to.bytes % 4 == 0, "part of a word");
    require(at<a>().rows == to.rows && at<b>().bytes == to.bytes && at<a>().bytes == 4 * at<b>().rows,
            "shapes of a product");
    auto result = decltype(to.data){};
    for (std::size_t row = 0; row < to.rows; ++row) {
      for (std::size_t column = 0; column < to.bytes / 4; ++column) {
        const auto value = f(row, column, at<b>().rows);
        static_assert(sizeof value == 4);
        std::memcpy(result[row].data() + 4 * column, &value, 4);
      }
    }
    to.data = result;
  }

  std::array<Tile, 8> tiles_{};
};

}  // namespace troika::test
