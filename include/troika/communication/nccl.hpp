// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <utility>

#include <troika/communication/device_endpoint.hpp>
#include <troika/communication/device_engine.hpp>
#include <troika/communication/transport.hpp>
#include <troika/core/error.hpp>

namespace troika {

struct NcclOptions {
  std::chrono::nanoseconds connect_deadline = std::chrono::seconds(60);  // until all ranks have come
};

// A communicator of NCCL for each rank, in the order of its stream. At most `most_ahead` calls are told to the device
// that it has not done yet; then the oldest is waited for.
//
// A thread of its own watches the device. What takes longer than its deadline, what NCCL reports and what is posted on
// the board end the communicator: it is aborted, so that the device waits for nobody, and every call after that throws,
// also synchronize() of the stream. Buffers are not touched after a call has thrown, unless NCCL does not end in time.
struct NcclEngine {
  using Options = NcclOptions;
  using Id = std::array<std::byte, 128>;  // by which ranks find each other: made by one of them, the same on all
  static constexpr std::size_t most_ahead = 64;

  // Returns when all ranks of the group have come. Throws Fault::unsupported where there is no NCCL, or one that is
  // older than what troika was compiled with, and on invariant devices.
  template <Endpoint Host>
  static std::unique_ptr<DeviceEngine> connect(Host& host, const Call& call, DeviceSite site, const Options&) {
    require();  // on every rank, so that all say the same where there is no NCCL
    if (site.stream.device().options().invariant)
      throw Error(Fault::unsupported, "NCCL adds in an order of its own; invariant devices go by Peer or Threads");
    const auto ids = gather_on_host(host, call, host.rank() == 0 ? make_id() : Id{});
    return connect(call, ids[0], std::move(site));
  }
  static std::unique_ptr<DeviceEngine> connect(const Call& call, const Id& id, DeviceSite site);

 private:
  static void require();
  static Id make_id();
};

// GPUs that NCCL connects, one rank a GPU. Sums are added in NCCL's order and precision: the same bits on all ranks, but
// others than Threads and Peer give; a maximum may lose a NaN.
using Nccl = DeviceTransport<NcclEngine>;

}  // namespace troika
