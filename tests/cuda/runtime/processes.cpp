// SPDX-License-Identifier: Apache-2.0
// Threads that stand for processes, and the rules of memory that they open of each other.
#include <cuda_runtime.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <string>

#include "driver.hpp"

using troika::recording::Driver;
using troika::recording::Memory;

namespace {

thread_local int this_process = 0;

// What is in a handle.
struct Exported {
  int process;
  void* data;
};

cudaError_t refuse(Driver& driver, const char* what) {
  driver.problem(what);
  return cudaErrorInvalidValue;
}

}  // namespace

void troika::recording::be_process(int number) { this_process = number; }

// In the place of libc's.
extern "C" pid_t getpid() noexcept { return static_cast<pid_t>(syscall(SYS_getpid)) + 10'000'000 * this_process; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  Driver& driver = *Driver::current;
  const std::lock_guard lock(driver.mutex);
  if (driver.call_fails()) return cudaErrorUnknown;
  if (device < 0 || device >= driver.options.gpus) return cudaErrorInvalidDevice;
  std::memset(properties->uuid.bytes, device + 1, sizeof properties->uuid.bytes);
  return cudaSuccess;
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* data) {
  Driver& driver = *Driver::current;
  const std::lock_guard lock(driver.mutex);
  if (driver.call_fails()) return cudaErrorUnknown;
  const auto* const block = driver.memory.at(data);
  if (!block || block->gpu == Memory::host)
    return refuse(driver, "cudaIpcGetMemHandle of what is not the beginning of memory of cudaMalloc");
  const Exported exported{this_process, data};
  *handle = {};
  std::memcpy(handle, &exported, sizeof exported);
  return cudaSuccess;
}

cudaError_t cudaIpcOpenMemHandle(void** data, cudaIpcMemHandle_t handle, unsigned flags) {
  Driver& driver = *Driver::current;
  const std::lock_guard lock(driver.mutex);
  if (driver.call_fails()) return cudaErrorUnknown;
  Exported exported{};
  std::memcpy(&exported, &handle, sizeof exported);
  const auto* const block = driver.memory.at(exported.data);
  if (flags != cudaIpcMemLazyEnablePeerAccess || !block)
    return refuse(driver, "cudaIpcOpenMemHandle of a handle that is none, or no longer");
  if (exported.process == this_process) return refuse(driver, "a process opened a handle of its own");
  int device = 0;
  (void)cudaGetDevice(&device);
  if ((device < driver.options.without_peers) != (block->gpu < driver.options.without_peers))
    return cudaErrorInvalidResourceHandle;
  driver.opened.emplace(exported.data, this_process);
  driver.count("opened handles", 1);
  *data = exported.data;
  return cudaSuccess;
}

cudaError_t cudaIpcCloseMemHandle(void* data) {
  Driver& driver = *Driver::current;
  const std::lock_guard lock(driver.mutex);
  (void)driver.call_fails();
  const auto [begin, end] = driver.opened.equal_range(data);
  const auto found = std::find_if(begin, end, [](const auto& entry) { return entry.second == this_process; });
  if (found == end) return refuse(driver, "cudaIpcCloseMemHandle of what this process has not opened");
  driver.opened.erase(found);
  driver.count("opened handles", -1);
  return cudaSuccess;
}
