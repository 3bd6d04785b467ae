// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include <troika/communication/transport.hpp>
#include <troika/core/dtype.hpp>
#include <troika/device/host/cpu_features.hpp>

namespace troika {

namespace reduce_detail {

// 64 bytes of lanes: one AVX-512 register, two of AVX2, four of SSE2 or NEON; the compiler splits them.
template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(64)));
};
template <class T>
using Vector = typename VectorOf<T>::type;
using Floats = Vector<float>;
using Words = Vector<std::uint32_t>;
typedef std::uint16_t Halves __attribute__((vector_size(32)));

// One block of elements while it is being reduced: two vectors of what the sum is formed in. Vectors are passed by
// reference only: how they are passed by value depends on the target of a function.
template <class E>
struct Block {
  using Lane = E;
  static constexpr std::size_t size = 128 / sizeof(E);
  Vector<E> v[2];
  [[gnu::always_inline]] void load(const std::byte* from) { std::memcpy(v, from, 128); }
  [[gnu::always_inline]] void store(std::byte* to) const { std::memcpy(to, v, 128); }
};

template <>
struct Block<bf16> {
  using Lane = float;
  static constexpr std::size_t size = 32;
  Floats v[2];
  [[gnu::always_inline]] void load(const std::byte* from) {
    for (int i = 0; i < 2; ++i) {
      Halves halves;
      std::memcpy(&halves, from + 32 * i, 32);
      const Words words = __builtin_convertvector(halves, Words) << 16;
      std::memcpy(&v[i], &words, 64);
    }
  }
  [[gnu::always_inline]] void store(std::byte* to) const {
    for (int i = 0; i < 2; ++i) {
      Words u;
      std::memcpy(&u, &v[i], 64);
      const Words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
      const Words nan = reinterpret_cast<Words>((u & 0x7fffffffu) > 0x7f800000u);
      const Words bits = (nan & ((u >> 16) | 0x40u)) | (~nan & rounded);
      const Halves halves = __builtin_convertvector(bits, Halves);
      std::memcpy(to + 32 * i, &halves, 32);
    }
  }
};

// The conversions of core/dtype.hpp without branches.
template <>
struct Block<f16> {
  using Lane = float;
  static constexpr std::size_t size = 32;
  Floats v[2];
  [[gnu::always_inline]] void load(const std::byte* from) {
    for (int i = 0; i < 2; ++i) {
      Halves halves;
      std::memcpy(&halves, from + 32 * i, 32);
      const Words h = __builtin_convertvector(halves, Words);
      const Words magnitude = (h & 0x7fffu) << 13;
      Floats scaled;
      std::memcpy(&scaled, &magnitude, 64);
      scaled *= 0x1p112f;  // exponent bias 15 -> 127; normalises subnormal halves on the way
      Words u;
      std::memcpy(&u, &scaled, 64);
      const Words special = reinterpret_cast<Words>(magnitude >= 0x0f800000u);  // infinity and NaN
      u |= (special & 0x7f800000u) | ((h & 0x8000u) << 16);
      std::memcpy(&v[i], &u, 64);
    }
  }
  [[gnu::always_inline]] void store(std::byte* to) const {
    for (int i = 0; i < 2; ++i) {
      Words bits;
      std::memcpy(&bits, &v[i], 64);
      const Words u = bits & 0x7fffffffu;
      Floats magnitude;
      std::memcpy(&magnitude, &u, 64);
      const Floats shifted = magnitude + 0.5f;  // a subnormal half: the addition rounds
      Words small;
      std::memcpy(&small, &shifted, 64);
      small -= 0x3f000000u;
      Words half = (u + ((u >> 13) & 1u) + 0xc8000fffu) >> 13;
      const Words is_small = reinterpret_cast<Words>(u < 0x38800000u);
      const Words is_large = reinterpret_cast<Words>(u >= 0x47800000u);
      const Words is_nan = reinterpret_cast<Words>(u > 0x7f800000u);
      half = (is_small & small) | (~is_small & half);
      half = (is_large & 0x7c00u) | (~is_large & half);
      half |= (is_nan & 0x0200u) | ((bits >> 16) & 0x8000u);
      const Halves halves = __builtin_convertvector(half, Halves);
      std::memcpy(to + 32 * i, &halves, 32);
    }
  }
};

template <Reduction op, class B>
[[gnu::always_inline]] inline void combine(B& sum, const B& next) {
  using Lane = typename B::Lane;
  for (int i = 0; i < 2; ++i) {
    if constexpr (op == Reduction::sum &&
                  std::is_integral_v<Lane>) {  // signed overflow is undefined: wrap around unsigned
      using Unsigned = Vector<std::make_unsigned_t<Lane>>;
      sum.v[i] =
          reinterpret_cast<Vector<Lane>>(reinterpret_cast<Unsigned>(sum.v[i]) + reinterpret_cast<Unsigned>(next.v[i]));
    } else if constexpr (op == Reduction::sum) {
      sum.v[i] += next.v[i];
    } else {
      auto keep = sum.v[i] > next.v[i];
      if constexpr (std::is_floating_point_v<Lane>) keep |= sum.v[i] != sum.v[i];
      using Mask = decltype(keep);
      const Mask kept = reinterpret_cast<Mask>(sum.v[i]) & keep, taken = reinterpret_cast<Mask>(next.v[i]) & ~keep;
      const Mask chosen = kept | taken;
      std::memcpy(&sum.v[i], &chosen, 64);
    }
  }
}

struct Arguments {
  std::span<const std::byte* const> inputs;
  std::span<std::byte* const> outputs;
  std::size_t begin, end;
};

// One block is read from all inputs before it is written: an output may be an input. The tail goes through the same
// arithmetic, padded.
template <class E, Reduction op>
[[gnu::always_inline]] inline void reduce_blocks(const Arguments& a) {
  constexpr std::size_t block = Block<E>::size;
  std::size_t i = a.begin;
  for (; i + block <= a.end; i += block) {
    Block<E> sum, next;
    sum.load(a.inputs[0] + i * sizeof(E));
    for (std::size_t r = 1; r < a.inputs.size(); ++r) {
      next.load(a.inputs[r] + i * sizeof(E));
      combine<op>(sum, next);
    }
    for (std::byte* output : a.outputs) sum.store(output + i * sizeof(E));
  }
  if (i == a.end) return;
  const std::size_t bytes = (a.end - i) * sizeof(E);
  std::byte padded[block * sizeof(E)] = {};
  Block<E> sum, next;
  std::memcpy(padded, a.inputs[0] + i * sizeof(E), bytes);
  sum.load(padded);
  for (std::size_t r = 1; r < a.inputs.size(); ++r) {
    std::memcpy(padded, a.inputs[r] + i * sizeof(E), bytes);
    next.load(padded);
    combine<op>(sum, next);
  }
  sum.store(padded);
  for (std::byte* output : a.outputs) std::memcpy(output + i * sizeof(E), padded, bytes);
}

template <class E, Reduction op>
void reduce_plain(const Arguments& a) {
  reduce_blocks<E, op>(a);
}

#if defined(__x86_64__)
template <class E, Reduction op>
[[gnu::target("avx2")]] void reduce_avx2(const Arguments& a) {
  reduce_blocks<E, op>(a);
}

template <class E, Reduction op>
[[gnu::target("avx2,avx512f,avx512bw,avx512vl,avx512dq")]] void reduce_avx512(const Arguments& a) {
  reduce_blocks<E, op>(a);
}
#endif

}  // namespace reduce_detail

// outputs[k][i] = inputs[0][i] + inputs[1][i] + ..., for i in [begin, end), added in this order, for every k. An output
// may be one of the inputs. `level`: for tests; all levels give the same bits (except for the payload of a NaN).
inline void reduce(DType dtype, Reduction op, std::span<const std::byte* const> inputs,
                   std::span<std::byte* const> outputs, std::size_t begin, std::size_t end,
                   [[maybe_unused]] CpuLevel level = cpu_level()) {
  const reduce_detail::Arguments arguments{inputs, outputs, begin, end};
  visit(dtype, [&](auto element) {
    using E = decltype(element);
    const auto run = [&]<Reduction o>(std::integral_constant<Reduction, o>) {
#if defined(__x86_64__)
      if (level == CpuLevel::avx512) return reduce_detail::reduce_avx512<E, o>(arguments);
      if (level == CpuLevel::avx2) return reduce_detail::reduce_avx2<E, o>(arguments);
#endif
      reduce_detail::reduce_plain<E, o>(arguments);
    };
    if (op == Reduction::sum)
      run(std::integral_constant<Reduction, Reduction::sum>{});
    else
      run(std::integral_constant<Reduction, Reduction::max>{});
  });
}

}  // namespace troika
