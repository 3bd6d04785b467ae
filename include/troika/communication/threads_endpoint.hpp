// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <troika/communication/agreement.hpp>
#include <troika/communication/rank.hpp>
#include <troika/communication/reduce.hpp>
#include <troika/communication/threads_diagnosis.hpp>
#include <troika/communication/threads_hub.hpp>
#include <troika/communication/transport.hpp>
#include <troika/device/host/team.hpp>

namespace troika {

// One rank's end of a group of threads. Does not allocate after it has been made, unless something fails.
class ThreadsEndpoint {
 public:
  static constexpr bool host_memory = true;

  static ThreadsEndpoint connect(int rank, const std::shared_ptr<World>& world, const ThreadsOptions& options) {
    auto hub = world->meet<ThreadsHub>(rank, [&] {
      std::vector<int> ranks(static_cast<std::size_t>(world->size()));
      std::iota(ranks.begin(), ranks.end(), 0);
      return std::make_shared<ThreadsHub>(std::move(ranks), options);
    });
    if (hub->connected() == 1) world->alert(hub);
    return {rank, world, std::move(hub)};
  }

  ThreadsEndpoint(ThreadsEndpoint&&) = default;
  ThreadsEndpoint& operator=(ThreadsEndpoint&& other) noexcept {
    leave();
    rank_ = other.rank_;
    world_ = std::move(other.world_);
    hub_ = std::move(other.hub_);
    sent_ = std::move(other.sent_);
    received_ = std::move(other.received_);
    inputs_ = std::move(other.inputs_);
    outputs_ = std::move(other.outputs_);
    stage_ = other.stage_;
    calls_ = other.calls_;
    counts_waits_ = other.counts_waits_;
    waited_ = other.waited_;
    return *this;
  }
  ~ThreadsEndpoint() { leave(); }

  int rank() const { return rank_; }
  int world_size() const { return hub_->world_size(); }
  int world_rank(int rank) const { return hub_->world_rank(rank); }

  void count_waits(bool on) { counts_waits_ = on; }
  std::chrono::nanoseconds waited() const { return waited_; }

  void agree(const Call& call) { begin(call, nullptr, nullptr, false); }

  void all_reduce(const Call& call, const std::byte* in, std::byte* out) {
    const auto& [operation, dtype, reduction, root, count, layout] = call.signature;
    const std::size_t bytes = count * size_of(dtype);
    if (bytes <= staged()) {
      begin(call, stage_data(in, bytes), nullptr, true);
      collect_inputs();
      reduce(dtype, reduction, inputs_, std::span(&out, 1), 0, count);
      return;
    }
    begin(call, in, out, false);
    {
      const Touch touch(*this, call);
      collect_inputs();
      for (int r = 0; r < world_size(); ++r) outputs_[index(r)] = post(r).out;
      const auto [first, last] = part_of(count, dtype);
      reduce(dtype, reduction, inputs_, outputs_, first, last);
    }
    finish(call);
  }

  // counts empty: every rank gives call.signature.count elements.
  void all_gather(const Call& call, const std::byte* in, std::byte* out, std::span<const std::size_t> counts) {
    const std::size_t size = size_of(call.signature.dtype), equal = call.signature.count;
    const auto bytes_of = [&](int r) { return (counts.empty() ? equal : counts[index(r)]) * size; };
    const bool small = (counts.empty() ? equal : *std::ranges::max_element(counts)) * size <= staged();
    begin(call, small ? stage_data(in, bytes_of(rank_)) : in, nullptr, small);
    {
      const Touch touch(*this, call, !small);
      for (int r = 0; r < world_size(); ++r) {
        copy(out, post(r).in, bytes_of(r));
        out += bytes_of(r);
      }
    }
    if (!small) finish(call);
  }

  void reduce_scatter(const Call& call, const std::byte* in, std::byte* out, std::span<const std::size_t> counts) {
    const auto& [operation, dtype, reduction, root, count, layout] = call.signature;
    const std::size_t size = size_of(dtype);
    std::size_t begins = 0, mine_count = count, total = count * static_cast<std::size_t>(world_size());
    if (counts.empty()) {
      begins = count * static_cast<std::size_t>(rank_);
    } else {
      for (int r = 0; r < rank_; ++r) begins += counts[index(r)];
      mine_count = counts[index(rank_)];
      total = std::accumulate(counts.begin(), counts.end(), std::size_t{0});
    }
    const bool small = total * size <= staged();
    begin(call, small ? stage_data(in, total * size) : in, nullptr, small);
    {
      const Touch touch(*this, call, !small);
      for (int r = 0; r < world_size(); ++r) inputs_[index(r)] = post(r).in + begins * size;
      reduce(dtype, reduction, inputs_, std::span(&out, 1), 0, mine_count);
    }
    if (!small) finish(call);
  }

  void broadcast(const Call& call, std::byte* data) {
    const std::size_t bytes = call.signature.count * size_of(call.signature.dtype);
    const bool small = bytes <= staged(), root = call.signature.root == rank_;
    begin(call, small && root ? stage_data(data, bytes) : data, nullptr, small);
    if (!root) {
      const Touch touch(*this, call, !small);
      copy(data, post(call.signature.root).in, bytes);
    }
    if (!small) finish(call);
  }

  void all_to_all(const Call& call, const std::byte* in, std::span<const std::size_t> send_counts, std::byte* out,
                  std::span<const std::size_t> recv_counts) {
    // The staging buffer has the counts first, then the data if it fits.
    const std::size_t size = size_of(call.signature.dtype), header = send_counts.size_bytes();
    const std::size_t bytes = std::accumulate(send_counts.begin(), send_counts.end(), std::size_t{0}) * size;
    std::byte* const staging = next_staging();
    std::memcpy(staging, send_counts.data(), header);
    std::memcpy(staging + header, recv_counts.data(), header);
    const bool small = bytes <= staged() && 2 * header + bytes <= staged();
    if (small) copy(staging + 2 * header, in, bytes);
    begin(call, small ? staging + 2 * header : in, nullptr, small);

    const auto staged_count = [&](int from, int which) {
      std::size_t count;
      std::memcpy(&count, hub_->staging(from, parity()) + index(which) * sizeof count, sizeof count);
      return count;
    };
    const auto sends = [&](int i, int j) { return staged_count(i, j); };
    const auto expects = [&](int i, int j) { return staged_count(j, world_size() + i); };
    if (auto wrong = find_uneven_exchange(world_size(), sends, expects, [&](int r) { return world_rank(r); })) {
      fail(call, std::move(*wrong));
    }
    bool all_small = true;
    for (int r = 0; r < world_size(); ++r) all_small &= post(r).staged;
    {
      const Touch touch(*this, call, !all_small);
      for (int r = 0; r < world_size(); ++r) {
        std::size_t skip = 0;
        for (int before = 0; before < rank_; ++before) skip += sends(r, before);
        copy(out, post(r).in + skip * size, recv_counts[index(r)] * size);
        out += recv_counts[index(r)] * size;
      }
    }
    if (!all_small) finish(call);
  }

  void send(const Call& call, std::span<const std::byte> data, int peer) {
    check_alive(call);
    auto& box = hub_->mailbox(rank_, peer);
    const auto number = ++sent_[index(peer)];
    box.signature = call.signature;
    box.data = data.data();
    box.posted.store(number, std::memory_order_release);
    full_fence();
    hub_->slot(peer).message.ring();
    wait_for_peer(call, peer, [&] { return box.taken.load(std::memory_order_acquire) >= number; });
  }

  void recv(const Call& call, std::span<std::byte> buffer, int peer) {
    check_alive(call);
    auto& box = hub_->mailbox(peer, rank_);
    const auto number = ++received_[index(peer)];
    wait_for_peer(call, peer, [&] { return box.posted.load(std::memory_order_acquire) >= number; });
    if (!is_one_message(box.signature, call.signature)) {
      fail(call, message_mismatch(world_rank(peer), box.signature, world_rank(rank_), call.signature));
    }
    {
      const Touch touch(*this, call);
      copy(buffer.data(), box.data, buffer.size());
      box.taken.store(number, std::memory_order_release);
    }
    full_fence();
    hub_->slot(peer).message.ring();
  }

  ThreadsEndpoint split(const Call& call, int color, int key) {
    auto& slot = hub_->slot(rank_);
    // No peer reads these between two splits: the last stage of one is after the last read.
    slot.color = color;
    slot.key = key;
    begin(call, nullptr, nullptr, false);
    std::vector<int> members;
    for (int r = 0; r < world_size(); ++r) {
      if (hub_->slot(r).color == color) members.push_back(r);
    }
    std::ranges::stable_sort(members, {}, [&](int r) { return hub_->slot(r).key; });
    if (members.front() == rank_) {
      std::vector<int> world_ranks;
      for (const int r : members) world_ranks.push_back(world_rank(r));
      slot.group = std::make_shared<ThreadsHub>(std::move(world_ranks), hub_->options(), hub_->may_spin());
      world_->alert(slot.group);
    }
    finish(call);
    auto group = hub_->slot(members.front()).group;
    finish(call);
    slot.group.reset();
    const auto place = std::ranges::find(members, rank_) - members.begin();
    return {static_cast<int>(place), world_, std::move(group)};
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Post = ThreadsHub::Post;

  ThreadsEndpoint(int rank, std::shared_ptr<World> world, std::shared_ptr<ThreadsHub> hub)
      : rank_(rank),
        world_(std::move(world)),
        hub_(std::move(hub)),
        sent_(static_cast<std::size_t>(hub_->world_size())),
        received_(sent_.size()),
        inputs_(sent_.size()),
        outputs_(sent_.size()) {}

  // While one lives, this rank reads or writes memory of its peers. None begins once the group has failed: see
  // withdraw.
  class Touch {
   public:
    Touch(ThreadsEndpoint& endpoint, const Call& call, bool peers_memory = true)
        : touching_(peers_memory ? &endpoint.hub_->slot(endpoint.rank_).touching : nullptr) {
      if (!touching_) return;
      touching_->store(true, std::memory_order_seq_cst);
      if (endpoint.hub_->failed()) {
        touching_->store(false, std::memory_order_release);
        endpoint.throw_failure(call);
      }
    }
    Touch(const Touch&) = delete;
    Touch& operator=(const Touch&) = delete;
    ~Touch() {
      if (touching_) touching_->store(false, std::memory_order_release);
    }

   private:
    std::atomic<bool>* touching_;
  };

  static std::size_t index(int rank) { return static_cast<std::size_t>(rank); }
  static void copy(std::byte* to, const std::byte* from, std::size_t bytes) {
    if (bytes && to != from) std::memcpy(to, from, bytes);
  }
  // Up to how many bytes a message is staged, the same on all ranks: one more copy against one more stage, which is
  // cheap where ranks spin. Whether they may is known to all after the first call.
  std::size_t staged() const {
    const auto& options = hub_->options();
    return calls_ > 0 && hub_->may_spin() ? std::min(options.staged_bytes, options.staged_bytes_spinning)
                                          : options.staged_bytes;
  }
  unsigned parity() const { return static_cast<unsigned>(calls_ & 1); }
  Post& post(int rank) { return hub_->post(rank, parity()); }
  // Where this rank stages data before begin(): it belongs to the call to come.
  std::byte* next_staging() { return hub_->staging(rank_, parity() ^ 1u); }
  const std::byte* stage_data(const std::byte* in, std::size_t bytes) {
    copy(next_staging(), in, bytes);
    return next_staging();
  }
  void collect_inputs() {
    for (int r = 0; r < world_size(); ++r) inputs_[index(r)] = post(r).in;
  }
  // This rank's part of an all_reduce, in whole cache lines.
  std::pair<std::size_t, std::size_t> part_of(std::size_t count, DType dtype) const {
    const std::size_t unit = 128 / size_of(dtype), units = (count + unit - 1) / unit, me = index(rank_);
    const std::size_t ranks = index(world_size());
    return {std::min(count, units * me / ranks * unit), std::min(count, units * (me + 1) / ranks * unit)};
  }

  // First stage: publishes the call, waits for all, and finds out whether all agree.
  void begin(const Call& call, const std::byte* in, std::byte* out, bool staged) {
    check_alive(call);
    ++calls_;
    auto& mine = post(rank_);
    mine.signature = call.signature;
    mine.in = in;
    mine.out = out;
    mine.staged = staged;
    pass_stage(call);
    if (auto wrong = find_mismatch(
            world_size(), [&](int r) -> const Signature& { return post(r).signature; },
            [&](int r) { return world_rank(r); })) {
      fail(call, std::move(*wrong));
    }
  }
  // Another stage: when it is passed, no peer needs this rank's buffers any more.
  void finish(const Call& call) { pass_stage(call); }

  void pass_stage(const Call& call) {
    ++stage_;
    // Not sequentially consistent, which would wait for this store before it looks at the peers: the fence comes later.
    post(rank_).stage.store(stage_, std::memory_order_release);
    int next = 0;  // all before it have arrived
    const auto arrived = [&] {
      while (next < world_size() && post(next).stage.load(std::memory_order_acquire) >= stage_) ++next;
      return next == world_size();
    };
    if (!arrived())
      wait(call, hub_->stages(), arrived, [&](bool late) {
        return threads_detail::absent(*hub_, *world_, {stage_, parity()}, call, late);
      });
    full_fence();
    hub_->stages().ring(stage_);
  }

  template <class Ready>
  void wait_for_peer(const Call& call, int peer, Ready&& ready) {
    auto& slot = hub_->slot(rank_);
    if (ready()) return;
    slot.waits_for.store(peer, std::memory_order_relaxed);
    wait(call, slot.message, ready, [&](bool late) {
      return threads_detail::silent(*hub_, *world_, {stage_, parity()}, call, rank_, peer, late);
    });
    slot.waits_for.store(-1, std::memory_order_relaxed);
  }

  // Returns when ready(); throws when the group fails, a rank of the world fails, or trouble() has something to tell.
  // trouble(late) gives a Failure if peers cannot come any more, or, when late, who has not come.
  template <class Ready, class Trouble>
  void wait(const Call& call, Bell& bell, Ready&& ready, Trouble&& trouble) {
    if (!counts_waits_) return wait_uncounted(call, bell, ready, trouble);
    const auto begin = Clock::now();
    wait_uncounted(call, bell, ready, trouble);
    waited_ += Clock::now() - begin;
  }
  template <class Ready, class Trouble>
  void wait_uncounted(const Call& call, Bell& bell, Ready&& ready, Trouble&& trouble) {
    const int spins = hub_->may_spin() ? hub_->options().spins : 0;
    for (int i = 0; i < spins; ++i) {
      if (ready()) return;
      pause_core();
      if (i % 64 == 63 && (hub_->failed() || world_->failed())) break;
    }
    // Where ranks share cores, the one to wait for may be next on this core.
    const int yields = spins ? 0 : hub_->options().yields;
    for (int i = 0; i < yields; ++i) {
      std::this_thread::yield();
      if (ready()) return;
    }
    const auto alarmed = [&] { return hub_->failed() || world_->failed(); };
    using namespace std::chrono_literals;
    auto before = Clock::now();
    std::chrono::nanoseconds waited{0};
    for (;;) {
      if (ready()) return;
      if (alarmed()) fail(call, failure_of_world());
      std::optional<Failure> failure = trouble(waited >= call.deadline);
      if (ready()) return;  // it came while we looked
      if (failure) fail(call, std::move(*failure));
      const auto nap = std::clamp<std::chrono::nanoseconds>(call.deadline - waited, 1us, 50ms);
      bell.sleep([&] { return ready() || alarmed(); }, nap);
      // A nap that took much longer than it should: the machine stood still, and the peers with it.
      const auto now = Clock::now();
      waited += std::min<std::chrono::nanoseconds>(now - before, nap + 100ms);
      before = now;
    }
  }

  void check_alive(const Call& call) {
    if (hub_->failed() || world_->failed()) [[unlikely]]
      fail(call, failure_of_world());
  }
  Failure failure_of_world() const {
    const int rank = world_->failed_rank();
    return {Fault::peer_failed, rank,
            rank < 0 ? std::string() : "rank " + std::to_string(rank) + " failed: " + world_->failure()};
  }

  [[noreturn]] void fail(const Call& call, Failure failure) {
    hub_->fail(std::move(failure));
    throw_failure(call);
  }
  [[noreturn]] void throw_failure(const Call& call) {
    withdraw();
    world_->blame(world_rank(rank_), hub_->failure().rank);
    throw error_of(hub_->failure(), call);
  }
  // The caller's buffers go away with the exception. Peers that began to read or write them before the group failed end
  // soon; none begins after.
  void withdraw() {
    for (int r = 0; r < world_size(); ++r) {
      while (r != rank_ && hub_->slot(r).touching.load(std::memory_order_seq_cst)) std::this_thread::yield();
    }
  }

  void leave() noexcept {
    if (!hub_) return;
    hub_->slot(rank_).left.store(std::uncaught_exceptions() > 0 ? 2 : 1, std::memory_order_seq_cst);
    hub_->ring();
    hub_.reset();
  }

  int rank_ = 0;
  std::shared_ptr<World> world_;
  std::shared_ptr<ThreadsHub> hub_;
  std::vector<std::uint64_t> sent_, received_;  // messages to and from each peer
  std::vector<const std::byte*> inputs_;        // of all ranks, for a reduction
  std::vector<std::byte*> outputs_;
  std::uint64_t stage_ = 0;  // stages passed, or being passed
  std::uint64_t calls_ = 0;
  bool counts_waits_ = false;
  std::chrono::nanoseconds waited_{0};  // for peers, while it is counted
};

}  // namespace troika
