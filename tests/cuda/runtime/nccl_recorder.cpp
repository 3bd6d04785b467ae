// SPDX-License-Identifier: Apache-2.0
#include "nccl_recorder.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>

#include "driver.hpp"
#include "nccl_items.hpp"

namespace recording = troika::recording;
using namespace troika::recorded_nccl;

namespace {

struct State {
  std::mutex mutex;
  int version = NCCL_VERSION_CODE, ids = 0;
  std::map<std::string, int> calls;
  std::map<std::pair<std::string, int>, Fate> plans;
  std::vector<std::string> violations;
  std::vector<std::unique_ptr<ncclComm>> all;  // also those that are gone: nothing gets their address again
  std::map<std::string, std::vector<ncclComm*>> cliques;
};
State& state() {
  static State only;
  return only;
}

struct Group {
  int depth = 0;
  std::vector<std::tuple<ncclComm*, cudaStream_t, Op, std::optional<Fate>>> calls;
};
thread_local Group group;

void violation(std::string text) { state().violations.push_back(std::move(text)); }

std::optional<Fate> fate_of(const std::string& function) {
  State& s = state();
  const auto found = s.plans.find({function, ++s.calls[function]});
  if (found == s.plans.end()) return std::nullopt;
  return found->second;
}

std::vector<ncclComm*>& clique(const ncclComm& comm) { return state().cliques[comm.id]; }

bool everyone_came(const ncclComm& comm) {
  const auto& members = clique(comm);
  return std::all_of(members.begin(), members.end(), [](const ncclComm* c) { return c; });
}

ncclResult_t state_of(ncclComm& comm) {
  if (comm.error != ncclSuccess) return comm.error;
  if (comm.stalled || !everyone_came(comm)) return ncclInProgress;
  if (comm.polls > 0) {
    --comm.polls;
    return ncclInProgress;
  }
  if (comm.finalized) {
    const auto& members = clique(comm);
    const bool all = std::all_of(members.begin(), members.end(),
                                 [](const ncclComm* c) { return (c->finalized || !c->alive) && c->outstanding == 0; });
    if (!all) return ncclInProgress;
  }
  return ncclSuccess;
}

// Whether a call may be made of it now.
bool usable(ncclComm* comm, const std::string& function) {
  const auto& all = state().all;
  if (std::none_of(all.begin(), all.end(), [&](const auto& c) { return c.get() == comm; })) {
    violation("nccl" + function + " of what is no communicator");
    return false;
  }
  if (!comm->alive) violation("nccl" + function + " of a communicator that was destroyed or aborted");
  return comm->alive;
}

// What was called of one communicator goes to its stream as one.
ncclResult_t start(ncclComm* comm, cudaStream_t stream, std::vector<Op> ops, std::optional<Fate> fate) {
  auto item = std::make_shared<Item>();
  item->ops = std::move(ops);
  item->hangs = fate == Fate::hangs;
  item->lies = fate == Fate::lies;
  ++comm->outstanding;
  if (fate == Fate::breaks) comm->error = ncclRemoteError;
  if (fate == Fate::stalls) comm->stalled = true;
  comm->polls = 2;
  auto& driver = *recording::Driver::current;
  const std::lock_guard lock(driver.mutex);
  auto* const known = driver.find(stream);
  if (!known) return ncclInvalidArgument;
  if (known->capture) violation("a collective is captured");
  driver.give(*known, {.step = [comm, item] {
    const std::lock_guard state_lock(state().mutex);
    std::string wrong;
    const bool done = try_run(*comm, item, clique(*comm), wrong);
    if (!wrong.empty()) violation(std::move(wrong));
    return done ? recording::Step::done : recording::Step::waited;
  }});
  for (const Op& op : item->ops) {
    const std::size_t bytes = op.count * troika::size_of(dtype_of(op.type)), n = static_cast<std::size_t>(comm->ranks);
    const bool reads = op.kind != Kind::broadcast || op.root == comm->rank;
    const bool writes = op.kind != Kind::reduce || op.root == comm->rank;
    const std::size_t in_bytes = op.kind == Kind::reduce_scatter ? n * bytes : bytes;
    const std::size_t out_bytes = op.kind == Kind::all_gather ? n * bytes : bytes;
    if (op.in && reads) driver.touch(*known, known->clock, op.in, in_bytes, false, names[static_cast<int>(op.kind)]);
    if (op.out && writes) driver.touch(*known, known->clock, op.out, out_bytes, true, names[static_cast<int>(op.kind)]);
  }
  return ncclInProgress;
}

ncclResult_t call(ncclComm* comm, cudaStream_t stream, const Op& op) {
  const std::lock_guard lock(state().mutex);
  const std::string function = names[static_cast<int>(op.kind)];
  const auto fate = fate_of(function);
  if (!usable(comm, function)) return ncclInvalidArgument;
  if (group.depth == 0 && state_of(*comm) == ncclInProgress)
    violation("nccl" + function + " while a call is in progress");
  int device = -1;
  cudaGetDevice(&device);
  if (device != comm->device) violation("nccl" + function + " from a thread whose device is another");
  if (op.is_message() ? op.root < 0 || op.root >= comm->ranks : op.root >= comm->ranks) return ncclInvalidArgument;
  if (fate == Fate::fails) return ncclSystemError;
  if (group.depth == 0) return start(comm, stream, {op}, fate);
  group.calls.emplace_back(comm, stream, op, fate);
  return ncclSuccess;
}

}  // namespace

namespace troika::recorded_nccl {

void plan(const std::string& function, int nth, Fate fate) {
  const std::lock_guard lock(state().mutex);
  state().plans[{function, state().calls[function] + nth}] = fate;
}
void reset(int version) {
  const std::lock_guard lock(state().mutex);
  state().version = version;
  state().plans.clear();
  state().violations.clear();
  state().calls.clear();
}
int calls(const std::string& function) {
  const std::lock_guard lock(state().mutex);
  return state().calls[function];
}
std::vector<std::string> violations() {
  const std::lock_guard lock(state().mutex);
  return state().violations;
}
int alive() {
  const std::lock_guard lock(state().mutex);
  const auto& all = state().all;
  return static_cast<int>(std::count_if(all.begin(), all.end(), [](const auto& comm) { return comm->alive; }));
}

}  // namespace troika::recorded_nccl

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = state().version;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const std::lock_guard lock(state().mutex);
  if (fate_of("GetUniqueId")) return ncclSystemError;
  *id = {};
  const std::string text = "recorded " + std::to_string(++state().ids);
  std::copy(text.begin(), text.end(), id->internal);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  const std::lock_guard lock(state().mutex);
  const auto fate = fate_of("CommInitRankConfig");
  if (fate == Fate::fails) return ncclSystemError;
  if (config->magic != 0xcafebeef || config->size != sizeof *config || config->blocking != 0)
    violation("ncclCommInitRankConfig with a configuration that is none, or that blocks");
  if (rank < 0 || rank >= ranks || std::strncmp(id.internal, "recorded ", 9) != 0) return ncclInvalidArgument;
  auto made = std::make_unique<ncclComm>();
  made->id = id.internal;
  made->rank = rank;
  made->ranks = ranks;
  made->polls = 3;
  made->stalled = fate == Fate::stalls;
  if (fate == Fate::breaks) made->error = ncclRemoteError;
  cudaGetDevice(&made->device);
  auto& members = state().cliques[made->id];
  members.resize(static_cast<std::size_t>(ranks));
  auto& place = members[static_cast<std::size_t>(rank)];
  if (place) return ncclInvalidUsage;
  place = made.get();
  for (ncclComm* other : members) {
    if (!other || other == place || other->device != place->device) continue;
    for (ncclComm* both : {other, place}) {
      both->error = ncclInvalidUsage;
      both->words = "Duplicate GPU detected : rank " + std::to_string(place->rank) + " and rank " +
                    std::to_string(other->rank) + " both on CUDA device " + std::to_string(place->device);
    }
  }
  *comm = place;
  state().all.push_back(std::move(made));
  return ncclInProgress;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const std::lock_guard lock(state().mutex);
  const auto fate = fate_of("CommFinalize");
  if (!usable(comm, "CommFinalize")) return ncclInvalidArgument;
  if (fate == Fate::fails) return ncclSystemError;
  comm->finalized = true;
  comm->stalled = comm->stalled || fate == Fate::stalls;
  return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const std::lock_guard lock(state().mutex);
  const auto fate = fate_of("CommDestroy");
  if (!usable(comm, "CommDestroy")) return ncclInvalidArgument;
  if (!comm->finalized || state_of(*comm) != ncclSuccess) violation("ncclCommDestroy before it was finalized");
  comm->alive = false;
  return fate == Fate::fails ? ncclSystemError : ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  {
    const std::lock_guard lock(state().mutex);
    const auto fate = fate_of("CommAbort");
    if (!usable(comm, "CommAbort")) return ncclInvalidArgument;
    comm->alive = false;
    comm->head.reset();
    if (fate != Fate::hangs) return ncclSuccess;
  }
  std::this_thread::sleep_for(std::chrono::seconds(2));
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  constexpr const char* texts[] = {"no error",
                                   "unhandled cuda error",
                                   "unhandled system error",
                                   "internal error",
                                   "invalid argument",
                                   "invalid usage",
                                   "remote process exited or there was a network error",
                                   "operation in progress"};
  return texts[result];
}

const char* ncclGetLastError(ncclComm_t comm) { return comm ? comm->words.c_str() : ""; }

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* result) {
  const std::lock_guard lock(state().mutex);
  const auto fate = fate_of("CommGetAsyncError");
  if (!usable(comm, "CommGetAsyncError")) return ncclInvalidArgument;
  *result = fate ? ncclInternalError : state_of(*comm);
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  return call(comm, stream, {Kind::all_reduce, in, out, count, type, op, -1});
}
ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  return call(comm, stream, {Kind::all_gather, in, out, count, type, ncclSum, -1});
}
ncclResult_t ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  return call(comm, stream, {Kind::reduce_scatter, in, out, count, type, op, -1});
}
ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  return call(comm, stream, {Kind::broadcast, in, out, count, type, ncclSum, root});
}
ncclResult_t ncclReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op, int root,
                        ncclComm_t comm, cudaStream_t stream) {
  return call(comm, stream, {Kind::reduce, in, out, count, type, op, root});
}
ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return call(comm, stream, {Kind::send, data, nullptr, count, type, ncclSum, peer});
}
ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return call(comm, stream, {Kind::recv, nullptr, data, count, type, ncclSum, peer});
}

ncclResult_t ncclGroupStart() {
  const std::lock_guard lock(state().mutex);
  if (fate_of("GroupStart")) return ncclSystemError;
  ++group.depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  const std::lock_guard lock(state().mutex);
  const auto fate = fate_of("GroupEnd");
  if (group.depth == 0) {
    violation("ncclGroupEnd without a group");
    return ncclInvalidUsage;
  }
  if (--group.depth > 0) return ncclSuccess;
  auto calls = std::exchange(group.calls, {});
  if (fate == Fate::fails) return ncclSystemError;
  ncclResult_t result = ncclSuccess;
  while (!calls.empty()) {
    const auto [comm, stream, first, first_fate] = calls.front();
    std::vector<Op> ops;
    auto worst = fate;
    for (const auto& [other, on, op, op_fate] : calls) {
      if (other != comm) continue;
      ops.push_back(op);
      if (op_fate) worst = op_fate;
    }
    std::erase_if(calls, [&, of = comm](const auto& entry) { return std::get<0>(entry) == of; });
    result = start(comm, stream, std::move(ops), worst);
  }
  return result;
}

}  // extern "C"
