// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include <troika/communication/device_engine.hpp>
#include <troika/communication/staged.hpp>
#include <troika/device/cuda/slices.hpp>

namespace troika {

// By pinned memory of the host and a transport of the host, which does all collectives natively: what goes where GPUs
// have no other way. A call returns when its result is there.
template <Endpoint Host>
class StagedEngine final : public DeviceEngine {
 public:
  StagedEngine(Host host, DeviceSite site) : site_(std::move(site)), staged_(std::move(host), site_.stream) {}

  const DeviceSite& site() const override { return site_; }
  void check(const Call&) override {}
  void all_reduce(const Call& call, const std::byte* in, std::byte* out) override { staged_.all_reduce(call, in, out); }
  void all_gather(const Call& call, const std::byte* in, std::byte* out, std::span<const std::size_t> counts) override {
    staged_.all_gather(call, in, out, counts);
  }
  void reduce_scatter(const Call& call, const std::byte* in, std::byte* out,
                      std::span<const std::size_t> counts) override {
    staged_.reduce_scatter(call, in, out, counts);
  }
  void broadcast(const Call& call, std::byte* data) override { staged_.broadcast(call, data); }
  void all_to_all(const Call& call, const std::byte* in, std::span<const std::size_t> send_counts, std::byte* out,
                  std::span<const std::size_t> recv_counts, std::size_t) override {
    staged_.all_to_all(call, in, send_counts, out, recv_counts);
  }
  void send(const Call& call, std::span<const std::byte> data, int peer) override { staged_.send(call, data, peer); }
  void recv(const Call& call, std::span<std::byte> buffer, int peer) override { staged_.recv(call, buffer, peer); }

 private:
  DeviceSite site_;
  StagedEndpoint<Host, CudaDevice> staged_;
};

}  // namespace troika
