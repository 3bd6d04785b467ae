// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
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

// Loads and stores at any address, of memory of any type. Not memcpy: it makes g++ 12 keep a block in memory. Not a
// template over the vector: there g++ forgets that it may alias.
typedef unsigned char Bytes64 __attribute__((vector_size(64), aligned(1), may_alias));
typedef unsigned char Bytes32 __attribute__((vector_size(32), aligned(1), may_alias));
template <class V>
[[gnu::always_inline]] inline void load(V& v, const std::byte* from) {
  if constexpr (sizeof(V) == 64)
    v = reinterpret_cast<V>(*reinterpret_cast<const Bytes64*>(from));
  else
    v = reinterpret_cast<V>(*reinterpret_cast<const Bytes32*>(from));
}
template <class V>
[[gnu::always_inline]] inline void store(const V& v, std::byte* to) {
  if constexpr (sizeof(V) == 64)
    *reinterpret_cast<Bytes64*>(to) = reinterpret_cast<Bytes64>(v);
  else
    *reinterpret_cast<Bytes32*>(to) = reinterpret_cast<Bytes32>(v);
}

// A few elements while they are being reduced: one vector of what the sum is formed in. Vectors are passed by reference
// only: how they are passed by value depends on the target of a function.
template <class E>
struct Block {
  using Lane = E;
  static constexpr std::size_t size = 64 / sizeof(E);
  Vector<E> v;
  [[gnu::always_inline]] void load(const std::byte* from) { reduce_detail::load(v, from); }
  [[gnu::always_inline]] void store(std::byte* to) const { reduce_detail::store(v, to); }
};

template <>
struct Block<bf16> {
  using Lane = float;
  static constexpr std::size_t size = 16;
  Floats v;
  [[gnu::always_inline]] void load(const std::byte* from) {
    Halves halves;
    reduce_detail::load(halves, from);
    v = reinterpret_cast<Floats>(__builtin_convertvector(halves, Words) << 16);
  }
  [[gnu::always_inline]] void store(std::byte* to) const {
    const Words u = reinterpret_cast<Words>(v);
    const Words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const Words nan = reinterpret_cast<Words>((u & 0x7fffffffu) > 0x7f800000u);
    const Words bits = (nan & ((u >> 16) | 0x40u)) | (~nan & rounded);
    reduce_detail::store(__builtin_convertvector(bits, Halves), to);
  }
};

// The conversions of core/dtype.hpp without branches.
template <>
struct Block<f16> {
  using Lane = float;
  static constexpr std::size_t size = 16;
  Floats v;
  [[gnu::always_inline]] void load(const std::byte* from) {
    Halves halves;
    reduce_detail::load(halves, from);
    const Words h = __builtin_convertvector(halves, Words);
    const Words magnitude = (h & 0x7fffu) << 13;
    // exponent bias 15 -> 127; normalises subnormal halves on the way
    Words u = reinterpret_cast<Words>(reinterpret_cast<Floats>(magnitude) * 0x1p112f);
    const Words special = reinterpret_cast<Words>(magnitude >= 0x0f800000u);  // infinity and NaN
    u |= (special & 0x7f800000u) | ((h & 0x8000u) << 16);
    v = reinterpret_cast<Floats>(u);
  }
  [[gnu::always_inline]] void store(std::byte* to) const {
    const Words bits = reinterpret_cast<Words>(v), u = bits & 0x7fffffffu;
    // a subnormal half: the addition rounds
    const Words small = reinterpret_cast<Words>(reinterpret_cast<Floats>(u) + 0.5f) - 0x3f000000u;
    Words half = (u + ((u >> 13) & 1u) + 0xc8000fffu) >> 13;
    const Words is_small = reinterpret_cast<Words>(u < 0x38800000u);
    const Words is_large = reinterpret_cast<Words>(u >= 0x47800000u);
    const Words is_nan = reinterpret_cast<Words>(u > 0x7f800000u);
    half = (is_small & small) | (~is_small & half);
    half = (is_large & 0x7c00u) | (~is_large & half);
    half |= (is_nan & 0x0200u) | ((bits >> 16) & 0x8000u);
    reduce_detail::store(__builtin_convertvector(half, Halves), to);
  }
};

template <Reduction op, class B>
[[gnu::always_inline]] inline void combine(B& sum, const B& next) {
  using Lane = typename B::Lane;
  if constexpr (op == Reduction::sum && std::is_integral_v<Lane>) {  // signed overflow is undefined: wrap around
    using Unsigned = Vector<std::make_unsigned_t<Lane>>;
    sum.v = reinterpret_cast<Vector<Lane>>(reinterpret_cast<Unsigned>(sum.v) + reinterpret_cast<Unsigned>(next.v));
  } else if constexpr (op == Reduction::sum) {
    sum.v += next.v;
  } else {
    auto keep = sum.v > next.v;
    if constexpr (std::is_floating_point_v<Lane>) keep |= sum.v != sum.v;
    using Mask = decltype(keep);
    sum.v = reinterpret_cast<Vector<Lane>>((reinterpret_cast<Mask>(sum.v) & keep) |
                                           (reinterpret_cast<Mask>(next.v) & ~keep));
  }
}

struct Arguments {
  std::span<const std::byte* const> inputs;
  std::span<std::byte* const> outputs;
  std::size_t begin, end;
};

// `unroll` blocks of all inputs, added as a binary tree: load(r, u, block) reads block u of input r. What waits for the
// other half of its branch is kept like the digits of a binary counter; of two inputs nothing waits.
template <Reduction op, std::size_t unroll, class B, class Load>
[[gnu::always_inline]] inline void add_tree(std::size_t inputs, B (&sums)[unroll], const Load& load) {
  constexpr std::size_t digits = 31;  // ranks are counted in int
  B waiting[digits][unroll];
  std::size_t kept = 0;
  const auto add_kept = [&]() __attribute__((always_inline)) {
    --kept;
    _Pragma("GCC unroll 8") for (std::size_t u = 0; u < unroll; ++u) {
      B left = waiting[kept][u];
      combine<op>(left, sums[u]);
      sums[u] = left;
    }
  };
  for (std::size_t r = 0;; r += 2) {
    _Pragma("GCC unroll 8") for (std::size_t u = 0; u < unroll; ++u) load(r, u, sums[u]);
    if (r + 1 < inputs) {
      _Pragma("GCC unroll 8") for (std::size_t u = 0; u < unroll; ++u) {
        B next;
        load(r + 1, u, next);
        combine<op>(sums[u], next);
      }
    }
    if (r + 2 >= inputs) break;
    for (std::size_t whole = r / 2; whole % 2; whole /= 2) add_kept();
    _Pragma("GCC unroll 8") for (std::size_t u = 0; u < unroll; ++u) waiting[kept][u] = sums[u];
    ++kept;
  }
  while (kept > 0) add_kept();
}

// `unroll` blocks are read from all inputs before they are written: an output may be an input. More than one, so that
// the loops over inputs and outputs cost little.
template <class E, Reduction op, std::size_t unroll>
[[gnu::always_inline]] inline void reduce_whole(const Arguments& a, std::size_t i) {
  constexpr std::size_t bytes = Block<E>::size * sizeof(E);
  Block<E> sums[unroll];
  add_tree<op>(
      a.inputs.size(), sums, [&](std::size_t r, std::size_t u, Block<E> & block) __attribute__((always_inline)) {
        block.load(a.inputs[r] + i * sizeof(E) + u * bytes);
      });
  for (std::byte* output : a.outputs) {
    _Pragma("GCC unroll 8") for (std::size_t u = 0; u < unroll; ++u) sums[u].store(output + i * sizeof(E) + u * bytes);
  }
}

// Less than a block, through the same arithmetic, padded.
template <class E, Reduction op>
[[gnu::always_inline]] inline void reduce_some(const Arguments& a, std::size_t i, std::size_t count) {
  const std::size_t bytes = count * sizeof(E);
  std::byte padded[Block<E>::size * sizeof(E)] = {};
  Block<E> sum[1];
  add_tree<op>(
      a.inputs.size(), sum, [&](std::size_t r, std::size_t, Block<E> & block) __attribute__((always_inline)) {
        std::memcpy(padded, a.inputs[r] + i * sizeof(E), bytes);
        block.load(padded);
      });
  sum[0].store(padded);
  for (std::byte* output : a.outputs) std::memcpy(output + i * sizeof(E), padded, bytes);
}

template <class E, Reduction op>
[[gnu::always_inline]] inline void reduce_blocks(const Arguments& a) {
  constexpr std::size_t block = Block<E>::size;
  constexpr std::size_t unroll = 4;
  std::size_t i = a.begin;
  // Stores that cross cache lines cost twice: begin where the first output is aligned.
  const std::size_t past = reinterpret_cast<std::uintptr_t>(a.outputs[0] + i * sizeof(E)) % (block * sizeof(E));
  if (past && past % sizeof(E) == 0) {
    const std::size_t head = std::min(a.end - i, block - past / sizeof(E));
    reduce_some<E, op>(a, i, head);
    i += head;
  }
  for (; i + unroll * block <= a.end; i += unroll * block) reduce_whole<E, op, unroll>(a, i);
  for (; i + block <= a.end; i += block) reduce_whole<E, op, 1>(a, i);
  if (i < a.end) reduce_some<E, op>(a, i, a.end - i);
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

// What the library troika::kernels has compiled.
#if defined(__x86_64__)
#define TROIKA_REDUCE_INSTANCE(instance, E, op)        \
  instance void reduce_plain<E, op>(const Arguments&); \
  instance void reduce_avx2<E, op>(const Arguments&);  \
  instance void reduce_avx512<E, op>(const Arguments&);
#else
#define TROIKA_REDUCE_INSTANCE(instance, E, op) instance void reduce_plain<E, op>(const Arguments&);
#endif
#define TROIKA_REDUCE_INSTANCES_OF(instance, E)       \
  TROIKA_REDUCE_INSTANCE(instance, E, Reduction::sum) \
  TROIKA_REDUCE_INSTANCE(instance, E, Reduction::max)
#define TROIKA_REDUCE_INSTANCES(instance)            \
  TROIKA_REDUCE_INSTANCES_OF(instance, float)        \
  TROIKA_REDUCE_INSTANCES_OF(instance, f16)          \
  TROIKA_REDUCE_INSTANCES_OF(instance, bf16)         \
  TROIKA_REDUCE_INSTANCES_OF(instance, std::int32_t) \
  TROIKA_REDUCE_INSTANCES_OF(instance, std::int8_t)  \
  TROIKA_REDUCE_INSTANCES_OF(instance, std::uint8_t)
#if defined(TROIKA_COMPILED_KERNELS)
TROIKA_REDUCE_INSTANCES(extern template)
#endif

}  // namespace reduce_detail

// outputs[k][i] = inputs[0][i] + inputs[1][i] + ..., for i in [begin, end) and every k, added as a binary tree: a sum
// is that of the first inputs, as many as the largest power of two below their number, plus that of the others. So sums
// of halves, of quarters and so on of the inputs give the same bits when they are reduced again. An output may be an
// input. `level`: for tests; all levels give the same bits (except for the payload of a NaN).
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
