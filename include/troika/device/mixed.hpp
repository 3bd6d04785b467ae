// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <iterator>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <troika/device/device.hpp>

namespace troika {

// A device of one of several kinds: what a scheduler has whose ranks are, say, GPUs and groups of cores. It neither
// holds tensors nor computes; visit() gives the device that does.
template <Device... Ds>
class MixedDevice {
 public:
  template <Device D>
  requires(std::same_as<D, Ds> || ...) MixedDevice(D device) : device_(std::move(device)) {}

  template <class F>
  decltype(auto) visit(F&& f) {
    return std::visit(std::forward<F>(f), device_);
  }
  template <class F>
  decltype(auto) visit(F&& f) const {
    return std::visit(std::forward<F>(f), device_);
  }
  const std::string& name() const {
    return visit([](const auto& device) -> const std::string& { return device.name(); });
  }

 private:
  std::variant<Ds...> device_;
};

// One list of all of them, in this order, which is that of the ranks: mixed_devices(cuda_devices(), host_devices(2)).
// Lists may be empty.
template <Device... Ds>
std::vector<MixedDevice<Ds...>> mixed_devices(std::vector<Ds>... devices) {
  std::vector<MixedDevice<Ds...>> all;
  (all.insert(all.end(), std::make_move_iterator(devices.begin()), std::make_move_iterator(devices.end())), ...);
  return all;
}

namespace detail {
template <class D>
struct KindsOf {
  static constexpr bool mixed = false;
  using First = D;
};
template <Device... Ds>
struct KindsOf<MixedDevice<Ds...>> {
  static constexpr bool mixed = true;
  using First = std::tuple_element_t<0, std::tuple<Ds...>>;
};

// f(device), with the device that computes.
template <class D, class F>
decltype(auto) visit_device(D& device, F&& f) {
  if constexpr (KindsOf<std::remove_const_t<D>>::mixed)
    return device.visit(std::forward<F>(f));
  else
    return std::forward<F>(f)(device);
}
}  // namespace detail

// What a scheduler may own.
template <class D>
concept Schedulable = Device<D> || detail::KindsOf<D>::mixed;

}  // namespace troika
