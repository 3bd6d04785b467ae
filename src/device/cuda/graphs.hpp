// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <map>
#include <utility>

#include <troika/device/cuda/device.hpp>

#include "queue.hpp"

namespace troika::cuda {

// The executable graphs of the steps of one model on one device; CudaGraphs says what for. A step is one graph, or one
// for each piece between two waits of the host.
class Graphs {
 public:
  explicit Graphs(const CudaDevice& device) : device_(device) {}

  void begin();
  bool prepare();
  void launch();
  void end() noexcept;

  // Of the queue. Whether the step is captured, and not as one graph.
  bool captures() const { return captures_; }
  bool in_pieces() const { return captures_ && interrupted_; }
  // What it is told of while it watches: work that cannot be captured, and captured work that waits for other devices.
  void interrupt() { interrupted_ = interrupted_ || !captures_; }
  void collect() { collects_ = collects_ || !captures_; }
  // One that does what `graph` does, or null where that is nothing. Good until the next but for the same piece.
  cudaGraphExec_t executable(cudaGraph_t graph, cudaStream_t stream);

 private:
  struct Executable {
    Executable() = default;
    Executable(const Executable&) = delete;
    Executable& operator=(const Executable&) = delete;
    ~Executable() {
      if (handle) (void)cudaGraphExecDestroy(handle);
    }
    cudaGraphExec_t handle = nullptr;
  };
  static constexpr std::size_t most_kept = 1024;

  CudaDevice device_;
  bool captures_ = false, watched_ = false, interrupted_ = false, collects_ = false;
  std::size_t piece_ = 0;                                              // of this step
  std::map<std::pair<std::size_t, std::size_t>, Executable> known_{};  // by piece and number of nodes
};

}  // namespace troika::cuda
