// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

// How processes of a machine tell each other of their GPUs, and of memory there.
namespace troika {

// Another for each process, also of several containers or machines.
std::uint64_t this_process();
std::array<std::byte, 16> uuid_of(int gpu);

using MemoryHandle = std::array<std::byte, 64>;

// Of what cudaMalloc gave, from its beginning on; zeros where the system has no such handles, which nobody can open.
MemoryHandle handle_of(std::byte* memory);

// Memory of another process, which must not free it as long as this lives.
class OpenedMemory {
 public:
  // On `gpu`, which gets access to the memory's if that can be.
  OpenedMemory(int gpu, const MemoryHandle& handle);
  OpenedMemory(OpenedMemory&& other) noexcept : gpu_(other.gpu_), data_(std::exchange(other.data_, nullptr)) {}
  OpenedMemory& operator=(OpenedMemory&& other) noexcept {
    std::swap(gpu_, other.gpu_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~OpenedMemory();

  std::byte* data() const { return data_; }

 private:
  int gpu_;
  std::byte* data_ = nullptr;
};

}  // namespace troika
