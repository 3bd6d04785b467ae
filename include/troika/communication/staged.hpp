// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <span>
#include <utility>

#include <troika/communication/transport.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/device.hpp>

namespace troika {

// An endpoint that works on memory of the host, for ranks whose devices have memory of their own: what lies there is
// copied to a buffer of the host, in the order of the rank's stream, and the result is copied back. The way that
// always goes; transports that the devices take part in themselves are faster. What lies in the host's memory is
// handed on as it is. All native collectives of `Inner` are those of this.
template <Endpoint Inner, HasOwnMemory D>
class StagedEndpoint {
 public:
  StagedEndpoint(Inner inner, const typename D::Stream& stream) : inner_(std::move(inner)), stream_(stream) {}

  int rank() const { return inner_.rank(); }
  int world_size() const { return inner_.world_size(); }
  int world_rank(int peer) const { return inner_.world_rank(peer); }
  // In and out may overlap in any way: all of in is copied before any of out is written.
  bool copies_first(const std::byte* data) { return stream_.device().holds(data); }

  void count_waits(bool on) requires CountsWaits<Inner> { inner_.count_waits(on); }
  std::chrono::nanoseconds waited() const requires CountsWaits<Inner> { return inner_.waited(); }

  void agree(const Call& call) { inner_.agree(call); }
  void send(const Call& call, std::span<const std::byte> data, int peer) {
    if (!here(data.data())) return inner_.send(call, data, peer);
    std::byte* const staged = room(data.size());
    fetch(data.data(), staged, data.size());
    inner_.send(call, {staged, data.size()}, peer);
  }
  void recv(const Call& call, std::span<std::byte> buffer, int peer) {
    if (!here(buffer.data())) return inner_.recv(call, buffer, peer);
    std::byte* const staged = room(buffer.size());
    inner_.recv(call, {staged, buffer.size()}, peer);
    put(staged, buffer.data(), buffer.size());
  }
  StagedEndpoint split(const Call& call, int color, int key) { return {inner_.split(call, color, key), stream_}; }

  void all_reduce(const Call& call, const std::byte* in, std::byte* out) requires HasAllReduce<Inner> {
    if (!here(in, out)) return inner_.all_reduce(call, in, out);
    const std::size_t bytes = call.signature.count * element(call);
    if (stays(in, out, bytes)) return alone(call, in, out, bytes);
    std::byte* const staged = room(bytes);
    fetch(in, staged, bytes);
    inner_.all_reduce(call, staged, staged);
    put(staged, out, bytes);
  }

  void all_gather(const Call& call, const std::byte* in, std::byte* out,
                  std::span<const std::size_t> counts) requires HasAllGather<Inner> {
    if (!here(in, out)) return inner_.all_gather(call, in, out, counts);
    const auto [begin, size, total] = own_part(call, counts);
    if (stays(in, out, total)) return alone(call, in, out, total);
    std::byte* const staged = room(total);
    fetch(in, staged + begin, size);
    inner_.all_gather(call, staged + begin, staged, counts);
    put(staged, out, total);
  }

  void reduce_scatter(const Call& call, const std::byte* in, std::byte* out,
                      std::span<const std::size_t> counts) requires HasReduceScatter<Inner> {
    if (!here(in, out)) return inner_.reduce_scatter(call, in, out, counts);
    const auto [begin, size, total] = own_part(call, counts);
    if (stays(in, out, total)) return alone(call, in, out, total);
    std::byte* const staged = room(total);
    fetch(in, staged, total);
    inner_.reduce_scatter(call, staged, staged + begin, counts);
    put(staged + begin, out, size);
  }

  void broadcast(const Call& call, std::byte* data) requires HasBroadcast<Inner> {
    if (!here(data)) return inner_.broadcast(call, data);
    const std::size_t bytes = call.signature.count * element(call);
    if (world_size() == 1) return agree(call);
    const bool root = call.signature.root == rank();
    std::byte* const staged = room(bytes);
    if (root) fetch(data, staged, bytes);
    inner_.broadcast(call, staged);
    if (!root) put(staged, data, bytes);
  }

  void all_to_all(const Call& call, const std::byte* in, std::span<const std::size_t> send_counts, std::byte* out,
                  std::span<const std::size_t> recv_counts) requires HasAllToAll<Inner> {
    if (!here(in, out)) return inner_.all_to_all(call, in, send_counts, out, recv_counts);
    const std::size_t sent = sum(send_counts) * element(call), received = sum(recv_counts) * element(call);
    std::byte* const staged = room(sent + received);
    fetch(in, staged, sent);
    inner_.all_to_all(call, staged, send_counts, staged + sent, recv_counts);
    put(staged + sent, out, received);
  }

 private:
  struct Part {
    std::size_t begin, size, total;  // bytes
  };

  static std::size_t element(const Call& call) { return size_of(call.signature.dtype); }
  static std::size_t sum(std::span<const std::size_t> counts) {
    return std::accumulate(counts.begin(), counts.end(), std::size_t{0});
  }
  // Whether nothing has to leave the device, which then does not wait.
  bool stays(const std::byte* in, const std::byte* out, std::size_t bytes) const {
    const std::less<const std::byte*> before;
    return world_size() == 1 && (in == out || !before(in, out + bytes) || !before(out, in + bytes));
  }
  void alone(const Call& call, const std::byte* in, std::byte* out, std::size_t bytes) {
    agree(call);
    const Shape shape{static_cast<std::int64_t>(bytes)};
    if (in != out && bytes) copy(stream_, View<const std::byte>(in, shape), View<std::byte>(out, shape));
  }
  Part own_part(const Call& call, std::span<const std::size_t> counts) const {
    const auto me = static_cast<std::size_t>(rank()), ranks = static_cast<std::size_t>(world_size());
    const std::size_t size = element(call), equal = call.signature.count * size;
    if (counts.empty()) return {me * equal, equal, ranks * equal};
    return {sum(counts.first(me)) * size, counts[me] * size, sum(counts) * size};
  }

  template <class... P>
  bool here(const P*... data) {
    return (stream_.device().holds(data) || ...);
  }
  std::byte* room(std::size_t bytes) {
    if (buffer_.bytes() < bytes || !buffer_.data()) buffer_ = stream_.device().allocate_host(bytes);
    return buffer_.data();
  }
  void fetch(const std::byte* from, std::byte* to, std::size_t bytes) {
    const Shape shape{static_cast<std::int64_t>(bytes)};
    if (bytes) download(stream_, View<const std::byte>(from, shape), View<std::byte>(to, shape));
  }
  void put(const std::byte* from, std::byte* to, std::size_t bytes) {
    const Shape shape{static_cast<std::int64_t>(bytes)};
    if (bytes) upload(stream_, View<const std::byte>(from, shape), View<std::byte>(to, shape));
  }

  Inner inner_;
  typename D::Stream stream_;
  typename D::HostBuffer buffer_;  // keeps its size: the steady state does not allocate
};

}  // namespace troika
