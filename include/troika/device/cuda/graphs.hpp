// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <utility>

namespace troika {

class CudaDevice;
namespace cuda {
class Graphs;  // src/device/cuda/graphs.hpp
}

// The decode steps of one model on one device, each given to the GPU as a CUDA graph: one launch instead of hundreds.
// The graph of a step is captured anew each time, so that nothing in it has to stay as it was, and the executable one of
// the step before is updated by it; only where their nodes differ is one made.
//
// Each step that is given as it comes shows whether the host waits for the device in it, or gives work to it that cannot
// be captured, as NCCL's: where it does, the next one is given as it comes, too, unless CudaOptions::graphs says otherwise.
class CudaGraphs {
 public:
  explicit CudaGraphs(CudaDevice& device);
  CudaGraphs(CudaGraphs&&) noexcept;
  CudaGraphs& operator=(CudaGraphs&&) noexcept;
  ~CudaGraphs();

  // step(), whose work is launched before this returns. All ranks call it together. Devices that wait for each other in
  // a graph start it only after meet(): making a graph may wait for what runs on a device.
  template <class Step, class Meet>
  auto run(Step&& step, Meet&& meet) {
    const Scope scope{*this};
    auto result = step();
    if (prepare()) meet();
    launch();
    return result;
  }

 private:
  struct Scope {
    explicit Scope(CudaGraphs& of) : graphs(of) { graphs.begin(); }
    ~Scope() { graphs.end(); }
    CudaGraphs& graphs;
  };

  void begin();
  bool prepare();
  void launch();
  void end() noexcept;

  std::unique_ptr<cuda::Graphs> graphs_;
};

}  // namespace troika
