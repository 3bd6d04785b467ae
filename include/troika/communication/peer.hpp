// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
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
  std::uint64_t process;
  std::int32_t gpu, multiprocessors;
  std::byte* memory;                 // as its own process reaches it
  std::array<std::byte, 16> uuid;    // of the GPU
  std::array<std::byte, 64> handle;  // of the memory, for other processes
};

class PeerGroup;  // what a rank has of its group; src/communication/peer/group.hpp

// Up to 8 GPUs that reach each other's memory, or ranks of one process that share a GPU. Ranks may be of several processes
// of a machine, if the transport of the host is: memory is then opened by its IPC handle. Inputs are copied to where the
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
    auto last = std::make_shared<Host>(host.split(call, 0, host.rank()));
    auto engine = connect(std::move(group), cards, [last, call] { last->agree(call); });
    host.agree(call);  // nobody writes into memory that is not reached by all
    return engine;
  }

 private:
  static std::shared_ptr<PeerGroup> open(const Call& call, DeviceSite site, const Options& options);
  static PeerCard card(const PeerGroup& group);
  static std::unique_ptr<DeviceEngine> connect(std::shared_ptr<PeerGroup> group, std::span<const PeerCard> cards,
                                               std::function<void()> meet);
};

// GPUs that reach each other's memory, or ranks that share one.
using Peer = DeviceTransport<PeerEngine>;

}  // namespace troika
