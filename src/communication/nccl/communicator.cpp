// SPDX-License-Identifier: Apache-2.0
#include <troika/communication/nccl.hpp>

#include <cstring>
#include <exception>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>

#include "watched.hpp"

namespace troika {
namespace nccl {
namespace {

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return ncclFloat32;
    case DType::f16: return ncclFloat16;
    case DType::bf16: return ncclBfloat16;
    case DType::i32: return ncclInt32;
    case DType::i8: return ncclInt8;
    case DType::u8: return ncclUint8;
  }
  throw Error(Fault::unsupported, "NCCL has no type for dtype " + std::to_string(static_cast<int>(dtype)));
}

ncclRedOp_t operation_of(Reduction reduction) { return reduction == Reduction::sum ? ncclSum : ncclMax; }

// Several calls that NCCL starts as one. Whatever fails inside, the group is ended.
template <class F>
ncclResult_t grouped(const Library& nccl, F&& calls) {
  ncclResult_t result = nccl.GroupStart();
  if (result != ncclSuccess) return result;
  const auto add = [&](ncclResult_t next) {
    if (result == ncclSuccess || result == ncclInProgress) result = next;
  };
  calls(add);
  const ncclResult_t ended = nccl.GroupEnd();
  add(ended);
  return result;
}

// One rank's communicator, as long as its thread that watches it needs it.
class Communicator final : public DeviceEngine {
 public:
  Communicator(const Call& call, const NcclEngine::Id& id, DeviceSite site)
      : watched_(std::make_shared<Watched>(std::move(site))) {
    try {
      watched_->open(call, id);
    } catch (...) {
      watched_->close(false);
      throw;
    }
    watched_->site.stream.guard(watched_);
  }
  // Waits until the device has done everything and all ranks have come to the same end, up to the deadline.
  ~Communicator() override { watched_->close(std::uncaught_exceptions() == 0); }

  const DeviceSite& site() const override { return watched_->site; }
  void check(const Call& call) override { watched_->check(call); }

  void all_reduce(const Call& call, const std::byte* in, std::byte* out) override {
    const auto& s = call.signature;
    watched_->enqueue(call, -1, [&](const Library& nccl, ncclComm_t comm, cudaStream_t stream) {
      return nccl.AllReduce(in, out, s.count, type_of(s.dtype), operation_of(s.reduction), comm, stream);
    });
  }

  void all_gather(const Call& call, const std::byte* in, std::byte* out, std::span<const std::size_t> counts) override {
    const auto& s = call.signature;
    const std::size_t size = size_of(s.dtype);
    watched_->enqueue(call, -1, [&](const Library& nccl, ncclComm_t comm, cudaStream_t stream) {
      if (counts.empty()) return nccl.AllGather(in, out, s.count, type_of(s.dtype), comm, stream);
      return grouped(nccl, [&](auto&& add) {
        std::byte* to = out;
        for (int root = 0; root < site().world_size; ++root) {
          const std::size_t part = counts[static_cast<std::size_t>(root)];
          const void* const from = root == site().rank ? in : to;
          if (part > 0) add(nccl.Broadcast(from, to, part, type_of(s.dtype), root, comm, stream));
          to += part * size;
        }
      });
    });
  }

  void reduce_scatter(const Call& call, const std::byte* in, std::byte* out,
                      std::span<const std::size_t> counts) override {
    const auto& s = call.signature;
    const std::size_t size = size_of(s.dtype);
    watched_->enqueue(call, -1, [&](const Library& nccl, ncclComm_t comm, cudaStream_t stream) {
      if (counts.empty()) {
        return nccl.ReduceScatter(in, out, s.count, type_of(s.dtype), operation_of(s.reduction), comm, stream);
      }
      return grouped(nccl, [&](auto&& add) {
        const std::byte* from = in;
        for (int root = 0; root < site().world_size; ++root) {
          const std::size_t part = counts[static_cast<std::size_t>(root)];
          const auto operation = operation_of(s.reduction);
          if (part > 0) add(nccl.Reduce(from, out, part, type_of(s.dtype), operation, root, comm, stream));
          from += part * size;
        }
      });
    });
  }

  void broadcast(const Call& call, std::byte* data) override {
    const auto& s = call.signature;
    watched_->enqueue(call, -1, [&](const Library& nccl, ncclComm_t comm, cudaStream_t stream) {
      return nccl.Broadcast(data, data, s.count, type_of(s.dtype), s.root, comm, stream);
    });
  }

  void all_to_all(const Call& call, const std::byte* in, std::span<const std::size_t> send_counts, std::byte* out,
                  std::span<const std::size_t> recv_counts, std::size_t) override {
    const ncclDataType_t type = type_of(call.signature.dtype);
    const std::size_t size = size_of(call.signature.dtype);
    const auto sum = [](auto counts) { return std::accumulate(counts.begin(), counts.end(), std::size_t{0}); };
    const std::size_t in_bytes = sum(send_counts) * size, out_bytes = sum(recv_counts) * size;
    if (in_bytes == 0 && out_bytes == 0) return;
    watched_->enqueue(call, -1, [&](const Library& nccl, ncclComm_t comm, cudaStream_t stream) {
      return grouped(nccl, [&](auto&& add) {
        const std::byte* from = in;
        std::byte* to = out;
        for (int peer = 0; peer < site().world_size; ++peer) {
          const std::size_t sent = send_counts[static_cast<std::size_t>(peer)];
          const std::size_t received = recv_counts[static_cast<std::size_t>(peer)];
          if (sent > 0) add(nccl.Send(from, sent, type, peer, comm, stream));
          if (received > 0) add(nccl.Recv(to, received, type, peer, comm, stream));
          from += sent * size;
          to += received * size;
        }
      });
    });
  }

  void send(const Call& call, std::span<const std::byte> data, int peer) override {
    watched_->enqueue(call, peer, [&](const Library& nccl, ncclComm_t comm, cudaStream_t stream) {
      return nccl.Send(data.data(), call.signature.count, type_of(call.signature.dtype), peer, comm, stream);
    });
  }

  void recv(const Call& call, std::span<std::byte> buffer, int peer) override {
    watched_->enqueue(call, peer, [&](const Library& nccl, ncclComm_t comm, cudaStream_t stream) {
      return nccl.Recv(buffer.data(), call.signature.count, type_of(call.signature.dtype), peer, comm, stream);
    });
  }

 private:
  std::shared_ptr<Watched> watched_;  // the watching thread has the other one
};

}  // namespace
}  // namespace nccl

void NcclEngine::require() { nccl::library(); }

NcclEngine::Id NcclEngine::make_id() {
  ncclUniqueId unique;
  const auto& nccl = nccl::library();
  if (const auto result = nccl.GetUniqueId(&unique); result != ncclSuccess) {
    throw Error(Fault::peer_failed, std::string("ncclGetUniqueId: ") + nccl.GetErrorString(result), {-1, "connect", 0});
  }
  Id id;
  std::memcpy(id.data(), unique.internal, id.size());
  return id;
}

std::unique_ptr<DeviceEngine> NcclEngine::connect(const Call& call, const Id& id, DeviceSite site) {
  return std::make_unique<nccl::Communicator>(call, id, std::move(site));
}

}  // namespace troika
