// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>

#include <troika/core/shape.hpp>
#include <troika/device/host/device.hpp>

namespace troika {

// 64 bits over the bytes of a tensor, to tell replicas apart. Four lanes of multiply-and-rotate, the mixing steps of
// xxHash64 (Y. Collet, BSD specification); the core needs no library for it. Not a defence against an adversary.
inline std::uint64_t checksum_bytes(const std::byte* data, std::size_t bytes) {
  constexpr std::uint64_t prime1 = 0x9e3779b185ebca87u, prime2 = 0xc2b2ae3d27d4eb4fu, prime3 = 0x165667b19e3779f9u;
  const auto rotate = [](std::uint64_t x, int r) { return (x << r) | (x >> (64 - r)); };
  std::uint64_t lanes[4] = {prime1 + prime2, prime2, 0, 0 - prime1};
  std::size_t i = 0;
  for (; i + 32 <= bytes; i += 32) {
    for (std::size_t lane = 0; lane < 4; ++lane) {
      std::uint64_t word;
      std::memcpy(&word, data + i + 8 * lane, 8);
      lanes[lane] = rotate(lanes[lane] + word * prime2, 31) * prime1;
    }
  }
  std::uint64_t hash = bytes;
  for (const auto lane : lanes) hash = (hash ^ (rotate(lane * prime2, 31) * prime1)) * prime1 + prime3;
  for (; i < bytes; ++i) hash = rotate(hash ^ (static_cast<std::uint64_t>(data[i]) * prime3), 11) * prime1;
  hash = (hash ^ (hash >> 33)) * prime2;
  hash = (hash ^ (hash >> 29)) * prime3;
  return hash ^ (hash >> 32);
}

template <class T>
std::uint64_t checksum(HostStream&, View<const T> x) {
  return checksum_bytes(reinterpret_cast<const std::byte*>(x.data()), static_cast<std::size_t>(x.count()) * sizeof(T));
}

}  // namespace troika
