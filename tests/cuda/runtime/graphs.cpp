// SPDX-License-Identifier: Apache-2.0
// Capture and graphs of the recorded runtime.
#include <cuda_runtime.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "calls.hpp"
#include "driver.hpp"

using namespace troika::recording::calls;
using troika::recording::Driver;
using troika::recording::Node;

struct CUgraph_st {
  std::vector<Node> nodes;
};
struct CUgraphExec_st {
  std::vector<Node> nodes;
};

namespace {

thread_local cudaStreamCaptureMode mode_of_thread = cudaStreamCaptureModeGlobal;

template <class T>
cudaError_t destroy(T* object, const char* kind) {
  return last_call([&](Driver& driver, auto&) {
    delete object;
    driver.count(kind, -1);
    return cudaSuccess;
  });
}

}  // namespace

bool Driver::forbidden(const char* call) {
  if (mode_of_thread == cudaStreamCaptureModeRelaxed) return false;
  const auto found = std::ranges::find_if(streams, [](const Stream& stream) {
    return stream.capture && stream.capture->thread == std::this_thread::get_id();
  });
  if (found == streams.end()) return false;
  found->capture->invalid = true;
  problem(std::string(call) + " by a thread that captures");
  return true;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, mode_of_thread);
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return stream_call(stream, [&](Driver& driver, auto&, auto& known) {
    if (driver.is_capturing(known, "cudaStreamBeginCapture")) return cudaErrorStreamCaptureUnsupported;
    if (mode != cudaStreamCaptureModeThreadLocal) return wrong(driver, "a capture that forbids calls of other threads");
    known.capture = troika::recording::Capture{std::this_thread::get_id()};
    driver.count("captures", 1);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  bool ended = false;
  const cudaError_t error = last_call([&](Driver& driver, auto&) {
    auto* const known = driver.find(stream);
    if (!known) return cudaErrorInvalidResourceHandle;
    if (!known->capture) return wrong(driver, "cudaStreamEndCapture of a stream that is not captured");
    if (known->capture->thread != std::this_thread::get_id()) {
      driver.problem("cudaStreamEndCapture by another thread than began");
      return cudaErrorStreamCaptureWrongThread;
    }
    auto capture = std::move(*known->capture);
    known->capture.reset();
    driver.count("captures", -1);
    if (capture.invalid) return cudaErrorStreamCaptureInvalidated;
    *graph = new CUgraph_st{std::move(capture.nodes)};
    ended = true;
    return cudaSuccess;
  });
  if (error != cudaSuccess && ended) {  // it was made to fail
    delete std::exchange(*graph, nullptr);
  } else if (ended) {
    const std::lock_guard lock(Driver::current->mutex);
    Driver::current->count("graphs", 1);
  }
  return error;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, std::size_t* count) {
  return call([&](Driver&, auto&) {
    *count = graph->nodes.size();
    return cudaSuccess;
  });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return destroy(graph, "graphs"); }

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  return call(
      [&](Driver& driver, auto&) {
        if (driver.forbidden("cudaGraphInstantiate")) return cudaErrorStreamCaptureUnsupported;
        *executable = new CUgraphExec_st{graph->nodes};
        driver.count("executable graphs", 1);
        ++driver.graphs_made;
        return cudaSuccess;
      },
      cudaErrorMemoryAllocation);
}

// What is running keeps what it was launched with.
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph, cudaGraphExecUpdateResultInfo*) {
  return call([&](Driver&, auto&) {
    const auto alike = [](const Node& a, const Node& b) { return a.kind == b.kind && !a.fixed && !b.fixed; };
    if (!std::ranges::equal(executable->nodes, graph->nodes, alike)) return cudaErrorGraphExecUpdateFailure;
    executable->nodes = graph->nodes;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t stream) {
  return stream_call(stream, [&](Driver& driver, auto&, auto& known) {
    if (known.finished != known.given) driver.problem("a graph is uploaded behind work that may wait for other GPUs");
    return driver.is_capturing(known, "cudaGraphUpload") ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
  });
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return stream_call(stream, [&](Driver& driver, auto&, auto& known) {
    if (driver.is_capturing(known, "cudaGraphLaunch")) return cudaErrorStreamCaptureUnsupported;
    ++driver.graph_launches;
    for (const Node& node : executable->nodes) node.give(driver, known);
    return cudaSuccess;
  });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return destroy(executable, "executable graphs"); }
