// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include <troika/communication/device_endpoint.hpp>
#include <troika/communication/device_engine.hpp>
#include <troika/communication/transport.hpp>

namespace troika {

struct PeerOptions {
  std::chrono::nanoseconds connect_deadline = std::chrono::seconds(60);  // until all ranks have come
  // Memory of each GPU that the others read, taken twice: what is longer goes in pieces.
  std::size_t staged_bytes = std::size_t{8} << 20;
  std::size_t one_shot_bytes = std::size_t{256} << 10;  // up to these, each rank of an all_reduce adds everything
};

// What one rank tells the others about its GPU.
struct PeerCard {
  std::int64_t process;
  std::int32_t gpu, multiprocessors;
  std::byte* memory;
};

class PeerGroup;  // what a rank has of its group; src/communication/peer/group.hpp

// Up to 8 GPUs of one process that reach each other's memory, or ranks that share a GPU. Inputs are copied to where the
// others read them; kernels wait for each other on the GPUs and add in the order of ranks, so that sums have the same
// bits on all ranks, those of Threads. A kernel that waits longer than its deadline ends: every call after that throws,
// also synchronize() of the stream.
struct PeerEngine {
  using Options = PeerOptions;

  // Throws Fault::unsupported where a GPU does not reach another.
  template <Endpoint Host>
  static std::unique_ptr<DeviceEngine> connect(Host& host, const Call& call, DeviceSite site, const Options& options) {
    auto group = open(call, std::move(site), options);
    const auto cards = gather_on_host(host, call, card(*group));
    host.agree(call);  // all know all, and refuse for the same reason
    auto engine = connect(std::move(group), cards);
    host.agree(call);  // nobody writes into memory that is not reached by all
    return engine;
  }

 private:
  static std::shared_ptr<PeerGroup> open(const Call& call, DeviceSite site, const Options& options);
  static PeerCard card(const PeerGroup& group);
  static std::unique_ptr<DeviceEngine> connect(std::shared_ptr<PeerGroup> group, std::span<const PeerCard> cards);
};

// GPUs that reach each other's memory, or ranks that share one.
using Peer = DeviceTransport<PeerEngine>;

}  // namespace troika
