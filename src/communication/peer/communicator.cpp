// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
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

// The parts of all ranks in a collective: `counts` as in transport.hpp.
struct Parts {
  std::span<const std::size_t> counts;
  std::size_t equal, size, longest;  // elements; bytes of one

  Parts(const Call& call, std::span<const std::size_t> of_ranks)
      : counts(of_ranks),
        equal(call.signature.count),
        size(size_of(call.signature.dtype)),
        longest(counts.empty() ? equal : *std::max_element(counts.begin(), counts.end())) {}

  std::size_t count_of(int r) const { return counts.empty() ? equal : counts[index(r)]; }
  cuda::PeerRanges pieces(std::size_t n, std::size_t piece, int world) const {
    return ranges_of(n, piece, world, [&](int r) { return count_of(r); });
  }
  std::size_t bytes_of(const cuda::PeerRanges& pieces, int r) const {
    return static_cast<std::size_t>(pieces[index(r + 1)] - pieces[index(r)]) * size;
  }
};

class PeerCommunicator final : public DeviceEngine {
 public:
  explicit PeerCommunicator(std::shared_ptr<PeerGroup> group) : group_(std::move(group)) {
    group_->site.stream.guard(group_);
  }

  const DeviceSite& site() const override { return group_->site; }
  void check(const Call& call) override { group_->check(call); }

  void all_reduce(const Call& call, const std::byte* in, std::byte* out) override {
    const auto& s = call.signature;
    const auto place = group_->all(call);
    const std::size_t size = size_of(s.dtype), piece = piece_of(group_->capacity(), size, 1, s.count);
    for (std::size_t done = 0; done < s.count; done += piece) {
      const std::size_t count = std::min(piece, s.count - done), bytes = count * size;
      group_->copy(in + done * size, place.own(), bytes);
      const bool one_shot = bytes <= group_->one_shot_bytes() || place.world <= 2;
      std::byte* const wanted = out + done * size;
      std::byte* const to = PeerGroup::reachable(wanted, one_shot ? place.own_staging() : place.own());
      const auto kernel = one_shot ? cuda::peer_all_reduce_one_shot : cuda::peer_all_reduce_two_shot;
      kernel(place, s.dtype, s.reduction, to, static_cast<std::int64_t>(count));
      group_->copy(to, wanted, bytes);
    }
  }

  void all_reduce_norm(const Call& call, const AddedNorm& norm) override {
    const auto place = group_->all(call);
    const std::size_t row = norm.d * sizeof(float), piece = std::min(norm.rows, group_->capacity() / row);
    if (piece == 0) return DeviceEngine::all_reduce_norm(call, norm);  // the kernels take whole rows
    for (std::size_t done = 0; done < norm.rows; done += piece) {
      const std::size_t rows = std::min(piece, norm.rows - done), first = done * norm.d;
      float* const y = norm.y + first;
      group_->copy(reinterpret_cast<const std::byte*>(y), place.own(), rows * row);
      const int shots = rows * row <= group_->one_shot_bytes() || place.world <= 2 ? 1 : 2;
      cuda::peer_all_reduce_norm(place, shots, {y, norm.residual + first, norm.weight, rows, norm.d, norm.eps});
    }
  }

  void all_gather(const Call& call, const std::byte* in, std::byte* out, std::span<const std::size_t> counts) override {
    const auto place = group_->all(call);
    const Parts parts(call, counts);
    const DType dtype = call.signature.dtype;
    if (parts.longest * parts.size <= group_->capacity() && PeerGroup::reachable(out, nullptr)) {
      group_->copy(in, place.own(), parts.count_of(place.rank) * parts.size);
      return cuda::peer_all_gather(place, dtype, out, parts.pieces(0, parts.longest, place.world), {});
    }
    // Through the staging, from where pieces go to their places.
    const std::size_t piece = piece_of(group_->capacity(), parts.size, index(place.world), parts.longest);
    for (std::size_t n = 0; n * piece < parts.longest; ++n) {
      const auto pieces = parts.pieces(n, piece, place.world);
      group_->copy(in + n * piece * parts.size, place.own(), parts.bytes_of(pieces, place.rank));
      cuda::peer_all_gather(place, dtype, place.own_staging(), pieces, {});
      std::byte* to = out + n * piece * parts.size;
      for (int r = 0; r < place.world; ++r) {
        group_->copy(place.own_staging() + static_cast<std::size_t>(pieces[index(r)]) * parts.size, to,
                     parts.bytes_of(pieces, r));
        to += parts.count_of(r) * parts.size;
      }
    }
  }

  void reduce_scatter(const Call& call, const std::byte* in, std::byte* out,
                      std::span<const std::size_t> counts) override {
    const auto place = group_->all(call);
    const Parts parts(call, counts);
    const std::size_t bytes = DevicePart::of(call, counts, place.rank, place.world).total * parts.size;
    const bool whole = bytes <= group_->capacity();
    const std::size_t piece =
        whole ? parts.longest : piece_of(group_->capacity(), parts.size, index(place.world), parts.longest);
    for (std::size_t n = 0; n * piece < parts.longest; ++n) {
      const auto pieces = parts.pieces(n, piece, place.world);
      const std::byte* from = in + n * piece * parts.size;
      if (whole) {
        group_->copy(in, place.own(), bytes);
      } else {
        for (int r = 0; r < place.world; ++r) {
          group_->copy(from, place.own() + static_cast<std::size_t>(pieces[index(r)]) * parts.size,
                       parts.bytes_of(pieces, r));
          from += parts.count_of(r) * parts.size;
        }
      }
      std::byte* const wanted = out + n * piece * parts.size;
      std::byte* const to = PeerGroup::reachable(wanted, place.own_staging());
      cuda::peer_reduce_scatter(place, call.signature.dtype, call.signature.reduction, to, pieces);
      group_->copy(to, wanted, parts.bytes_of(pieces, place.rank));
    }
  }

  void broadcast(const Call& call, std::byte* data) override {
    const auto& s = call.signature;
    const auto place = group_->all(call);
    const std::size_t size = size_of(s.dtype), piece = piece_of(group_->capacity(), size, 1, s.count);
    for (std::size_t done = 0; done < s.count; done += piece) {
      const std::size_t count = std::min(piece, s.count - done);
      std::byte* const wanted = data + done * size;
      if (s.root == place.rank) group_->copy(wanted, place.own(), count * size);
      std::byte* const to = PeerGroup::reachable(wanted, place.own_staging());
      const auto parts = ranges_of(0, count, place.world, [&](int r) { return r == s.root ? count : 0; });
      cuda::peer_all_gather(place, s.dtype, to, parts, {});
      group_->copy(to, wanted, count * size);
    }
  }

  // Each rank has a slot for every peer in what it lets them read.
  void all_to_all(const Call& call, const std::byte* in, std::span<const std::size_t> send_counts, std::byte* out,
                  std::span<const std::size_t> recv_counts, std::size_t largest) override {
    const auto& s = call.signature;
    const auto place = group_->all(call);
    const std::size_t size = size_of(s.dtype);
    const std::size_t piece = std::max<std::size_t>(256, group_->capacity() / size / index(place.world) / 256 * 256);
    cuda::PeerRanges sources{};
    sources.fill(static_cast<std::int64_t>(piece) * place.rank);
    for (std::size_t n = 0; n * piece < largest; ++n) {
      const auto piece_at = [&](std::size_t count) { return std::min(piece, count - std::min(count, n * piece)); };
      const std::byte* from = in;
      for (int r = 0; r < place.world; ++r) {
        const std::size_t count = send_counts[index(r)];
        group_->copy(from + n * piece * size, place.own() + index(r) * piece * size, piece_at(count) * size);
        from += count * size;
      }
      const auto parts = ranges_of(n, piece, place.world, [&](int r) { return recv_counts[index(r)]; });
      cuda::peer_all_gather(place, s.dtype, place.own_staging(), parts, sources);
      std::byte* to = out;
      for (int r = 0; r < place.world; ++r) {
        const std::size_t count = recv_counts[index(r)];
        group_->copy(place.own_staging() + static_cast<std::size_t>(parts[index(r)]) * size, to + n * piece * size,
                     piece_at(count) * size);
        to += count * size;
      }
    }
  }

  void send(const Call& call, std::span<const std::byte> data, int peer) override {
    const auto place = group_->pair(call, peer);
    const std::size_t piece = group_->capacity();
    for (std::size_t done = 0; done < data.size(); done += piece) {
      group_->copy(data.data() + done, place.own(), std::min(piece, data.size() - done));
      cuda::peer_all_gather(place, DType::u8, place.own_staging(), {}, {});  // nothing comes back
    }
  }

  void recv(const Call& call, std::span<std::byte> buffer, int peer) override {
    const auto place = group_->pair(call, peer);
    const std::size_t piece = group_->capacity();
    for (std::size_t done = 0; done < buffer.size(); done += piece) {
      const std::size_t bytes = std::min(piece, buffer.size() - done);
      std::byte* const to = PeerGroup::reachable(buffer.data() + done, place.own_staging());
      const auto from_peer = [&](int r) { return r == place.rank ? 0 : bytes; };
      cuda::peer_all_gather(place, DType::u8, to, ranges_of(0, bytes, place.world, from_peer), {});
      group_->copy(to, buffer.data() + done, bytes);
    }
  }

 private:
  std::shared_ptr<PeerGroup> group_;  // the stream has a weak one
};

}  // namespace

std::shared_ptr<PeerGroup> PeerEngine::open(const Call& call, DeviceSite site, const Options& options) {
  return std::make_shared<PeerGroup>(call, std::move(site), options);
}
PeerCard PeerEngine::card(const PeerGroup& group) { return group.card(); }
std::unique_ptr<DeviceEngine> PeerEngine::connect(std::shared_ptr<PeerGroup> group, std::span<const PeerCard> cards,
                                                  std::function<void()> meet) {
  group->connect(cards, std::move(meet));
  return std::make_unique<PeerCommunicator>(std::move(group));
}

}  // namespace troika
