// SPDX-License-Identifier: Apache-2.0
#include "group.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <limits>
#include <list>
#include <mutex>
#include <string>
#include <utility>

#include <troika/device/cuda/slices.hpp>

#include "../../device/cuda/queue.hpp"

namespace troika {
namespace {

// Until this process ends.
void keep(CudaDevice::Buffer memory) {
  static std::mutex mutex;
  static auto* const kept = new std::list<CudaDevice::Buffer>;
  const std::lock_guard lock(mutex);
  kept->push_back(std::move(memory));
}

}  // namespace

PeerGroup::PeerGroup(const Call& call, DeviceSite at, const PeerOptions& options)
    : site(std::move(at)),
      capacity_(std::max<std::size_t>(options.staged_bytes, 16384) / 256 * 256),
      one_shot_bytes_(options.one_shot_bytes),
      last_(call) {
  if (site.world_size > cuda::most_ranks) {
    throw Error(
        Fault::unsupported,
        "Peer connects up to " + std::to_string(cuda::most_ranks) + " ranks, not " + std::to_string(site.world_size),
        {-1, "connect", 0});
  }
  CudaDevice& device = site.stream.device();
  memory_ = device.allocate(signals(1 + site.world_size) + 2 * capacity_);
  reports_ = device.allocate_host(sizeof(std::uint32_t) * static_cast<std::size_t>(1 + site.world_size));
  std::memset(reports_.data(), 0, reports_.bytes());
  cuda::zero_bytes(site.stream, memory_.data(), signals(1 + site.world_size));
  load_kernels();
  site.stream.synchronize();
}

PeerGroup::~PeerGroup() {
  // Kernels end by themselves, after their deadline at the latest; then nobody reads what is given back.
  (void)cudaStreamSynchronize(cuda::stream_of(site.stream));
  if (!meet_) return;
  // What another process has open must not be freed: first all close, then all give back. Where somebody does not come,
  // the memory stays until this process ends.
  opened_.clear();
  try {
    if (std::uncaught_exceptions() == 0) {
      meet_();
      return;
    }
  } catch (...) {
  }
  keep(std::move(memory_));
}

PeerCard PeerGroup::card() const {
  const CudaDevice& device = site.stream.device();
  auto* const memory = const_cast<std::byte*>(memory_.data());
  return {this_process(),
          device.gpu(),
          device.queue().multiprocessors() / std::max(1, device.options().virtual_ranks),
          memory,
          uuid_of(device.gpu()),
          handle_of(memory)};
}

void PeerGroup::connect(std::span<const PeerCard> cards, std::function<void()> meet) {
  enable(cards);
  if (std::ranges::any_of(cards, [&](const PeerCard& card) { return card.process != cards[0].process; }))
    meet_ = std::move(meet);
  reach(cards);
  std::vector<int> everyone, first_set(cards.size(), 0);
  for (int r = 0; r < site.world_size; ++r) everyone.push_back(r);
  everyone_ = place(cards, everyone, first_set, 0);
  for (int peer = 0; peer < site.world_size; ++peer) {
    // Each has a set of signals for the other one.
    const int low = std::min(site.rank, peer), high = std::max(site.rank, peer);
    const int members[] = {low, high}, sets[] = {1 + high, 1 + low};
    pairs_.push_back(place(cards, members, sets, 1 + peer));
  }
}

cuda::PeerPlace PeerGroup::place(std::span<const PeerCard> cards, std::span<const int> members,
                                 std::span<const int> sets, int report) const {
  cuda::PeerPlace place;
  place.world = static_cast<int>(members.size());
  // Blocks wait for each other, so all of them have to be on the GPUs at once, also beside other kernels.
  place.blocks = 32;
  for (const PeerCard& card : cards) place.blocks = std::min(place.blocks, std::max(1, card.multiprocessors));
  place.report = reinterpret_cast<std::uint32_t*>(const_cast<std::byte*>(reports_.data())) + report;
  for (std::size_t i = 0; i < members.size(); ++i) {
    std::byte* const memory = memories_[static_cast<std::size_t>(members[i])];
    if (members[i] == site.rank) place.rank = static_cast<int>(i);
    place.signals[i] = memory + signals(sets[i]);
    place.in[i] = memory + signals(1 + site.world_size);
    place.staging[i] = place.in[i] + capacity_;
  }
  return place;
}

cuda::PeerPlace PeerGroup::with_patience(const Call& call, cuda::PeerPlace place) const {
  place.patience = static_cast<std::uint64_t>(call.deadline.count());
  cuda::Queue& queue = site.stream.device().queue();
  place.stream = queue.stream();
  queue.give_collective();
  return place;
}

void PeerGroup::enable(std::span<const PeerCard> cards) const {
  const auto refuse = [](const std::string& what) { throw Error(Fault::unsupported, what, {-1, "connect", 0}); };
  const auto process = this_process();
  for (const PeerCard& a : cards) {
    for (const PeerCard& b : cards) {
      if (a.process != b.process && a.uuid == b.uuid)
        refuse("two processes share a GPU, which does not run the kernels of both at once");
      // GPUs have other numbers in another process; there, opening the memory tells.
      if (a.process != process || b.process != process) continue;
      int reaches = a.gpu == b.gpu;
      if (!reaches) cuda::check(cudaDeviceCanAccessPeer(&reaches, a.gpu, b.gpu), "cudaDeviceCanAccessPeer");
      if (!reaches)
        refuse("GPU " + std::to_string(a.gpu) + " does not reach the memory of GPU " + std::to_string(b.gpu));
    }
  }
  const int own = site.stream.device().gpu();
  cuda::check(cudaSetDevice(own), "cudaSetDevice");
  for (const PeerCard& card : cards) {
    if (card.process != process || card.gpu == own) continue;
    const auto result = cudaDeviceEnablePeerAccess(card.gpu, 0);
    if (result == cudaErrorPeerAccessAlreadyEnabled)
      (void)cudaGetLastError();
    else
      cuda::check(result, "cudaDeviceEnablePeerAccess");
  }
}

void PeerGroup::reach(std::span<const PeerCard> cards) {
  for (const PeerCard& card : cards) {
    const bool ours = card.process == this_process();
    if (!ours) opened_.emplace_back(site.stream.device().gpu(), card.handle);
    memories_.push_back(ours ? card.memory : opened_.back().data());
  }
}

// A kernel is loaded when it is launched first, which may wait for what runs; what runs may wait for it. So each is
// launched once while nobody waits: this rank meets itself.
void PeerGroup::load_kernels() const {
  cuda::PeerPlace alone;
  alone.patience = std::numeric_limits<std::uint64_t>::max();
  alone.stream = cuda::stream_of(site.stream);
  alone.signals[0] = const_cast<std::byte*>(memory_.data()) + signals(1 + site.rank);
  alone.in[0] = alone.staging[0] = const_cast<std::byte*>(memory_.data()) + signals(1 + site.world_size);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::i32, DType::i8, DType::u8}) {
    for (const Reduction reduction : {Reduction::sum, Reduction::max}) {
      cuda::peer_all_reduce_one_shot(alone, dtype, reduction, alone.in[0], 0);
      cuda::peer_all_reduce_two_shot(alone, dtype, reduction, alone.in[0], 0);
      // With parts that begin at multiples of 16 bytes, and with others.
      cuda::peer_reduce_scatter(alone, dtype, reduction, alone.in[0], {});
      cuda::peer_reduce_scatter(alone, dtype, reduction, alone.in[0], {1, 1});
    }
    cuda::peer_all_gather(alone, dtype, alone.in[0], {}, {});
    cuda::peer_all_gather(alone, dtype, alone.in[0], {1, 1}, {});
  }
  // Rows that go in packs, and others.
  auto* const none = reinterpret_cast<float*>(alone.in[0]);
  for (const int shots : {1, 2}) {
    for (const std::size_t d : {4, 1}) cuda::peer_all_reduce_norm(alone, shots, {none, none, none, 0, d, 0});
  }
}

void PeerGroup::copy(const std::byte* from, std::byte* to, std::size_t bytes) {
  if (bytes > 0 && from != to) cuda::copy_bytes(site.stream, from, to, bytes);
}

// Looks at what kernels have reported. True if the group cannot go on.
bool PeerGroup::find_late() {
  auto* const reports = reinterpret_cast<std::uint32_t*>(reports_.data());
  for (int set = 0; set <= site.world_size; ++set) {
    const auto late = std::atomic_ref(reports[set]).load(std::memory_order_acquire);
    if (late == 0) continue;
    // Of a pair, who is late is the other one.
    const int rank = set > 0 ? set - 1 : static_cast<int>(late) - 1;
    const int guilty = site.world_ranks[static_cast<std::size_t>(std::min(rank, site.world_size - 1))];
    const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(last_.deadline).count();
    site.board->fail({Fault::timeout, guilty,
                      "the GPU of rank " + std::to_string(guilty) + " did not come to a collective within " +
                          std::to_string(milliseconds) + " ms"});
    break;
  }
  return site.board->trouble(*site.world).has_value();
}

void PeerGroup::check(const Call& call) {
  last_ = call;
  check();
}

void PeerGroup::check() {
  if (!find_late()) [[likely]]
    return;
  const Failure& failure = site.board->failure();
  site.world->blame(site.world_rank(), failure.rank);
  throw error_of(failure, last_);
}

}  // namespace troika
