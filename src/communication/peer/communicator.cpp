// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include <troika/communication/peer.hpp>

#include "group.hpp"

namespace troika {
namespace {

std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

// The n-th pieces of the parts of all ranks, one after the other, of up to `piece` elements each.
cuda::PeerRanges ranges_of(std::size_t n, std::size_t piece, int world, auto&& count_of) {
  cuda::PeerRanges ranges{};
  for (int r = 0; r < cuda::most_ranks; ++r) {
    const std::size_t count = r < world ? count_of(r) : 0, skipped = std::min(count, n * piece);
    ranges[index(r + 1)] = ranges[index(r)] + static_cast<std::int64_t>(std::min(piece, count - skipped));
  }
  return ranges;
}

// How many elements of each of `parts` go through `capacity` bytes at once; a multiple of 256, unless all do.
std::size_t piece_of(std::size_t capacity, std::size_t size, std::size_t parts, std::size_t longest) {
  return std::min(longest, std::max<std::size_t>(256, capacity / size / parts / 256 * 256));
}

}  // namespace

PeerCommunicator::PeerCommunicator(const Call& call, DeviceSite site, const Options& options)
    : group_(std::make_shared<Group>(call, std::move(site), options)) {
  group_->site.stream.guard(group_);
}
PeerCommunicator::PeerCommunicator(PeerCommunicator&&) noexcept = default;
PeerCommunicator& PeerCommunicator::operator=(PeerCommunicator&&) noexcept = default;
PeerCommunicator::~PeerCommunicator() = default;

const DeviceSite& PeerCommunicator::site() const { return group_->site; }
PeerCard PeerCommunicator::card() const { return group_->card(); }
void PeerCommunicator::connect(std::span<const PeerCard> cards) { group_->connect(cards); }
void PeerCommunicator::check(const Call& call) { group_->check(call); }

void PeerCommunicator::all_reduce(const Call& call, const std::byte* in, std::byte* out) {
  const auto& s = call.signature;
  const auto place = group_->all(call);
  const std::size_t size = size_of(s.dtype), piece = piece_of(group_->capacity(), size, 1, s.count);
  std::byte *const own = place.in[index(place.rank)], *const staging = place.staging[index(place.rank)];
  for (std::size_t done = 0; done < s.count; done += piece) {
    const std::size_t count = std::min(piece, s.count - done), bytes = count * size;
    group_->copy(in + done * size, own, bytes);
    const bool one_shot = bytes <= group_->one_shot_bytes() || place.world <= 2;
    std::byte* const wanted = out + done * size;
    std::byte* const to = Group::reachable(wanted, one_shot ? staging : own);
    const auto kernel = one_shot ? cuda::peer_all_reduce_one_shot : cuda::peer_all_reduce_two_shot;
    kernel(place, s.dtype, s.reduction, to, static_cast<std::int64_t>(count));
    group_->copy(to, wanted, bytes);
  }
}

void PeerCommunicator::all_gather(const Call& call, const std::byte* in, std::byte* out,
                                  std::span<const std::size_t> counts) {
  const auto& s = call.signature;
  const auto place = group_->all(call);
  const auto count_of = [&](int r) { return counts.empty() ? s.count : counts[index(r)]; };
  const std::size_t size = size_of(s.dtype);
  const std::size_t longest = counts.empty() ? s.count : *std::max_element(counts.begin(), counts.end());
  std::byte *const own = place.in[index(place.rank)], *const staging = place.staging[index(place.rank)];
  if (longest * size <= group_->capacity() && Group::reachable(out, nullptr)) {
    group_->copy(in, own, count_of(place.rank) * size);
    return cuda::peer_all_gather(place, s.dtype, out, ranges_of(0, longest, place.world, count_of), {});
  }
  // Through the staging, from where pieces go to their places.
  const std::size_t piece = piece_of(group_->capacity(), size, index(place.world), longest);
  for (std::size_t n = 0; n * piece < longest; ++n) {
    const auto parts = ranges_of(n, piece, place.world, count_of);
    const auto bytes_of = [&](int r) { return static_cast<std::size_t>(parts[index(r + 1)] - parts[index(r)]) * size; };
    group_->copy(in + n * piece * size, own, bytes_of(place.rank));
    cuda::peer_all_gather(place, s.dtype, staging, parts, {});
    std::byte* to = out + n * piece * size;
    for (int r = 0; r < place.world; ++r) {
      group_->copy(staging + static_cast<std::size_t>(parts[index(r)]) * size, to, bytes_of(r));
      to += count_of(r) * size;
    }
  }
}

void PeerCommunicator::reduce_scatter(const Call& call, const std::byte* in, std::byte* out,
                                      std::span<const std::size_t> counts) {
  const auto& s = call.signature;
  const auto place = group_->all(call);
  const auto count_of = [&](int r) { return counts.empty() ? s.count : counts[index(r)]; };
  const std::size_t size = size_of(s.dtype);
  const std::size_t longest = counts.empty() ? s.count : *std::max_element(counts.begin(), counts.end());
  const std::size_t total = DevicePart::of(call, counts, place.rank, place.world).total;
  std::byte *const own = place.in[index(place.rank)], *const staging = place.staging[index(place.rank)];
  const bool whole = total * size <= group_->capacity();
  const std::size_t piece = whole ? longest : piece_of(group_->capacity(), size, index(place.world), longest);
  for (std::size_t n = 0; n * piece < longest; ++n) {
    const auto parts = ranges_of(n, piece, place.world, count_of);
    const auto bytes_of = [&](int r) { return static_cast<std::size_t>(parts[index(r + 1)] - parts[index(r)]) * size; };
    const std::byte* from = in + n * piece * size;
    if (whole) {
      group_->copy(in, own, total * size);
    } else {
      for (int r = 0; r < place.world; ++r) {
        group_->copy(from, own + static_cast<std::size_t>(parts[index(r)]) * size, bytes_of(r));
        from += count_of(r) * size;
      }
    }
    std::byte* const wanted = out + n * piece * size;
    std::byte* const to = Group::reachable(wanted, staging);
    cuda::peer_reduce_scatter(place, s.dtype, s.reduction, to, parts);
    group_->copy(to, wanted, bytes_of(place.rank));
  }
}

void PeerCommunicator::broadcast(const Call& call, std::byte* data) {
  const auto& s = call.signature;
  const auto place = group_->all(call);
  const std::size_t size = size_of(s.dtype), piece = piece_of(group_->capacity(), size, 1, s.count);
  std::byte *const own = place.in[index(place.rank)], *const staging = place.staging[index(place.rank)];
  for (std::size_t done = 0; done < s.count; done += piece) {
    const std::size_t count = std::min(piece, s.count - done);
    std::byte* const wanted = data + done * size;
    if (s.root == place.rank) group_->copy(wanted, own, count * size);
    std::byte* const to = Group::reachable(wanted, staging);
    const auto parts = ranges_of(0, count, place.world, [&](int r) { return r == s.root ? count : 0; });
    cuda::peer_all_gather(place, s.dtype, to, parts, {});
    group_->copy(to, wanted, count * size);
  }
}

// Each rank has a slot for every peer in what it lets them read.
void PeerCommunicator::all_to_all(const Call& call, const std::byte* in, std::span<const std::size_t> send_counts,
                                  std::byte* out, std::span<const std::size_t> recv_counts, std::size_t largest) {
  const auto& s = call.signature;
  const auto place = group_->all(call);
  const std::size_t size = size_of(s.dtype);
  const std::size_t piece = std::max<std::size_t>(256, group_->capacity() / size / index(place.world) / 256 * 256);
  std::byte *const own = place.in[index(place.rank)], *const staging = place.staging[index(place.rank)];
  cuda::PeerRanges sources{};
  sources.fill(static_cast<std::int64_t>(piece) * place.rank);
  for (std::size_t n = 0; n * piece < largest; ++n) {
    const auto piece_at = [&](std::size_t count) { return std::min(piece, count - std::min(count, n * piece)); };
    const std::byte* from = in;
    for (int r = 0; r < place.world; ++r) {
      const std::size_t count = send_counts[index(r)];
      group_->copy(from + n * piece * size, own + index(r) * piece * size, piece_at(count) * size);
      from += count * size;
    }
    const auto parts = ranges_of(n, piece, place.world, [&](int r) { return recv_counts[index(r)]; });
    cuda::peer_all_gather(place, s.dtype, staging, parts, sources);
    std::byte* to = out;
    for (int r = 0; r < place.world; ++r) {
      const std::size_t count = recv_counts[index(r)];
      group_->copy(staging + static_cast<std::size_t>(parts[index(r)]) * size, to + n * piece * size,
                   piece_at(count) * size);
      to += count * size;
    }
  }
}

void PeerCommunicator::send(const Call& call, std::span<const std::byte> data, int peer) {
  const auto place = group_->pair(call, peer);
  const std::size_t piece = group_->capacity();
  for (std::size_t done = 0; done < data.size(); done += piece) {
    group_->copy(data.data() + done, place.in[index(place.rank)], std::min(piece, data.size() - done));
    cuda::peer_all_gather(place, DType::u8, place.staging[index(place.rank)], {}, {});  // nothing comes back
  }
}

void PeerCommunicator::recv(const Call& call, std::span<std::byte> buffer, int peer) {
  const auto place = group_->pair(call, peer);
  const std::size_t piece = group_->capacity();
  for (std::size_t done = 0; done < buffer.size(); done += piece) {
    const std::size_t bytes = std::min(piece, buffer.size() - done);
    std::byte* const to = Group::reachable(buffer.data() + done, place.staging[index(place.rank)]);
    const auto from_peer = [&](int r) { return r == place.rank ? 0 : bytes; };
    cuda::peer_all_gather(place, DType::u8, to, ranges_of(0, bytes, place.world, from_peer), {});
    group_->copy(to, buffer.data() + done, bytes);
  }
}

}  // namespace troika
