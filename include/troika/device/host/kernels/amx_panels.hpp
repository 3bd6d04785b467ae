// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this where its macros are set.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

// Sixteen rows of x times panels, in tiles. A panel lies as such a product reads it: a row of a tile is a vector of a
// record, or a line of pairs of bf16. Unit is AmxUnit, or what computes the same (tests).
namespace troika::kernels::TROIKA_LEVEL {

inline constexpr int amx_rows = 16;  // of x, or of a panel, in a tile

// Records whose bytes are signed. Sums of 32 products are whole numbers, and what follows them is the arithmetic of
// PanelDots, in its order: the results have the same bits.
template <bool fine, bool minimum>
struct AmxDots : PanelDots<fine, minimum> {
  using Dots = PanelDots<fine, minimum>;
  using F = typename Dots::F;
  static constexpr int halves = fine ? 2 : 1;  // sums of a group that have scales of their own
  static constexpr int together = 4;           // sums that are computed while the four before them are scaled
  using Sums = std::int32_t[together][amx_rows * 16];

  // Tiles 0 to 3 are sums, 4 and 5 bytes of x, 6 and 7 those of records.
  static constexpr TileShapes shapes() {
    return TileShapes{}.set(0, 4, amx_rows, 64).set(4, 2, amx_rows, 32 / halves).set(6, 2, 8 / halves, 64);
  }

  // What Dots::prepare made of 16 rows of x, times a panel. `count` of the rows are read from `from` and written to
  // `to`.
  template <class Unit>
  TROIKA_TARGET static void multiply(Unit& unit, const float* x, const std::byte* records, std::int64_t bytes,
                                     std::int64_t groups, std::int64_t count, const PanelPlace& from,
                                     const PanelPlace& to) {
    constexpr std::int64_t step = together / halves, x_step = Dots::floats(amx_rows);
    alignas(64) Sums sums[2];
    F y[amx_rows];
    TROIKA_UNROLL
    for (int i = 0; i < amx_rows; ++i) y[i] = i < count ? Dots::start(from, i) : F{};
    std::int64_t some = 0, summed = 0;
    for (int now = 0; groups > 0 || summed > 0; groups -= some, now ^= 1) {
      some = groups < step ? groups : step;
      if (some > 0) sum(unit, x + summed * x_step, records + summed * bytes, bytes, some, sums[now]);
      if (summed > 0) add(x, records, bytes, summed, sums[now ^ 1], y);
      x += summed * x_step;
      records += summed * bytes;
      summed = some;
    }
    TROIKA_UNROLL
    for (int i = 0; i < amx_rows; ++i) {
      if (i < count) _mm512_mask_storeu_ps(to.data + i * to.step, to.columns, y[i]);
    }
  }

  template <class Unit>
  TROIKA_INLINE void sum(Unit& unit, const float* x, const std::byte* records, std::int64_t bytes, std::int64_t groups,
                         Sums& sums) {
    sum_one<0>(unit, x, records, bytes, sums);
    if (fine || groups > 1) sum_one<1>(unit, x, records, bytes, sums);
    if (groups > 2 / halves) sum_one<2>(unit, x, records, bytes, sums);
    if (groups > 3 / halves) sum_one<3>(unit, x, records, bytes, sums);
  }
  template <int i, class Unit>
  TROIKA_INLINE void sum_one(Unit& unit, const float* x, const std::byte* records, std::int64_t bytes, Sums& sums) {
    constexpr int group = i / halves, half = i % halves, a = 4 + i % 2, b = 6 + i % 2;
    unit.template zero<i>();
    unit.template load<a>(x + Dots::floats(amx_rows) * group + 4 * half, 32);
    unit.template load<b>(records + bytes * group + 256 * half, 64);
    unit.template bytes<i, a, b>();
    unit.template store<i>(sums[i], 64);
  }

  TROIKA_INLINE void add(const float* x, const std::byte* record, std::int64_t bytes, std::int64_t groups,
                         const Sums& sums, F (&y)[amx_rows]) {
    for (std::int64_t g = 0; g < groups; ++g, x += Dots::floats(amx_rows), record += bytes) {
      const float* const scale_of_x = x + 8 * amx_rows;
      const float* const sums_of_x = scale_of_x + amx_rows;
      TROIKA_UNROLL
      for (int h = 0; h < halves; ++h) {
        const std::int32_t* const dots = sums[g * halves + h];
        const F scale = _mm512_load_ps(record + 512 + 64 * h);
        TROIKA_UNROLL
        for (int i = 0; i < amx_rows; ++i) {
          y[i] = Dots::scaled(y[i], _mm512_load_si512(dots + 16 * i), scale_of_x[i], scale);
        }
        if constexpr (minimum) {
          const F less = _mm512_load_ps(record + 512 + 64 * (halves + h));
          TROIKA_UNROLL
          for (int i = 0; i < amx_rows; ++i) y[i] = Dots::lessened(y[i], sums_of_x[h * amx_rows + i], less);
        }
      }
    }
  }

  // Subtracts the offset from all bytes of records.
  template <int offset>
  TROIKA_TARGET static void make_signed(std::byte* record, std::int64_t bytes, std::int64_t groups) {
    if constexpr (offset == 0) return;  // they are small
    const __m512i all = _mm512_set1_epi8(static_cast<char>(offset));
    for (std::int64_t g = 0; g < groups; ++g, record += bytes) {
      TROIKA_UNROLL
      for (int q = 0; q < 8; ++q) {
        _mm512_store_si512(record + 64 * q, _mm512_sub_epi8(_mm512_load_si512(record + 64 * q), all));
      }
    }
  }
};

// Pairs of bf16: Pairs::interleave makes tiles of 16 rows of x.
struct AmxPairs {
  // Tiles 0 to 3 are sums, 4 and 5 rows of x, 6 and 7 lines of panels.
  static constexpr TileShapes shapes() { return TileShapes{}.set(0, 8, amx_rows, 64); }

  // A times 16 rows of x, `x_apart` floats from each other, times P panels, `w_apart` bytes from each other. `steps`
  // are of 32 elements. The products are summed before they are added to what y holds.
  template <int A, int P, class Unit>
  TROIKA_TARGET static void multiply(Unit& unit, const float* x, std::int64_t x_apart, const std::byte* w,
                                     std::int64_t w_apart, std::int64_t steps, std::int64_t count,
                                     const PanelPlace& y) {
    unit.template zero<0>();
    if constexpr (P > 1) unit.template zero<1>();
    if constexpr (A > 1) unit.template zero<2>();
    if constexpr (A > 1 && P > 1) unit.template zero<3>();
    for (std::int64_t s = 0; s < steps; ++s, x += 256, w += 1024) {
      unit.template load<6>(w, 64);
      unit.template load<4>(x, 64);
      unit.template pairs<0, 4, 6>();
      if constexpr (P > 1) {
        unit.template load<7>(w + w_apart, 64);
        unit.template pairs<1, 4, 7>();
      }
      if constexpr (A > 1) {
        unit.template load<5>(x + x_apart, 64);
        unit.template pairs<2, 5, 6>();
      }
      if constexpr (A > 1 && P > 1) unit.template pairs<3, 5, 7>();
    }
    put<0>(unit, count, y);
    if constexpr (P > 1) put<1>(unit, count, right(y));
    if constexpr (A > 1) put<2>(unit, count - amx_rows, below(y));
    if constexpr (A > 1 && P > 1) put<3>(unit, count - amx_rows, below(right(y)));
  }
  template <int tile, class Unit>
  TROIKA_INLINE void put(Unit& unit, std::int64_t count, const PanelPlace& y) {
    alignas(64) float sums[amx_rows * 16];
    unit.template store<tile>(sums, 64);
    for (int i = 0; i < amx_rows && i < count; ++i) {
      const auto sum = PanelDots<false, false>::start(y, i) + _mm512_load_ps(sums + 16 * i);
      _mm512_mask_storeu_ps(y.data + i * y.step, y.columns, sum);
    }
  }
  TROIKA_INLINE PanelPlace right(PanelPlace y) {
    y.data += 16;
    if (y.bias) y.bias += 16;
    return y;
  }
  TROIKA_INLINE PanelPlace below(PanelPlace y) {
    y.data += amx_rows * y.step;
    return y;
  }
};

}  // namespace troika::kernels::TROIKA_LEVEL
#endif
