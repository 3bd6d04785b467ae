// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include <troika/communication/rank.hpp>
#include <troika/communication/transport.hpp>
#include <troika/communication/waiting.hpp>

#if defined(__linux__)
#include <sched.h>
#endif

namespace troika {

struct ThreadsOptions {
  // Messages up to this size are copied through a staging buffer.
  std::size_t staged_bytes = 16 * 1024;
  std::size_t staged_bytes_spinning = 512;  // the same where every rank has a core, and waiting is cheap
  int spins = 2000;  // rounds of looking before a waiting rank sleeps, where every rank has a core
  int yields = 4;    // the same where ranks share cores: each round lets another thread run
};

// What the ranks of one group share. A rank writes only its own slot; the peers read it after they have seen its stage.
//
// The ranks go through the same stages: each collective is one stage, or two. A rank publishes its stage when it
// arrives, and goes on when all peers have published theirs. What belongs to a call lies in the post of the call's
// parity: a rank that is two calls ahead has passed a stage that all others reached only after they were done with the
// earlier one.
class ThreadsHub : public World::Alarm {
 public:
  // One cache line that tells the peers everything: where this rank is, what it called, where its data is.
  struct alignas(64) Post {
    std::atomic<std::uint64_t> stage{0};
    Signature signature{};
    const std::byte* in = nullptr;
    std::byte* out = nullptr;
    bool staged = false;  // `in` is in the staging buffer
  };

  // A message from one rank to another, by rendezvous.
  struct alignas(64) Mailbox {
    std::atomic<std::uint64_t> posted{0};  // messages so far
    std::atomic<std::uint64_t> taken{0};
    Signature signature{};
    const std::byte* data = nullptr;
  };

  struct alignas(128) Slot {
    Post posts[2];
    // This rank reads or writes memory of its peers. A rank that gives up takes its buffers away only when nobody does.
    alignas(64) std::atomic<bool> touching{false};
    std::atomic<int> left{0};        // 1: returned; 2: by an exception
    std::atomic<int> waits_for{-1};  // the peer of the message that this rank waits for
    Bell message;                    // rings when a message to or from this rank is posted or taken
    int color = 0, key = 0;          // of a split, and the group that came out of it
    std::shared_ptr<ThreadsHub> group;
  };

  ThreadsHub(std::vector<int> world_ranks, ThreadsOptions options, bool may_spin = false)
      : world_ranks_(std::move(world_ranks)),
        options_(options),
        slots_(world_ranks_.size()),
        mailboxes_(world_ranks_.size() * world_ranks_.size()),
        may_spin_(may_spin) {
    // all_to_all stages its counts, two a peer.
    staging_size_ = (std::max(options.staged_bytes, 2 * sizeof(std::size_t) * world_ranks_.size()) + 127) / 128 * 128;
    staging_.reset(static_cast<std::byte*>(::operator new(2 * staging_size_ * world_ranks_.size(), alignment)));
  }

  int world_size() const { return static_cast<int>(world_ranks_.size()); }
  int world_rank(int rank) const { return world_ranks_[static_cast<std::size_t>(rank)]; }
  const ThreadsOptions& options() const { return options_; }
  Slot& slot(int rank) { return slots_[static_cast<std::size_t>(rank)]; }
  Post& post(int rank, unsigned parity) { return slot(rank).posts[parity]; }
  Mailbox& mailbox(int from, int to) {
    return mailboxes_[static_cast<std::size_t>(from) * world_ranks_.size() + static_cast<std::size_t>(to)];
  }
  std::byte* staging(int rank, unsigned parity) {
    return staging_.get() + (2 * static_cast<std::size_t>(rank) + parity) * staging_size_;
  }

  Bell& stages() { return stages_; }
  void ring(int = -1) noexcept override {
    full_fence();
    stages_.ring();
    for (auto& slot : slots_) slot.message.ring();
  }

  // Spinning helps only where every rank has a core of its own. Known once all ranks have connected.
  bool may_spin() const { return may_spin_.load(std::memory_order_relaxed); }
  // Counts this rank in; gives how many have connected.
  int connected() {
    std::lock_guard lock(mutex_);
#if defined(__linux__)
    cpu_set_t mine;
    CPU_ZERO(&mine);
    if (sched_getaffinity(0, sizeof mine, &mine) == 0) CPU_OR(&cores_, &cores_, &mine);
    const int cores = CPU_COUNT(&cores_);
#else
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
#endif
    if (++connected_ == world_size()) may_spin_.store(world_size() <= cores, std::memory_order_relaxed);
    return connected_;
  }

  bool failed() const noexcept { return failed_.load(std::memory_order_seq_cst); }
  // The first failure stays; all ranks of the group report it.
  void fail(Failure failure) {
    {
      std::lock_guard lock(mutex_);
      if (failed()) return;
      failure_ = std::move(failure);
      failed_.store(true, std::memory_order_seq_cst);
    }
    ring();
  }
  const Failure& failure() const { return failure_; }  // once failed()

 private:
  static constexpr std::align_val_t alignment{128};
  struct Free {
    void operator()(std::byte* data) const { ::operator delete(data, alignment); }
  };

  std::vector<int> world_ranks_;
  ThreadsOptions options_;
  std::vector<Slot> slots_;
  std::vector<Mailbox> mailboxes_;
  std::size_t staging_size_ = 0;
  std::unique_ptr<std::byte, Free> staging_;

  alignas(64) Bell stages_;
  std::atomic<bool> failed_{false};
  std::atomic<bool> may_spin_;
  std::mutex mutex_;
  Failure failure_;
  int connected_ = 0;
#if defined(__linux__)
  cpu_set_t cores_ = [] {
    cpu_set_t none;
    CPU_ZERO(&none);
    return none;
  }();
#endif
};

}  // namespace troika
