// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>
#include <string_view>

namespace troika {

// A place that holds tensors and computes. Models: HostDevice (a group of CPU cores), CudaDevice (a GPU). A Stream is
// the order in which a device works; the math of the layers is found by overload on the stream type, so layers include
// no backend.
template <class D>
concept Device = requires(D& device, const D& constant, std::size_t bytes) {
  typename D::Buffer;  // owns memory of this device; moves only
  typename D::Stream;
  { device.allocate(bytes) } -> std::same_as<typename D::Buffer>;
  { constant.index() } -> std::convertible_to<int>;
  { constant.name() } -> std::convertible_to<std::string_view>;
};

template <class S>
concept Stream = requires(S& stream) {
  typename S::Device;
  { stream.device() } -> std::same_as<typename S::Device&>;
  stream.synchronize();  // returns when all work given to this stream is done; surfaces its errors
};

// A device whose memory the host does not reach. Values go there by upload(stream, ...), fill_on_host and
// change_on_host, and come back by read_back; device/host/slices.hpp says what they do. HostBuffer is memory of the host
// from which, and to which, the device copies by itself.
template <class D>
concept HasOwnMemory = Device<D> && requires(D& device, std::size_t bytes, const void* address) {
  { device.allocate_host(bytes) } -> std::same_as<typename D::HostBuffer>;
  { device.holds(address) } -> std::same_as<bool>;
};

}  // namespace troika
