// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <span>
#include <type_traits>
#include <vector>

#include <troika/communication/compose.hpp>
#include <troika/communication/device_board.hpp>
#include <troika/communication/rank.hpp>
#include <troika/communication/transport.hpp>
#include <troika/device/cuda/device.hpp>
#include <troika/device/cuda/norm.hpp>

namespace troika {

// One rank's place in a group of devices.
struct DeviceSite {
  int rank, world_size;
  std::vector<int> world_ranks;  // of all ranks of the group
  std::shared_ptr<World> world;
  std::shared_ptr<DeviceBoard> board;
  CudaStream stream;

  int world_rank() const { return world_ranks[static_cast<std::size_t>(rank)]; }
};

// Where the part of one rank lies in the parts of all, one after the other, in elements. `counts` as in transport.hpp.
struct DevicePart {
  std::size_t begin, count, total;

  static DevicePart of(const Call& call, std::span<const std::size_t> counts, int rank, int world_size) {
    const auto me = static_cast<std::size_t>(rank), ranks = static_cast<std::size_t>(world_size);
    const std::size_t equal = call.signature.count;
    if (counts.empty()) return {me * equal, equal, ranks * equal};
    const auto sum = [](auto part) { return std::accumulate(part.begin(), part.end(), std::size_t{0}); };
    return {sum(counts.first(me)), counts[me], sum(counts)};
  }
  DevicePart operator*(std::size_t size) const { return {begin * size, count * size, total * size}; }
};

// What moves memory of GPUs between the ranks of a group, in the order of each rank's stream: a call returns when the
// device has been told. Destroyed, it waits until the device has done everything.
class DeviceEngine {
 public:
  virtual ~DeviceEngine() = default;

  virtual const DeviceSite& site() const = 0;
  // Throws what has gone wrong on the device since the last call.
  virtual void check(const Call& call) = 0;
  // As in transport.hpp, on memory of the device. All ranks have agreed on the call.
  virtual void all_reduce(const Call& call, const std::byte* in, std::byte* out) = 0;
  // Here the sum, and one kernel for the rest.
  virtual void all_reduce_norm(const Call& call, const AddedNorm& norm) {
    auto* const y = reinterpret_cast<std::byte*>(norm.y);
    all_reduce(call, y, y);
    CudaStream stream = site().stream;
    const Shape shape{static_cast<std::int64_t>(norm.rows), static_cast<std::int64_t>(norm.d)};
    add_rms_norm(stream, View<const float>(norm.y, shape), View<float>(norm.residual, shape), {norm.weight, norm.d},
                 norm.eps, View<float>(norm.y, shape));
  }
  virtual void all_gather(const Call& call, const std::byte* in, std::byte* out,
                          std::span<const std::size_t> counts) = 0;
  virtual void reduce_scatter(const Call& call, const std::byte* in, std::byte* out,
                              std::span<const std::size_t> counts) = 0;
  virtual void broadcast(const Call& call, std::byte* data) = 0;
  // `largest`: of the counts of all ranks.
  virtual void all_to_all(const Call& call, const std::byte* in, std::span<const std::size_t> send_counts,
                          std::byte* out, std::span<const std::size_t> recv_counts, std::size_t largest) = 0;
  virtual void send(const Call& call, std::span<const std::byte> data, int peer) = 0;
  virtual void recv(const Call& call, std::span<std::byte> buffer, int peer) = 0;
};

// What each rank says, on all of them.
template <class T, Endpoint Host>
std::vector<T> gather_on_host(Host& host, Call call, const T& own) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::vector<T> all(static_cast<std::size_t>(host.world_size()));
  call.signature = {.operation = Operation::split, .dtype = DType::u8, .count = sizeof(T)};
  std::vector<std::byte> scratch;
  Composed<Host>(host, scratch)
      .all_gather(call, reinterpret_cast<const std::byte*>(&own), reinterpret_cast<std::byte*>(all.data()), {});
  return all;
}

}  // namespace troika
