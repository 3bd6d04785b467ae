// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <string>

#include <troika/core/partition.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/host/device.hpp>

namespace troika {

// part = whole[..., range of dimension dim, ...]
template <class T>
void copy_slice(HostStream&, View<const T> whole, int dim, Range range, View<T> part) {
  const auto outer = whole.shape().outer(dim), inner = whole.shape().inner(dim), extent = whole.shape()[dim];
  expects(range.begin >= 0 && range.end <= extent && part.shape() == whole.shape().with(dim, range.size()), [&] {
    return "cannot copy " + std::to_string(range.begin) + ".." + std::to_string(range.end) + " of dimension " +
           std::to_string(dim) + " of " + whole.shape().to_string() + " to " + part.shape().to_string();
  });
  const auto bytes = static_cast<std::size_t>(range.size() * inner) * sizeof(T);
  if (bytes == 0) return;
  for (std::int64_t o = 0; o < outer; ++o) {
    std::memcpy(part.data() + o * range.size() * inner, whole.data() + (o * extent + range.begin) * inner, bytes);
  }
}

// whole[..., range of dimension dim, ...] = part
template <class T>
void paste_slice(HostStream&, View<const T> part, View<T> whole, int dim, Range range) {
  const auto outer = whole.shape().outer(dim), inner = whole.shape().inner(dim), extent = whole.shape()[dim];
  expects(range.begin >= 0 && range.end <= extent && part.shape() == whole.shape().with(dim, range.size()), [&] {
    return "cannot paste " + part.shape().to_string() + " at " + std::to_string(range.begin) + ".." +
           std::to_string(range.end) + " of dimension " + std::to_string(dim) + " of " + whole.shape().to_string();
  });
  const auto bytes = static_cast<std::size_t>(range.size() * inner) * sizeof(T);
  if (bytes == 0) return;
  for (std::int64_t o = 0; o < outer; ++o) {
    std::memcpy(whole.data() + (o * extent + range.begin) * inner, part.data() + o * range.size() * inner, bytes);
  }
}

template <class T>
void copy(HostStream&, View<const T> from, View<T> to) {
  expects(from.shape() == to.shape(),
          [&] { return "cannot copy " + from.shape().to_string() + " to " + to.shape().to_string(); });
  if (from.count()) std::memcpy(to.data(), from.data(), static_cast<std::size_t>(from.count()) * sizeof(T));
}

template <class T>
void fill_zero(HostStream&, View<T> x) {
  if (x.count()) std::memset(x.data(), 0, static_cast<std::size_t>(x.count()) * sizeof(T));
}

// Host memory to this device's memory.
template <class T>
void upload(HostStream& stream, View<const T> host, View<T> device) {
  copy(stream, host, device);
}

}  // namespace troika
