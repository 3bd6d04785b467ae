// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <shim/machine.hpp>

// GPUs for the host code of src/device/cuda on a machine without one. The calls of the CUDA runtime and of cuBLASLt
// (cuda_runtime.h, cublasLt.h in this folder) give work to streams, which a thread of its own does in an order that GPUs
// may choose; kernels run as fibres, all that run at once interleaved.
//
// - Device memory is not readable for the host: it is mapped without access while no work is done. New memory and the
//   margins around it hold no numbers; AddressSanitizer stops at the margins, and freeing looks at them.
// - Copies, fills and products that touch the same bytes without an event, or the host, between them are told as races,
//   whatever order they ran in. Of kernels it is not known what they touch.
// - What is captured is done when its graph is launched, as its arguments are then. A thread that captures may not wait,
//   nor ask the driver for memory; graphs are made while their stream is empty, and updated where all nodes are alike.
// - Wrong use (a stream of another GPU, memory of the wrong side, a range that no allocation holds) is an error of the
//   call, and told.
namespace troika::recording {

// When work is done: as soon as it is given, or not before somebody waits for some, so that what the host does not wait
// for has not happened when it looks.
enum class When { early, late };

struct Options {
  int gpus = 4;                                 // 0: no driver
  int without_peers = 0;                        // so many of them do not reach the memory of the others
  std::size_t memory = std::size_t{512} << 20;  // of each, in bytes
  When when = When::late;
  shim::Schedule schedule{shim::Schedule::Order::random, 1};  // of streams, and of the threads of kernels
};

// From here on the calling thread is of another process: what getpid() gives differs, and memory goes by IPC handles.
void be_process(int number);

class Driver;

// GPUs as long as it lives; one at a time. Without one there is no driver. All that was made of the runtime goes first.
class Recording {
 public:
  explicit Recording(Options options = {});
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  ~Recording();

  // The n-th call from now on, counted from 1 over all threads, fails and does nothing, but for those that free things.
  void fail(std::int64_t n);
  bool failed() const;                  // whether that call has come
  std::int64_t calls() const;           // so far
  std::int64_t launches() const;        // kernels that were started
  std::int64_t graphs_made() const;     // instantiated, so far
  std::int64_t graph_launches() const;  // so far
  // How often memory was taken from the driver or given back, so far; where this stands still, nothing is allocated.
  std::int64_t allocations() const;
  // What was made and is not destroyed: "2 streams", "1 of cudaMalloc".
  std::vector<std::string> live() const;
  // Races and wrong use, so far.
  std::vector<std::string> problems() const;

 private:
  std::unique_ptr<Driver> driver_;
};

}  // namespace troika::recording
