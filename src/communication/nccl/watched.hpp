// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include <troika/communication/nccl.hpp>

#include "../../device/cuda/queue.hpp"
#include "library.hpp"

namespace troika::nccl {

// A communicator and the thread that watches it. Two threads call NCCL for it, one at a time: the rank's, and the
// watcher, which alone ends it.
class Watched : public StreamGuard, public std::enable_shared_from_this<Watched> {
 public:
  static constexpr std::size_t most_ahead = NcclEngine::most_ahead;

  explicit Watched(DeviceSite at);

  DeviceSite site;

  void open(const Call& call, const NcclEngine::Id& id);
  // The rank is done with it, `in_order` or because of an exception.
  void close(bool in_order) noexcept;

  void check(const Call& call);
  // Tells the device what enqueue(comm, stream) asks of NCCL. `peer`: the other rank of a message, else -1.
  template <class F>
  void enqueue(const Call& call, int peer, F&& function) {
    native_ = site.stream.device().queue().direct();
    Lock lock(mutex_);
    make_room(lock, call);
    record(lock, call, calls_[told_ % most_ahead].began);
    settle(lock, call, function(nccl_, comm_, native_));
    record(lock, call, calls_[told_ % most_ahead].ended);
    calls_[told_ % most_ahead].call = call;
    calls_[told_ % most_ahead].peer = peer;
    ++told_;
  }

  // Of StreamGuard: whoever waits for the stream must not take what is there for a result.
  void check() override;

 private:
  using Lock = std::unique_lock<std::mutex>;
  using Clock = std::chrono::steady_clock;
  struct Queued {
    Call call{};
    int peer = -1;
    cudaEvent_t began = nullptr, ended = nullptr;

    ~Queued() {
      if (began) (void)cudaEventDestroy(began);
      if (ended) (void)cudaEventDestroy(ended);
    }
  };
  enum class End { none, in_order, at_once };

  static void watch(std::shared_ptr<Watched> self);

  void look(Lock& lock, std::chrono::nanoseconds since_last);
  Failure late(const Queued& queued, bool began) const;
  void end(Lock& lock);
  bool finish(Lock& lock);

  void make_room(Lock& lock, const Call& call);
  void record(Lock& lock, const Call& call, cudaEvent_t event);
  void settle(Lock& lock, const Call& call, ncclResult_t result);
  template <class Ready>
  void wait(Lock& lock, const Call& call, const std::string& what, Ready&& ready);
  std::optional<Failure> trouble() { return site.board->trouble(*site.world); }
  [[noreturn]] void fail(Lock& lock, const Call& call, Failure failure);
  [[noreturn]] void give_up(Lock& lock, const Call& call);
  std::string words(ncclResult_t result) const;
  int me() const { return site.world_rank(); }

  const Library& nccl_ = library();
  cudaStream_t native_ = nullptr;        // of the call that is told
  std::chrono::nanoseconds patience_{};  // the latest deadline
  std::mutex mutex_;                     // held by who is inside NCCL; guards what follows
  std::condition_variable changed_;
  ncclComm_t comm_ = nullptr;
  std::array<Queued, most_ahead> calls_{};
  std::uint64_t told_ = 0, done_ = 0;      // calls so far
  std::chrono::nanoseconds unchanged_{0};  // since a call was done, while some are not
  bool inside_ = false;                    // as the board was told
  End wanted_ = End::none;
  bool ended_ = false;
  std::thread watcher_;
};

}  // namespace troika::nccl
