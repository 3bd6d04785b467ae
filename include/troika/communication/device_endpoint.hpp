// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include <troika/communication/compose.hpp>
#include <troika/communication/device_board.hpp>
#include <troika/communication/device_engine.hpp>
#include <troika/communication/rank.hpp>
#include <troika/communication/threads.hpp>
#include <troika/communication/transport.hpp>
#include <troika/device/cuda/device.hpp>
#include <troika/device/cuda/slices.hpp>
#include <troika/device/device.hpp>

namespace troika {

// One rank's end of a group of GPUs, whose memory moves by an engine. What ranks have to tell each other, and memory of
// the host, goes by `Host`, a transport of the host. Every call is agreed on there before a device is told, so that calls
// that differ are found before devices wait for each other in vain, and no rank's queue gets far ahead of another's.
//
// `Engine` says how to connect one: Engine::connect(host, call, site, options) gives a std::unique_ptr<DeviceEngine>. It
// may write to its options what groups that are split from this one are connected with.
template <Endpoint Host, class Engine>
class DeviceEndpoint {
 public:
  using Options = typename Engine::Options;

  DeviceEndpoint(Host host, const Call& call, std::shared_ptr<World> world, std::shared_ptr<DeviceBoard> board,
                 CudaStream stream, const Options& options)
      : options_(options),
        engine_(Engine::connect(host, call, site_of(host, std::move(world), std::move(board), std::move(stream)),
                                options_)),
        host_(std::move(host)) {}
  DeviceEndpoint(DeviceEndpoint&&) = default;
  DeviceEndpoint& operator=(DeviceEndpoint&& other) noexcept {
    host_ = std::move(other.host_);
    engine_ = std::move(other.engine_);
    options_ = std::move(other.options_);
    return *this;
  }

  int rank() const { return host_.rank(); }
  int world_size() const { return host_.world_size(); }
  int world_rank(int rank) const { return host_.world_rank(rank); }
  // Where in and out overlap otherwise than an engine takes it, in is copied on the device.
  bool copies_first(const std::byte* data) { return here(data); }

  void count_waits(bool on) requires CountsWaits<Host> { host_.count_waits(on); }
  std::chrono::nanoseconds waited() const requires CountsWaits<Host> { return host_.waited(); }

  // Returns when all ranks have called it; their streams may be behind.
  void agree(const Call& call) {
    engine_->check(call);
    host_.agree(call);
  }
  void all_reduce(const Call& call, const std::byte* in, std::byte* out) {
    if (call.signature.count == 0) return agree(call);
    if (!here(in, out)) {
      on_host<HasAllReduce<Host>>([&](auto& host) { host.all_reduce(call, in, out); });
    } else {
      const std::size_t bytes = call.signature.count * size_of(call.signature.dtype);
      on_devices(call, [&] { engine_->all_reduce(call, apart(in, bytes, out, bytes, out), out); });
    }
  }
  void all_reduce_norm(const Call& call, const AddedNorm& norm) {
    if (call.signature.count == 0) return agree(call);
    expects(here(norm.y) && here(norm.residual) && here(norm.weight), "all_reduce_norm is in memory of the device");
    on_devices(call, [&] { engine_->all_reduce_norm(call, norm); });
  }
  void all_gather(const Call& call, const std::byte* in, std::byte* out, std::span<const std::size_t> counts) {
    if (call.signature.count == 0) return agree(call);
    if (!here(in, out)) {
      on_host<HasAllGather<Host>>([&](auto& host) { host.all_gather(call, in, out, counts); });
    } else {
      const auto part = DevicePart::of(call, counts, rank(), world_size()) * size_of(call.signature.dtype);
      on_devices(call, [&] {
        engine_->all_gather(call, apart(in, part.count, out, part.total, out + part.begin), out, counts);
      });
    }
  }
  void reduce_scatter(const Call& call, const std::byte* in, std::byte* out, std::span<const std::size_t> counts) {
    if (call.signature.count == 0) return agree(call);
    if (!here(in, out)) {
      on_host<HasReduceScatter<Host>>([&](auto& host) { host.reduce_scatter(call, in, out, counts); });
    } else {
      const auto part = DevicePart::of(call, counts, rank(), world_size()) * size_of(call.signature.dtype);
      on_devices(call, [&] {
        engine_->reduce_scatter(call, apart(in, part.total, out, part.count, out - part.begin), out, counts);
      });
    }
  }
  void broadcast(const Call& call, std::byte* data) {
    if (call.signature.count == 0) return agree(call);
    if (!here(data)) {
      on_host<HasBroadcast<Host>>([&](auto& host) { host.broadcast(call, data); });
    } else {
      on_devices(call, [&] { engine_->broadcast(call, data); });
    }
  }
  void all_to_all(const Call& call, const std::byte* in, std::span<const std::size_t> send_counts, std::byte* out,
                  std::span<const std::size_t> recv_counts) {
    // A rank that neither sends nor receives does not tell in whose memory: both ways begin the same.
    Composed<Host> composed(host_, scratch_);
    if (!here(in, out)) return composed.all_to_all(call, in, send_counts, out, recv_counts);
    on_devices(call, [&] {
      const std::size_t largest = composed.check_exchange(call, send_counts, recv_counts);
      if (largest == 0) return;
      const auto bytes_of = [&](std::span<const std::size_t> counts) {
        return std::accumulate(counts.begin(), counts.end(), std::size_t{0}) * size_of(call.signature.dtype);
      };
      in = apart(in, bytes_of(send_counts), out, bytes_of(recv_counts), nullptr);
      engine_->all_to_all(call, in, send_counts, out, recv_counts, largest);
    });
  }
  // The two sides meet on the host, which compares what they called.
  void send(const Call& call, std::span<const std::byte> data, int peer) {
    engine_->check(call);
    const bool by_device = here(data.data());
    host_.send(call, by_device ? std::span<const std::byte>() : data, peer);
    if (by_device && !data.empty()) engine_->send(call, data, peer);
  }
  void recv(const Call& call, std::span<std::byte> buffer, int peer) {
    engine_->check(call);
    const bool by_device = here(buffer.data());
    host_.recv(call, by_device ? std::span<std::byte>() : buffer, peer);
    if (by_device && !buffer.empty()) engine_->recv(call, buffer, peer);
  }
  DeviceEndpoint split(const Call& call, int color, int key) {
    engine_->check(call);
    const DeviceSite& site = engine_->site();
    return {host_.split(call, color, key), call, site.world, site.board, site.stream, options_};
  }

 private:
  static DeviceSite site_of(const Host& host, std::shared_ptr<World> world, std::shared_ptr<DeviceBoard> board,
                            CudaStream stream) {
    std::vector<int> world_ranks;
    for (int r = 0; r < host.world_size(); ++r) world_ranks.push_back(host.world_rank(r));
    return {host.rank(),      host.world_size(), std::move(world_ranks),
            std::move(world), std::move(board),  std::move(stream)};
  }

  // What the devices do by themselves once all ranks have called it.
  template <class F>
  void on_devices(const Call& call, F&& told) {
    CudaStream stream = engine_->site().stream;
    const bool in_pieces = stream.end_piece();
    agree(call);
    told();
    stream.keep_pace();
    // The next piece may be made only when all devices have been told what others wait for in this call.
    if (in_pieces) host_.agree(call);
  }

  template <class... P>
  bool here(const P*... data) {
    return (engine_->site().stream.device().holds(data) || ...);
  }
  // `in`, or a copy of it where it overlaps with `out` but does not begin at `own`, its place there.
  const std::byte* apart(const std::byte* in, std::size_t in_bytes, const std::byte* out, std::size_t out_bytes,
                         const std::byte* own) {
    const std::less<const std::byte*> before;
    if (in == own || !before(in, out + out_bytes) || !before(out, in + in_bytes)) return in;
    CudaStream stream = engine_->site().stream;
    if (copy_.bytes() < in_bytes || !copy_.data()) copy_ = stream.device().allocate(in_bytes);
    cuda::copy_bytes(stream, in, copy_.data(), in_bytes);
    return copy_.data();
  }
  template <bool native, class F>
  void on_host(F&& f) {
    if constexpr (native) {
      f(host_);
    } else {
      Composed<Host> composed(host_, scratch_);
      f(composed);
    }
  }

  Options options_;
  std::unique_ptr<DeviceEngine> engine_;
  Host host_;  // goes before the engine: peers that wait learn that this rank has left before the engine waits for them
  std::vector<std::byte> scratch_;
  CudaDevice::Buffer copy_;
};

// Ranks whose GPUs an Engine connects: one thread and one stream a rank. `Host` is Threads where ranks are threads of
// one process; where a launcher starts processes, a transport over what the launcher has.
template <class Engine, class Host = Threads>
class DeviceTransport {
 public:
  explicit DeviceTransport(typename Engine::Options options = {}, Host host = {})
      : options_(std::move(options)), host_(std::move(host)) {}

  template <HasOwnMemory D>
  auto connect(Rank<D>& rank) {
    auto host = host_.connect(rank);
    auto board = DeviceBoard::of(rank.rank(), rank.world());
    const Call call{{.operation = Operation::split}, 0, options_.connect_deadline};
    return DeviceEndpoint<decltype(host), Engine>(std::move(host), call, rank.shared_world(), std::move(board),
                                                  rank.stream(), options_);
  }

 private:
  typename Engine::Options options_;
  Host host_;
};

}  // namespace troika
