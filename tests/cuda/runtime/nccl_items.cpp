// SPDX-License-Identifier: Apache-2.0
#include "nccl_items.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <span>
#include <utility>

#include <troika/communication/reduce.hpp>

namespace troika::recorded_nccl {

DType dtype_of(ncclDataType_t type) {
  switch (type) {
    case ncclFloat16: return DType::f16;
    case ncclBfloat16: return DType::bf16;
    case ncclInt32: return DType::i32;
    case ncclInt8: return DType::i8;
    case ncclUint8: return DType::u8;
    default: return DType::f32;
  }
}

namespace {

// The items that can only be done together with this rank's; empty while one of them has not been come to.
std::vector<ncclComm*> company(ncclComm& first, const std::vector<ncclComm*>& members) {
  std::vector<bool> in(members.size());
  std::vector<ncclComm*> found{&first};
  in[static_cast<std::size_t>(first.rank)] = true;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (!found[i]->head || found[i]->head->hangs || !found[i]->alive) return {};
    const auto add = [&](int rank) {
      const auto index = static_cast<std::size_t>(rank);
      if (!in[index]) found.push_back(members[index]);
      in[index] = true;
    };
    for (const Op& op : found[i]->head->ops) {
      if (op.is_message())
        add(op.root);
      else
        for (int r = 0; r < first.ranks; ++r) add(r);
    }
  }
  return found;
}

void run_collective(const std::vector<Op>& of_ranks) {
  const Op& op = of_ranks[0];
  const DType dtype = dtype_of(op.type);
  const std::size_t bytes = op.count * size_of(dtype), n = of_ranks.size();
  const Reduction reduction = op.reduction == ncclMax ? Reduction::max : Reduction::sum;
  std::vector<const std::byte*> in;
  for (const Op& one : of_ranks) in.push_back(static_cast<const std::byte*>(one.in));
  std::vector<std::byte> result(bytes * (op.kind == Kind::all_gather || op.kind == Kind::reduce_scatter ? n : 1));
  std::byte* data = result.data();
  switch (op.kind) {
    case Kind::all_gather:
      for (std::size_t r = 0; r < n; ++r) std::memcpy(data + r * bytes, in[r], bytes);
      break;
    case Kind::broadcast: std::memcpy(data, in[static_cast<std::size_t>(op.root)], bytes); break;
    default: reduce(dtype, reduction, in, std::span(&data, 1), 0, result.size() / size_of(dtype)); break;
  }
  for (std::size_t r = 0; r < n; ++r) {
    if (op.kind == Kind::reduce && static_cast<int>(r) != op.root) continue;
    if (op.kind == Kind::reduce_scatter)
      std::memcpy(of_ranks[r].out, data + r * bytes, bytes);
    else
      std::memcpy(of_ranks[r].out, data, result.size());
  }
}

// Everything that these ranks' items hold, in order. False, with a violation, where they do not fit together.
bool run(const std::vector<ncclComm*>& ranks, std::string& violation) {
  std::vector<std::vector<Op>> collectives, messages;
  std::map<std::pair<int, int>, std::vector<Op>> sent;
  for (const ncclComm* comm : ranks) {
    auto& mine = collectives.emplace_back();
    for (const Op& op : comm->head->ops) {
      if (!op.is_message()) mine.push_back(op);
      if (op.kind == Kind::send) {
        Op copy = op;
        sent[{comm->rank, op.root}].push_back(copy);
      }
    }
  }
  for (std::size_t r = 1; r < collectives.size(); ++r) {
    bool same = collectives[r].size() == collectives[0].size();
    for (std::size_t i = 0; same && i < collectives[r].size(); ++i)
      same = collectives[r][i].same_call(collectives[0][i]);
    if (same) continue;
    violation = ("ranks called different collectives: " +
                 (collectives[0].empty() ? std::string("none") : collectives[0][0].text()) + " and " +
                 (collectives[r].empty() ? std::string("none") : collectives[r][0].text()));
    return false;
  }
  // Messages first into memory of their own: a rank may receive where it sends from only after all was sent.
  std::vector<std::pair<const Op*, std::vector<std::byte>>> arriving;
  for (const ncclComm* comm : ranks) {
    std::map<int, std::size_t> taken;
    for (const Op& op : comm->head->ops) {
      if (op.kind != Kind::recv) continue;
      const auto& from = sent[{op.root, comm->rank}];
      const std::size_t which = taken[op.root]++;
      if (which >= from.size() || from[which].count != op.count || from[which].type != op.type) {
        violation = ("rank " + std::to_string(comm->rank) + " receives what rank " + std::to_string(op.root) +
                     " does not send: " + op.text());
        return false;
      }
      const auto* data = static_cast<const std::byte*>(from[which].in);
      arriving.emplace_back(&op, std::vector<std::byte>(data, data + op.count * size_of(dtype_of(op.type))));
    }
  }
  for (const auto& [op, data] : arriving) std::memcpy(op->out, data.data(), data.size());
  // Of a group, all is read before anything is written only within one call; overlaps between calls are the caller's.
  for (std::size_t i = 0; i < collectives[0].size(); ++i) {
    std::vector<Op> of_ranks(ranks.size(), collectives[0][i]);
    for (std::size_t r = 0; r < ranks.size(); ++r)
      of_ranks[static_cast<std::size_t>(ranks[r]->rank)] = collectives[r][i];
    run_collective(of_ranks);
  }
  return true;
}

}  // namespace

bool try_run(ncclComm& comm, const std::shared_ptr<Item>& item, const std::vector<ncclComm*>& members,
             std::string& violation) {
  if (item->done || !comm.alive) return true;
  comm.head = item;
  const auto ranks = company(comm, members);
  if (ranks.empty()) return false;
  if (!run(ranks, violation)) {
    for (ncclComm* one : ranks) one->head->hangs = true;
    return false;
  }
  for (ncclComm* one : ranks) {
    if (one->head->lies) {
      const auto& ops = one->head->ops;
      const auto gives = std::find_if(ops.begin(), ops.end(), [](const Op& op) { return op.out != nullptr; });
      if (gives != ops.end()) *static_cast<std::byte*>(gives->out) ^= std::byte{1};
    }
    one->head->done = true;
    one->head.reset();
    --one->outstanding;
  }
  return true;
}

}  // namespace troika::recorded_nccl
