// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <string>

#include <troika/core/partition.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/checks.hpp>
#include <troika/device/host/device.hpp>

namespace troika {

// part = whole[..., range of dimension dim, ...]
template <class T>
void copy_slice(HostStream&, View<const T> whole, int dim, Range range, View<T> part) {
  const auto outer = whole.shape().outer(dim), inner = whole.shape().inner(dim), extent = whole.shape()[dim];
  kernels::check_slice("copy", whole.shape(), dim, range, part.shape());
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
  kernels::check_slice("paste", whole.shape(), dim, range, part.shape());
  const auto bytes = static_cast<std::size_t>(range.size() * inner) * sizeof(T);
  if (bytes == 0) return;
  for (std::int64_t o = 0; o < outer; ++o) {
    std::memcpy(whole.data() + (o * extent + range.begin) * inner, part.data() + o * range.size() * inner, bytes);
  }
}

template <class T>
void copy(HostStream&, View<const T> from, View<T> to) {
  kernels::check_copy(from.shape(), to.shape());
  if (from.count()) std::memcpy(to.data(), from.data(), static_cast<std::size_t>(from.count()) * sizeof(T));
}

template <class T>
void fill_zero(HostStream&, View<T> x) {
  if (x.count()) std::memset(x.data(), 0, static_cast<std::size_t>(x.count()) * sizeof(T));
}

// Host memory to this device's memory. The host's may change once this returns.
template <class T>
void upload(HostStream& stream, View<const T> host, View<T> device) {
  copy(stream, host, device);
}

// Something with a span(): values of this device's memory, for the host to read as long as it lives. Where the host
// reaches that memory nothing is copied; elsewhere this waits for the stream.
template <class T>
View<const T> read_back(HostStream&, View<T> device) {
  return device;
}

// f(span) writes all of this part of the device's memory; change_on_host lets it see what is there, too.
template <class T, class F>
void fill_on_host(HostStream&, View<T> device, F&& f) {
  f(device.span());
}
template <class T, class F>
void change_on_host(HostStream&, View<T> device, F&& f) {
  f(device.span());
}

}  // namespace troika
