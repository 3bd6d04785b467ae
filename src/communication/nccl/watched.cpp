// SPDX-License-Identifier: Apache-2.0
#include "watched.hpp"

#include <algorithm>
#include <exception>
#include <utility>

namespace troika::nccl {
namespace {

using namespace std::chrono_literals;

constexpr auto period = 20ms;  // between two looks of a watcher

// A nap that took much longer than it should: the machine stood still, and the peers with it.
std::chrono::nanoseconds counted(std::chrono::nanoseconds time, std::chrono::nanoseconds nap) {
  return std::min<std::chrono::nanoseconds>(time, nap + 100ms);
}

std::string in_seconds(std::chrono::nanoseconds time) {
  return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(time).count()) + " ms";
}

std::string name_of(const Call& call) {
  return std::string(to_string(call.signature.operation)) + " #" + std::to_string(call.sequence);
}

}  // namespace

Watched::Watched(DeviceSite at) : site(std::move(at)) {
  cuda::check(cudaSetDevice(site.stream.device().gpu()), "cudaSetDevice");
  for (auto& queued : calls_) {
    cuda::check(cudaEventCreateWithFlags(&queued.began, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    cuda::check(cudaEventCreateWithFlags(&queued.ended, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  }
}

void Watched::open(const Call& call, const NcclEngine::Id& id) {
  Lock lock(mutex_);
  patience_ = call.deadline;
  watcher_ = std::thread(watch, shared_from_this());
  ncclUniqueId unique;
  static_assert(sizeof unique.internal == sizeof id);
  std::copy(id.begin(), id.end(), reinterpret_cast<std::byte*>(unique.internal));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  settle(lock, call, nccl_.CommInitRankConfig(&comm_, site.world_size, unique, site.rank, &config));
}

void Watched::close(bool in_order) noexcept {
  Lock lock(mutex_);
  if (!watcher_.joinable()) return;
  if (!in_order && !site.board->failed()) {
    try {
      site.board->fail(departure(*site.world, me()));
    } catch (...) {
    }
  }
  wanted_ = in_order ? End::in_order : End::at_once;
  changed_.notify_all();
  // Twice: for what was called to be done, and for NCCL to end. A watcher that hangs in NCCL keeps what it needs.
  const bool ended = changed_.wait_for(lock, 2 * patience_ + 1s, [&] { return ended_; });
  lock.unlock();
  if (ended)
    watcher_.join();
  else
    watcher_.detach();
}

void Watched::watch(std::shared_ptr<Watched> self) {
  (void)cudaSetDevice(self->site.stream.device().gpu());
  Lock lock(self->mutex_);
  auto before = Clock::now();
  while (self->wanted_ == End::none && !self->trouble()) {
    self->changed_.wait_for(lock, period);
    const auto now = Clock::now();
    self->look(lock, counted(now - before, period));
    before = now;
  }
  self->end(lock);
}

// What the device has done, and what NCCL says of it.
void Watched::look(Lock&, std::chrono::nanoseconds since_last) {
  unchanged_ += since_last;
  bool began = false;
  while (done_ != told_) {
    const auto& queued = calls_[done_ % most_ahead];
    cudaError_t state = cudaEventQuery(queued.ended);
    if (state == cudaErrorNotReady) {
      state = cudaEventQuery(queued.began);
      began = state == cudaSuccess;
      if (began || state == cudaErrorNotReady) {
        if (unchanged_ >= queued.call.deadline) site.board->fail(late(queued, began));
        break;
      }
    }
    if (state != cudaSuccess) {
      site.board->fail({Fault::peer_failed, me(), name_of(queued.call) + ": " + cudaGetErrorString(state)});
      break;
    }
    ++done_;
    unchanged_ = 0ns;
  }
  if (done_ == told_) unchanged_ = 0ns;
  if (began != inside_) site.board->enter(me(), began ? 1 : -1);
  inside_ = began;

  ncclResult_t state = ncclSuccess;
  if (comm_ && nccl_.CommGetAsyncError(comm_, &state) == ncclSuccess && state != ncclSuccess &&
      state != ncclInProgress) {
    site.board->fail({Fault::peer_failed, state == ncclRemoteError ? -1 : me(), words(state)});
  }
}

// Whose device keeps the others waiting: the one that has not come to its collective. Unknown where all have.
Failure Watched::late(const Queued& queued, bool began) const {
  int guilty = -1;
  if (!began) {
    guilty = me();
  } else if (queued.peer >= 0) {
    guilty = site.world_ranks[static_cast<std::size_t>(queued.peer)];
  } else {
    const auto outside = [&](int rank) { return rank != me() && !site.board->is_inside(rank); };
    const auto found = std::find_if(site.world_ranks.begin(), site.world_ranks.end(), outside);
    if (found != site.world_ranks.end()) guilty = *found;
  }
  return {Fault::timeout, guilty,
          "the device of rank " + std::to_string(me()) + (began ? " waited in " : " did not come to ") +
              name_of(queued.call) + " for " + in_seconds(queued.call.deadline)};
}

void Watched::end(Lock& lock) {
  const bool in_order = wanted_ == End::in_order && !trouble() && finish(lock);
  if (const auto comm = std::exchange(comm_, nullptr)) {
    lock.unlock();  // it may hang
    if (in_order)
      nccl_.CommDestroy(comm);
    else
      nccl_.CommAbort(comm);
    lock.lock();
  }
  if (inside_) site.board->enter(me(), -1);
  ended_ = true;
  changed_.notify_all();
}

// Waits until everything is done and all ranks have come to their end. False where that does not happen.
bool Watched::finish(Lock& lock) {
  const auto wait_until = [&](auto&& done) {
    for (std::chrono::nanoseconds waited{0}; waited < patience_;) {
      if (trouble()) return false;
      if (done()) return true;
      const auto before = Clock::now();
      changed_.wait_for(lock, 1ms);
      const auto passed = counted(Clock::now() - before, 1ms);
      look(lock, passed);
      waited += passed;
    }
    return false;
  };
  if (!comm_ || !wait_until([&] { return done_ == told_; })) return false;
  ncclResult_t state = nccl_.CommFinalize(comm_);
  if (state == ncclInProgress) {
    wait_until([&] { return nccl_.CommGetAsyncError(comm_, &state) != ncclSuccess || state != ncclInProgress; });
  }
  return state == ncclSuccess;
}

void Watched::check(const Call& call) {
  if (!trouble()) [[likely]]
    return;
  Lock lock(mutex_);
  give_up(lock, call);
}

void Watched::check() {
  Lock lock(mutex_);
  if (!trouble()) return;
  const auto& queued = calls_[done_ % most_ahead];
  give_up(lock, queued.call);
}

void Watched::make_room(Lock& lock, const Call& call) {
  patience_ = call.deadline;
  if (trouble()) give_up(lock, call);
  if (told_ - done_ < most_ahead) return;
  // The watcher gives up on a call that takes too long.
  wait(lock, call, "", [&] {
    look(lock, 0ns);
    return told_ - done_ < most_ahead;
  });
}

void Watched::record(Lock& lock, const Call& call, cudaEvent_t event) {
  const cudaError_t result = cudaEventRecord(event, native_);
  if (result != cudaSuccess) {
    fail(lock, call, {Fault::peer_failed, me(), std::string("cudaEventRecord: ") + cudaGetErrorString(result)});
  }
}

// A call of a communicator that does not block goes on in NCCL's threads; until it is through, nothing else may be called.
void Watched::settle(Lock& lock, const Call& call, ncclResult_t result) {
  if (result == ncclInProgress) {
    wait(lock, call, "NCCL was still at it",
         [&] { return comm_ && (nccl_.CommGetAsyncError(comm_, &result) != ncclSuccess || result != ncclInProgress); });
  }
  if (result != ncclSuccess) fail(lock, call, {Fault::peer_failed, me(), words(result)});
}

template <class Ready>
void Watched::wait(Lock& lock, const Call& call, const std::string& what, Ready&& ready) {
  std::chrono::nanoseconds waited{0};
  for (int looks = 0; !ready(); ++looks) {
    if (trouble()) give_up(lock, call);
    if (waited >= call.deadline && !what.empty()) {
      fail(lock, call, {Fault::timeout, -1, what + " after " + in_seconds(call.deadline)});
    }
    const auto before = Clock::now();
    const auto nap = looks < 100 ? 1us : 1000us;
    if (looks < 100) {
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
    } else {
      changed_.wait_for(lock, nap);
    }
    waited += counted(Clock::now() - before, nap);
  }
}

void Watched::fail(Lock& lock, const Call& call, Failure failure) {
  site.board->fail(std::move(failure));
  give_up(lock, call);
}

// Throws once the device does not touch the caller's memory any more, as far as NCCL ends in time.
void Watched::give_up(Lock& lock, const Call& call) {
  changed_.notify_all();
  changed_.wait_for(lock, call.deadline, [&] { return ended_; });
  lock.unlock();
  const Failure& failure = site.board->failure();
  site.world->blame(me(), failure.rank);
  throw error_of(failure, call);
}

std::string Watched::words(ncclResult_t result) const {
  std::string text = std::string("NCCL: ") + nccl_.GetErrorString(result);
  const char* const more = nccl_.GetLastError(comm_);
  if (more && *more) text += std::string(" (") + more + ")";
  return text;
}

}  // namespace troika::nccl
