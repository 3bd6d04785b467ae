// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <troika/communication/peer.hpp>

#include "kernels.hpp"
#include "processes.hpp"

namespace troika {

// What a rank has of its group: memory that all reach, and theirs.
//
// Its memory is one block: the signals of the group, those of each pair of ranks, then what others read: `in`, and
// `staging`, which kernels write to.
class PeerGroup : public StreamGuard {
 public:
  PeerGroup(const Call& call, DeviceSite at, const PeerOptions& options);
  ~PeerGroup() override;

  DeviceSite site;

  PeerCard card() const;
  // `meet`: returns when all ranks have called it. Theirs is the memory that is given back after the last meeting.
  void connect(std::span<const PeerCard> cards, std::function<void()> meet);
  void check(const Call& call);
  // Of StreamGuard: whoever waits for the stream must not take what is there for a result.
  void check() override;

  // All ranks, or this one and a peer.
  cuda::PeerPlace all(const Call& call) const { return with_patience(call, everyone_); }
  cuda::PeerPlace pair(const Call& call, int peer) const {
    return with_patience(call, pairs_[static_cast<std::size_t>(peer)]);
  }
  std::size_t capacity() const { return capacity_; }
  std::size_t one_shot_bytes() const { return one_shot_bytes_; }

  void copy(const std::byte* from, std::byte* to, std::size_t bytes);
  // Where a kernel may write what is meant for `out`, and what is left to do then: kernels write at multiples of 16.
  static std::byte* reachable(std::byte* out, std::byte* instead) {
    return reinterpret_cast<std::uintptr_t>(out) % 16 == 0 ? out : instead;
  }

 private:
  std::size_t signals(int set) const { return static_cast<std::size_t>(set) * cuda::peer_signal_bytes(); }
  cuda::PeerPlace place(std::span<const PeerCard> cards, std::span<const int> members, std::span<const int> sets,
                        int report) const;
  cuda::PeerPlace with_patience(const Call& call, cuda::PeerPlace place) const;
  void enable(std::span<const PeerCard> cards) const;
  void reach(std::span<const PeerCard> cards);
  void load_kernels() const;
  bool find_late();

  std::size_t capacity_, one_shot_bytes_;
  CudaDevice::Buffer memory_;
  CudaDevice::HostBuffer reports_;    // by which kernels say who did not come: to the group, to each pair
  std::vector<OpenedMemory> opened_;  // of other processes
  std::vector<std::byte*> memories_;  // of each rank, as this process reaches it
  std::function<void()> meet_;        // where others have the memory of this one open
  cuda::PeerPlace everyone_;
  std::vector<cuda::PeerPlace> pairs_;  // with each rank
  Call last_{};
};

}  // namespace troika
