// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>

#include <troika/core/partition.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/checks.hpp>
#include <troika/device/cuda/device.hpp>

// What device/host/slices.hpp says, where the memory is a GPU's. Pieces are copied in the order of the stream; what
// goes between the GPU and memory of the host is there when the function returns.
namespace troika {

namespace cuda {
// `rows` of `width` bytes each, so many bytes apart.
void copy_rows(CudaStream& stream, const void* from, std::size_t from_step, void* to, std::size_t to_step,
               std::size_t width, std::size_t rows);
void copy_bytes(CudaStream& stream, const void* from, void* to, std::size_t bytes);
void zero_bytes(CudaStream& stream, void* to, std::size_t bytes);
void upload_bytes(CudaStream& stream, const void* host, void* device, std::size_t bytes);
void download_bytes(CudaStream& stream, const void* device, void* host, std::size_t bytes);

template <class T>
std::size_t bytes_of(std::int64_t elements) {
  return static_cast<std::size_t>(elements) * sizeof(T);
}
}  // namespace cuda

template <class T>
void copy_slice(CudaStream& stream, View<const T> whole, int dim, Range range, View<T> part) {
  kernels::check_slice("copy", whole.shape(), dim, range, part.shape());
  const auto inner = whole.shape().inner(dim), step = whole.shape()[dim] * inner, size = range.size() * inner;
  cuda::copy_rows(stream, whole.data() + range.begin * inner, cuda::bytes_of<T>(step), part.data(),
                  cuda::bytes_of<T>(size), cuda::bytes_of<T>(size), static_cast<std::size_t>(whole.shape().outer(dim)));
}
template <class T>
void paste_slice(CudaStream& stream, View<const T> part, View<T> whole, int dim, Range range) {
  kernels::check_slice("paste", whole.shape(), dim, range, part.shape());
  const auto inner = whole.shape().inner(dim), step = whole.shape()[dim] * inner, size = range.size() * inner;
  cuda::copy_rows(stream, part.data(), cuda::bytes_of<T>(size), whole.data() + range.begin * inner,
                  cuda::bytes_of<T>(step), cuda::bytes_of<T>(size), static_cast<std::size_t>(whole.shape().outer(dim)));
}
template <class T>
void copy(CudaStream& stream, View<const T> from, View<T> to) {
  kernels::check_copy(from.shape(), to.shape());
  cuda::copy_bytes(stream, from.data(), to.data(), cuda::bytes_of<T>(from.count()));
}
template <class T>
void fill_zero(CudaStream& stream, View<T> x) {
  cuda::zero_bytes(stream, x.data(), cuda::bytes_of<T>(x.count()));
}

template <class T>
void upload(CudaStream& stream, View<const T> host, View<T> device) {
  kernels::check_copy(host.shape(), device.shape());
  cuda::upload_bytes(stream, host.data(), device.data(), cuda::bytes_of<T>(host.count()));
}
template <class T>
void download(CudaStream& stream, View<const T> device, View<T> host) {
  kernels::check_copy(device.shape(), host.shape());
  cuda::download_bytes(stream, device.data(), host.data(), cuda::bytes_of<T>(device.count()));
}

// A copy in memory of the host.
template <class T>
class HostCopy {
 public:
  HostCopy(CudaDevice& device, std::int64_t count)
      : buffer_(device.allocate_host(cuda::bytes_of<T>(count))), count_(static_cast<std::size_t>(count)) {}
  std::span<T> span() { return {reinterpret_cast<T*>(buffer_.data()), count_}; }
  std::span<const T> span() const { return {reinterpret_cast<const T*>(buffer_.data()), count_}; }

 private:
  CudaDevice::HostBuffer buffer_;
  std::size_t count_;
};

template <class T>
auto read_back(CudaStream& stream, View<T> device) {
  HostCopy<std::remove_const_t<T>> host(stream.device(), device.count());
  cuda::download_bytes(stream, device.data(), host.span().data(), cuda::bytes_of<T>(device.count()));
  return host;
}
template <class T, class F>
void fill_on_host(CudaStream& stream, View<T> device, F&& f) {
  // Of the host's heap, not pinned: weights come this way once, and are large.
  const auto count = static_cast<std::size_t>(device.count());
  const std::unique_ptr<std::byte[]> host(new std::byte[count * sizeof(T) + 1]);
  auto* const values = reinterpret_cast<T*>(host.get());
  f(std::span<T>(values, count));
  cuda::upload_bytes(stream, values, device.data(), count * sizeof(T));
}
template <class T, class F>
void change_on_host(CudaStream& stream, View<T> device, F&& f) {
  auto host = read_back(stream, device);
  f(host.span());
  cuda::upload_bytes(stream, host.span().data(), device.data(), host.span().size_bytes());
}

}  // namespace troika
