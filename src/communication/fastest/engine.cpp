// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <troika/communication/fastest.hpp>
#include <troika/device/cuda/slices.hpp>

#include "exchange.hpp"

namespace troika {
namespace fastest {
namespace {

// Each collective by the engine that was chosen for its size.
class Chosen final : public DeviceEngine {
 public:
  Chosen(FastestEngine::Engines engines, DeviceSite site, const FastestChoice& choice)
      : engines_(std::move(engines)), site_(std::move(site)), choice_(choice) {}

  const DeviceSite& site() const override { return site_; }
  void check(const Call& call) override {
    for (const auto& engine : engines_)
      if (engine) engine->check(call);
  }
  void all_reduce(const Call& call, const std::byte* in, std::byte* out) override {
    at(call, call.signature.count).all_reduce(call, in, out);
  }
  void all_reduce_norm(const Call& call, const AddedNorm& norm) override {
    at(call, call.signature.count).all_reduce_norm(call, norm);
  }
  void all_gather(const Call& call, const std::byte* in, std::byte* out, std::span<const std::size_t> counts) override {
    at(call, total(call, counts)).all_gather(call, in, out, counts);
  }
  void reduce_scatter(const Call& call, const std::byte* in, std::byte* out,
                      std::span<const std::size_t> counts) override {
    at(call, total(call, counts)).reduce_scatter(call, in, out, counts);
  }
  void broadcast(const Call& call, std::byte* data) override { at(call, call.signature.count).broadcast(call, data); }
  void all_to_all(const Call& call, const std::byte* in, std::span<const std::size_t> send_counts, std::byte* out,
                  std::span<const std::size_t> recv_counts, std::size_t largest) override {
    at(call, largest * static_cast<std::size_t>(site_.world_size))
        .all_to_all(call, in, send_counts, out, recv_counts, largest);
  }
  void send(const Call& call, std::span<const std::byte> data, int peer) override {
    at(call, call.signature.count).send(call, data, peer);
  }
  void recv(const Call& call, std::span<std::byte> buffer, int peer) override {
    at(call, call.signature.count).recv(call, buffer, peer);
  }

 private:
  std::size_t total(const Call& call, std::span<const std::size_t> counts) const {
    return DevicePart::of(call, counts, 0, site_.world_size).total;
  }
  // The same on all ranks: `elements` are what they have agreed on.
  DeviceEngine& at(const Call& call, std::size_t elements) {
    const Way way = choice_.way(call.signature.operation, elements * size_of(call.signature.dtype));
    return *engines_[static_cast<std::size_t>(way)];
  }

  FastestEngine::Engines engines_;
  DeviceSite site_;
  FastestChoice choice_;
};

}  // namespace
}  // namespace fastest

std::unique_ptr<DeviceEngine> FastestEngine::join(Engines engines, DeviceSite site, const FastestChoice& choice) {
  return std::make_unique<fastest::Chosen>(std::move(engines), std::move(site), choice);
}

}  // namespace troika
