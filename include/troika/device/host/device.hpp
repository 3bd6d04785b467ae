// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/device/device.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/memory.hpp>
#include <troika/device/host/system_cores.hpp>
#include <troika/device/host/team.hpp>
#include <troika/device/tensor.hpp>

namespace troika {

class HostStream;

struct HostOptions {
  std::vector<int> cores{};             // this device's cores; empty: wherever the system puts its one thread
  std::size_t memory_limit = SIZE_MAX;  // bytes; allocations past it throw out_of_memory
  Precision precision = Precision::fast;
  // The same bits on 1, 2, 4 and 8 devices and however many cores each has, and for each row of activations whatever
  // the other rows are. Prompts of models in f32 or f16 are slower, others by little.
  bool invariant = false;
  bool matrix_unit = true;  // whether products may run in AMX, where the processor has it; in bf16 this changes bits
};

// A group of CPU cores of this machine. A handle: copies share the memory pool and the team of threads.
class HostDevice {
 public:
  using Buffer = HostPool::Buffer;
  using Stream = HostStream;

  explicit HostDevice(int index = 0, HostOptions options = {})
      : index_(index),
        name_("host:" + std::to_string(index)),
        options_(std::move(options)),
        pool_(std::make_shared<HostPool>(options_.memory_limit, detail::nodes_of(options_.cores))),
        team_(std::make_shared<Team>(options_.cores)) {}

  int index() const { return index_; }
  const std::string& name() const { return name_; }
  const HostOptions& options() const { return options_; }
  Buffer allocate(std::size_t bytes) { return pool_->allocate(bytes); }
  Buffer allocate_exact(std::size_t bytes) { return pool_->allocate_exact(bytes); }
  std::size_t memory_reserved() const { return pool_->reserved(); }
  const HostPool& memory() const { return *pool_; }
  // The threads of this device. One caller at a time: the rank that owns the device.
  Team& team() { return *team_; }
  const Team& team() const { return *team_; }

 private:
  int index_;
  std::string name_;
  HostOptions options_;
  std::shared_ptr<HostPool> pool_;
  std::shared_ptr<Team> team_;
};

// Host work runs at once, in the caller's thread and its device's team.
class HostStream {
 public:
  using Device = HostDevice;

  explicit HostStream(HostDevice& device) : device_(&device) {}
  HostDevice& device() { return *device_; }
  void synchronize() {}

 private:
  HostDevice* device_;
};

static_assert(Device<HostDevice>);
static_assert(Stream<HostStream>);

template <class T>
using HostTensor = Tensor<T, HostDevice>;

}  // namespace troika
