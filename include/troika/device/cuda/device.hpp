// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <troika/device/condition.hpp>
#include <troika/device/cuda/graphs.hpp>
#include <troika/device/cuda/memory.hpp>
#include <troika/device/cuda/second_stream.hpp>
#include <troika/device/device.hpp>
#include <troika/device/precision.hpp>
#include <troika/device/second_stream.hpp>
#include <troika/device/tensor.hpp>

namespace troika {

class CudaStream;
class Gpus;
namespace cuda {
class Queue;  // what a device has of the CUDA runtime; src/device/cuda/queue.hpp
}

// Which decode steps are given to a GPU as graphs: none; those in which the host waits for nothing; or each piece of a
// step between two points where it does, or where a transport's work cannot be captured.
enum class StepGraphs { none, whole, pieces };

struct CudaOptions {
  std::size_t memory_limit = SIZE_MAX;  // bytes; allocations past it throw out_of_memory
  // fast: f32 weights are multiplied in TF32, others in their own type or, quantised, in bf16; attention of prompts in
  // bf16, or f16 where the cache is of it.
  Precision precision = Precision::fast;
  // The same bits on 1, 2, 4 and 8 devices, and for each row whatever other rows there are: products of any number of
  // rows are those of few, in float, and keys are not split. Prompts take many times as long. Not by NCCL, which adds
  // in an order of its own.
  bool invariant = false;
  // Devices that share each GPU, with memory and a stream each: all that several GPUs do runs on one.
  int virtual_ranks = 1;
  std::shared_ptr<const Gpus> nvml{};  // who tells of their condition; null: the driver's library, where there is one
  StepGraphs graphs = StepGraphs::whole;
  // Of products that are exchanged in parts, one beside the next: so many rows a part, 0: never. Unset: as is faster.
  std::optional<std::int64_t> overlap_rows{};
};

// A GPU, or one of those that share it. A handle: copies share memory and stream. All calls may come from any thread,
// but the work that is given to the stream comes from one at a time: the rank that owns the device.
class CudaDevice {
 public:
  using Buffer = CudaPool::Buffer;
  using HostBuffer = CudaPool::Buffer;
  using Stream = CudaStream;
  using Graphs = CudaGraphs;
  using SecondStream = CudaSecondStream;

  // Error{unsupported} without a GPU or a driver for it. `virtual_rank`: which one of those that share this GPU.
  explicit CudaDevice(int index = 0, CudaOptions options = {}, int gpu = 0, int virtual_rank = 0);

  int index() const { return index_; }
  const std::string& name() const { return name_; }  // "cuda:0"; "cuda:0/1" where several share it
  int gpu() const { return gpu_; }
  const CudaOptions& options() const { return options_; }

  Buffer allocate(std::size_t bytes);
  Buffer allocate_exact(std::size_t bytes) { return memory_->allocate_exact(bytes); }
  HostBuffer allocate_host(std::size_t bytes) { return pinned_->allocate(bytes); }
  bool holds(const void* address) const { return memory_->holds(address); }
  std::size_t memory_reserved() const { return memory_->reserved(); }
  // By NVML, so that nothing of it waits for the GPU. Of a GPU that is split (MIG) it is that of the whole.
  DeviceCondition condition() const;

  cuda::Queue& queue() const { return *queue_; }

 private:
  int index_, gpu_;
  std::string name_, bus_;
  CudaOptions options_;
  std::shared_ptr<CudaPool> memory_, pinned_;
  std::shared_ptr<cuda::Queue> queue_;
};

// Who may know that what a stream did is not what it was asked for: ranks that wait for each other on their devices, say,
// and one does not come.
class StreamGuard {
 public:
  virtual ~StreamGuard() = default;
  virtual void check() = 0;  // throws then
};

// The order in which a device works. All streams of a device are this one order.
class CudaStream {
 public:
  using Device = CudaDevice;

  explicit CudaStream(CudaDevice& device) : device_(&device) {}
  CudaDevice& device() const { return *device_; }
  // Returns when all that was given to the stream is done; throws what failed in it.
  void synchronize();
  // From here on asked by every synchronize(), as long as it lives.
  void guard(std::weak_ptr<StreamGuard> guard);
  // In a step that is given by CudaGraphs, whether it is captured or not.
  bool in_step() const;
  // Counts something that other devices will wait for, and waits where the device is far behind with what was counted.
  void keep_pace();
  // Of a step that is not one graph, what was captured so far is launched. Whether it is such a step.
  bool end_piece();
  // A cudaStream_t, for a program's own kernels; they are in this order, too.
  void* native() const;

 private:
  CudaDevice* device_;
};

static_assert(HasOwnMemory<CudaDevice> && HasSecondStream<CudaDevice>);
static_assert(Stream<CudaStream>);

template <class T>
using CudaTensor = Tensor<T, CudaDevice>;

// The GPUs that this process may use; 0 without a driver.
int cuda_device_count();

// These GPUs, by default all that there are. Numbers count what CUDA_VISIBLE_DEVICES lets the process see.
// Error{unsupported} where there is no GPU, says why; Error{invalid_argument} where one is not there, or there twice.
std::vector<int> cuda_gpus(std::vector<int> gpus = {});

// A device for each of cuda_gpus(gpus), or options.virtual_ranks for each: the ranks of the first GPU, then those of the
// second.
std::vector<CudaDevice> cuda_devices(CudaOptions options = {}, std::vector<int> gpus = {});

}  // namespace troika
