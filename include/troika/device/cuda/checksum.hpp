// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <troika/device/cuda/slices.hpp>
#include <troika/device/host/checksum.hpp>

namespace troika {

// The same as of memory of the host.
template <class T>
std::uint64_t checksum(CudaStream& stream, View<const T> x) {
  const auto host = read_back(stream, x);
  return checksum_bytes(reinterpret_cast<const std::byte*>(host.span().data()), host.span().size_bytes());
}

}  // namespace troika
