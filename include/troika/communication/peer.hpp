// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <troika/communication/compose.hpp>
#include <troika/communication/device_endpoint.hpp>
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

// One rank's end of up to 8 GPUs of one process that reach each other's memory, or of ranks that share a GPU. Inputs are
// copied to where the others read them; kernels wait for each other on the GPUs and add in the order of ranks, so that
// sums have the same bits on all ranks, those of Threads. A kernel that waits longer than its deadline ends: every call
// after that throws, also synchronize() of the stream.
class PeerCommunicator {
 public:
  using Options = PeerOptions;

  // Throws Fault::unsupported where a GPU does not reach another.
  template <Endpoint Host>
  PeerCommunicator(Host& host, const Call& call, DeviceSite site, const Options& options)
      : PeerCommunicator(call, std::move(site), options) {
    std::vector<PeerCard> cards(static_cast<std::size_t>(host.world_size()));
    cards[static_cast<std::size_t>(host.rank())] = card();
    Call share = call;
    share.signature = {.operation = Operation::split, .dtype = DType::u8, .count = sizeof(PeerCard)};
    auto* const all = reinterpret_cast<std::byte*>(cards.data());
    std::vector<std::byte> scratch;
    Composed<Host>(host, scratch)
        .all_gather(share, all + static_cast<std::size_t>(host.rank()) * sizeof(PeerCard), all, {});
    host.agree(call);  // all know all, and refuse for the same reason
    connect(cards);
    host.agree(call);  // nobody writes into memory that is not reached by all
  }
  PeerCommunicator(PeerCommunicator&&) noexcept;
  PeerCommunicator& operator=(PeerCommunicator&&) noexcept;
  // Waits until the device has done everything.
  ~PeerCommunicator();

  const DeviceSite& site() const;

  // Throws what has gone wrong on the device since the last call.
  void check(const Call& call);
  // As in transport.hpp, on memory of the device. All ranks have agreed on the call.
  void all_reduce(const Call& call, const std::byte* in, std::byte* out);
  void all_gather(const Call& call, const std::byte* in, std::byte* out, std::span<const std::size_t> counts);
  void reduce_scatter(const Call& call, const std::byte* in, std::byte* out, std::span<const std::size_t> counts);
  void broadcast(const Call& call, std::byte* data);
  // `largest`: of the counts of all ranks.
  void all_to_all(const Call& call, const std::byte* in, std::span<const std::size_t> send_counts, std::byte* out,
                  std::span<const std::size_t> recv_counts, std::size_t largest);
  void send(const Call& call, std::span<const std::byte> data, int peer);
  void recv(const Call& call, std::span<std::byte> buffer, int peer);

 private:
  class Group;

  PeerCommunicator(const Call& call, DeviceSite site, const Options& options);
  PeerCard card() const;
  void connect(std::span<const PeerCard> cards);

  std::shared_ptr<Group> group_;  // the stream has a weak one
};

// GPUs that reach each other's memory, or ranks that share one.
using Peer = DeviceTransport<PeerCommunicator>;

}  // namespace troika
