// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <utility>

namespace troika::cuda {

// Throws what a call of the CUDA runtime refused, or what failed before it on the GPU, as one Error that names the call:
// out_of_memory; unsupported where there is no GPU or its driver is too old; else device_failed.
void check(cudaError_t error, const char* call);

// While it lives, this thread may call what waits for a GPU, or asks the driver for memory, although it captures: that is
// no part of the graph.
class Uncaptured {
 public:
  Uncaptured() { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }
  Uncaptured(const Uncaptured&) = delete;
  Uncaptured& operator=(const Uncaptured&) = delete;
  ~Uncaptured() { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

// An event without a time. Moves only.
class Event {
 public:
  Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags"); }
  Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }
  ~Event() {
    if (event_) (void)cudaEventDestroy(event_);
  }

  void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  // Returns when what was in the stream before the last record() is done.
  void synchronize() const {
    const Uncaptured uncaptured;
    check(cudaEventSynchronize(event_), "cudaEventSynchronize");
  }
  // Whether it is; without a record(), too.
  bool done() const {
    const cudaError_t state = cudaEventQuery(event_);
    if (state == cudaErrorNotReady) return (void)cudaGetLastError(), false;
    check(state, "cudaEventQuery");
    return true;
  }
  // What `stream` is given from here on comes after what was in the other one before the last record().
  void hold(cudaStream_t stream) const { check(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent"); }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace troika::cuda
