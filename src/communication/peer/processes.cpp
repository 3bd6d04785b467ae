// SPDX-License-Identifier: Apache-2.0
#include "processes.hpp"

#include <cuda_runtime.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <string>

#include "../../device/cuda/runtime.hpp"

namespace troika {

std::uint64_t this_process() {
  std::string name;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id") >> std::ws, name);
  struct stat space {};  // in which the number of a process is its own
  (void)stat("/proc/self/ns/pid", &space);
  return std::hash<std::string>{}(name + " " + std::to_string(space.st_ino) + " " + std::to_string(getpid()));
}

std::array<std::byte, 16> uuid_of(int gpu) {
  cudaDeviceProp properties;
  cuda::check(cudaGetDeviceProperties(&properties, gpu), "cudaGetDeviceProperties");
  std::array<std::byte, 16> uuid;
  static_assert(sizeof properties.uuid.bytes == sizeof uuid);
  std::memcpy(uuid.data(), properties.uuid.bytes, sizeof uuid);
  return uuid;
}

MemoryHandle handle_of(std::byte* memory) {
  MemoryHandle bytes{};
  cudaIpcMemHandle_t handle;
  static_assert(sizeof handle == sizeof bytes);
  if (cudaIpcGetMemHandle(&handle, memory) == cudaSuccess)
    std::memcpy(bytes.data(), &handle, sizeof handle);
  else
    (void)cudaGetLastError();  // ranks of one process need none
  return bytes;
}

OpenedMemory::OpenedMemory(int gpu, const MemoryHandle& bytes) : gpu_(gpu) {
  cudaIpcMemHandle_t handle;
  std::memcpy(&handle, bytes.data(), sizeof handle);
  void* data = nullptr;
  cuda::check(cudaSetDevice(gpu), "cudaSetDevice");
  cuda::check(cudaIpcOpenMemHandle(&data, handle, cudaIpcMemLazyEnablePeerAccess), "cudaIpcOpenMemHandle");
  data_ = static_cast<std::byte*>(data);
}

OpenedMemory::~OpenedMemory() {
  if (!data_) return;
  (void)cudaSetDevice(gpu_);
  (void)cudaIpcCloseMemHandle(data_);
}

}  // namespace troika
