// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include <troika/communication/compose.hpp>
#include <troika/communication/device_endpoint.hpp>
#include <troika/communication/transport.hpp>

namespace troika {

struct NcclOptions {
  std::chrono::nanoseconds connect_deadline = std::chrono::seconds(60);  // until all ranks have come
};

// One rank's communicator of NCCL, in the order of its stream. At most `most_ahead` calls are told to the device that it
// has not done yet; then the oldest is waited for.
//
// A thread of its own watches the device. What takes longer than its deadline, what NCCL reports and what is posted on
// the board end the communicator: it is aborted, so that the device waits for nobody, and every call after that throws,
// also synchronize() of the stream. Buffers are not touched after a call has thrown, unless NCCL does not end in time.
class NcclCommunicator {
 public:
  using Options = NcclOptions;
  using Id = std::array<std::byte, 128>;  // by which ranks find each other: made by one of them, the same on all
  static constexpr std::size_t most_ahead = 64;

  // Returns when all ranks of the group have come. Throws Fault::unsupported where there is no NCCL, or one that is
  // older than what troika was compiled with.
  template <Endpoint Host>
  NcclCommunicator(Host& host, const Call& call, DeviceSite site, const Options&)
      : NcclCommunicator(call, share_id(host, call), std::move(site)) {}
  NcclCommunicator(const Call& call, const Id& id, DeviceSite site);
  NcclCommunicator(NcclCommunicator&&) noexcept;
  NcclCommunicator& operator=(NcclCommunicator&&) noexcept;
  // Waits until the device has done everything and all ranks have come to the same end, up to the deadline.
  ~NcclCommunicator();

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
  class Watched;

  static void require();
  static Id make_id();
  template <Endpoint Host>
  static Id share_id(Host& host, Call call) {
    require();  // on every rank, so that all say the same where there is no NCCL
    Id id{};
    if (host.rank() == 0) id = make_id();
    call.signature = {.operation = Operation::split, .dtype = DType::u8, .root = 0, .count = id.size()};
    std::vector<std::byte> scratch;
    Composed<Host>(host, scratch).broadcast(call, id.data());
    return id;
  }

  std::shared_ptr<Watched> watched_;  // the watching thread has the other one
};

// GPUs that NCCL connects, one rank a GPU. Sums are added in NCCL's order and precision: the same bits on all ranks, but
// others than Threads and Peer give; a maximum may lose a NaN.
using Nccl = DeviceTransport<NcclCommunicator>;

}  // namespace troika
