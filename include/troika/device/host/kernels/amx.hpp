// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#if defined(__x86_64__)
namespace troika::kernels {

// The shapes of the eight tiles, as LDTILECFG reads them.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};  // of the first eight; the others stay 0
  std::uint8_t rows[16] = {};

  constexpr TileShapes& set(int first, int count, int tile_rows, int bytes) {
    for (int tile = first; tile < first + count; ++tile) {
      rows[tile] = static_cast<std::uint8_t>(tile_rows);
      row_bytes[tile] = static_cast<std::uint16_t>(bytes);
    }
    return *this;
  }
};
static_assert(sizeof(TileShapes) == 64);

// The tiles of this thread, of these shapes while this lives; after that the system has nothing of them to save. One at
// a time in a thread, where cpu_has_amx(). Rows in memory lie `step` bytes apart. These are instructions in so many
// words because they need no attribute of the function that contains them then, and g++ 12 takes _tile_loadconfig for
// one that reads 8 bytes.
class AmxUnit {
 public:
  explicit AmxUnit(const TileShapes& shapes) { asm volatile("ldtilecfg %0" : : "m"(shapes)); }
  AmxUnit(const AmxUnit&) = delete;
  AmxUnit& operator=(const AmxUnit&) = delete;
  ~AmxUnit() { asm volatile("tilerelease"); }

  template <int tile>
  void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(tile));
  }
  template <int tile>
  void load(const void* from, std::int64_t step) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(tile), "r"(from), "r"(step) : "memory");
  }
  template <int tile>
  void store(void* to, std::int64_t step) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(tile), "r"(to), "r"(step) : "memory");
  }
  // sum += a b, where a row of b holds for each column four bytes, or two bf16, that follow each other along a row of
  // a.
  template <int sum, int a, int b>
  void bytes() {  // signed ones; sums are whole numbers
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(a), "i"(b));
  }
  template <int sum, int a, int b>
  void pairs() {  // of bf16; sums are floats
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(a), "i"(b));
  }
};

}  // namespace troika::kernels
#endif
