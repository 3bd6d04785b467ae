// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include <troika/core/dtype.hpp>
#include <troika/core/error.hpp>
#include <troika/device/checks.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/kernels.hpp>
#include <troika/device/kv_rows.hpp>

namespace troika {

namespace kernels {

// `count` rows of one head, of one page, `step` elements apart, become floats in rows of `wide`, with zeros after the d
// elements.
template <CpuLevel L>
void widen_rows(const KvView& from, std::int64_t token, std::int64_t head, std::int64_t count, float* to,
                std::int64_t wide) {
  const std::int64_t heads = from.shape[1], d = from.shape[2];
  const std::int64_t first = from.row(token);
  for (std::int64_t i = 0; i < count; ++i, to += wide) {
    const std::int64_t row = (first + i) * heads + head;
    const std::uint8_t* const data = from.data + row * d * bytes_of(from.type);
    // Rows of a head are farther apart than the core fetches ahead by itself.
    const std::int64_t ahead = 16 * heads * d * bytes_of(from.type);
    for (std::int64_t line = 0; line < d * bytes_of(from.type); line += 64) __builtin_prefetch(data + ahead + line);
    switch (from.type) {
      case KvType::f32: std::memcpy(to, data, static_cast<std::size_t>(d) * sizeof(float)); break;
      case KvType::bf16: Rows<L>::widen(reinterpret_cast<const bf16*>(data), to, d); break;
      case KvType::f16: Rows<L>::widen(reinterpret_cast<const f16*>(data), to, d); break;
      case KvType::q8: Rows<L>::widen(reinterpret_cast<const std::int8_t*>(data), from.scales[row], to, d); break;
    }
    std::fill(to + d, to + wide, 0.0f);
  }
}

template <class T>
void narrow(const float* from, std::int64_t count, std::uint8_t* to) {
  for (std::int64_t i = 0; i < count; ++i) {
    const T value(from[i]);
    std::memcpy(to + i * static_cast<std::int64_t>(sizeof value), &value, sizeof value);
  }
}

// The largest becomes 127 or -127. A row that is not finite stays so: its scale is NaN.
inline float narrow_to_8_bits(const float* from, std::int64_t count, std::uint8_t* to) {
  float most = 0;
  bool finite = true;
  for (std::int64_t i = 0; i < count; ++i) {
    most = std::max(most, std::abs(from[i]));
    finite = finite && std::isfinite(from[i]);
  }
  const float inverse = finite && std::isfinite(127 / most) ? 127 / most : 0.0f;
  for (std::int64_t i = 0; i < count; ++i) {
    // At 1.5 * 2^23 floats are whole numbers, so that the sum rounds; 0 times what is not finite is no number.
    const float steps = (finite ? from[i] * inverse : 0.0f) + 0x1.8p23f;
    to[i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(static_cast<std::int32_t>(steps - 0x1.8p23f)));
  }
  return finite ? most / 127 : std::numeric_limits<float>::quiet_NaN();
}

}  // namespace kernels

// Writes keys or values of some tokens, (tokens, heads, head_dim), from token `first` on. f16 has infinities for
// numbers from 65520 on.
inline void store(HostStream& stream, View<const float> from, KvRows<HostDevice>& to, std::int64_t first) {
  const Shape& shape = to.shape();
  const std::int64_t tokens = from.shape()[0], heads = shape[1], d = shape[2];
  kernels::check_store(from.shape(), shape, first);
  const std::int64_t row = heads * d;
  if (row == 0) return;
  const std::int64_t grain = std::max<std::int64_t>(1, 32768 / row);
  parallel_for(stream.device().team(), tokens, grain, [&](std::int64_t begin, std::int64_t end) {
    const float* const x = from.data() + begin * row;
    const std::int64_t count = (end - begin) * row, at = (first + begin) * row;
    std::uint8_t* const data = to.data() + at * bytes_of(to.type());
    switch (to.type()) {
      case KvType::f32: std::memcpy(data, x, static_cast<std::size_t>(count) * sizeof(float)); break;
      case KvType::bf16: kernels::narrow<bf16>(x, count, data); break;
      case KvType::f16: kernels::narrow<f16>(x, count, data); break;
      case KvType::q8:
        for (std::int64_t i = 0; i < count / d; ++i) {
          to.scales()[at / d + i] = kernels::narrow_to_8_bits(x + i * d, d, data + i * d);
        }
        break;
    }
  });
}

}  // namespace troika
