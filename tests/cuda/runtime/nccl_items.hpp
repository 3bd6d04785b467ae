// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nccl.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include <troika/core/dtype.hpp>

// What the recorded NCCL does when streams have come to it.
namespace troika::recorded_nccl {

enum class Kind { all_reduce, all_gather, reduce_scatter, broadcast, reduce, send, recv };
inline constexpr const char* names[] = {"AllReduce", "AllGather", "ReduceScatter", "Broadcast",
                                        "Reduce",    "Send",      "Recv"};

struct Op {
  Kind kind;
  const void* in;
  void* out;
  std::size_t count;
  ncclDataType_t type;
  ncclRedOp_t reduction;
  int root;  // or peer

  bool is_message() const { return kind == Kind::send || kind == Kind::recv; }
  bool same_call(const Op& other) const {
    return kind == other.kind && count == other.count && type == other.type && reduction == other.reduction &&
           root == other.root;
  }
  std::string text() const {
    return std::string(names[static_cast<int>(kind)]) + " of " + std::to_string(count) + " of type " +
           std::to_string(type) + ", reduction " + std::to_string(reduction) + ", root " + std::to_string(root);
  }
};

// What one rank's stream does at once: a call, or a group of them.
struct Item {
  std::vector<Op> ops;
  bool hangs = false, lies = false, done = false;
};

DType dtype_of(ncclDataType_t type);

// Does the item with those of the ranks that it needs, if all have been come to. True once it is done, or its
// communicator is gone. `members`: of its communicator, by rank. Gives what does not fit together as a violation.
bool try_run(ncclComm& comm, const std::shared_ptr<Item>& item, const std::vector<ncclComm*>& members,
             std::string& violation);

}  // namespace troika::recorded_nccl

struct ncclComm {
  std::string id;
  int rank, ranks, device;
  bool alive = true, finalized = false, stalled = false;
  int polls = 0;                     // answers that it is in progress
  ncclResult_t error = ncclSuccess;  // that came later
  std::string words;
  std::shared_ptr<troika::recorded_nccl::Item> head;  // that its stream has come to
  int outstanding = 0;                                // items that are not done
};
