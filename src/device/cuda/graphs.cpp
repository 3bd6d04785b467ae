// SPDX-License-Identifier: Apache-2.0
#include "graphs.hpp"

#include <utility>

#include <troika/device/cuda/graphs.hpp>

namespace troika::cuda {

void Graphs::begin() {
  const auto wanted = device_.options().graphs;
  if (wanted == StepGraphs::none) return;
  // A piece is launched without a word to other ranks, so none may wait for theirs.
  captures_ = watched_ && (!interrupted_ || (wanted == StepGraphs::pieces && !collects_));
  // Those that are given as they come are watched, too: what follows a warm-up may go by another transport.
  if (!captures_) interrupted_ = collects_ = false;
  piece_ = 0;
  device_.queue().begin_step(*this);
}

bool Graphs::prepare() {
  watched_ = true;
  return device_.queue().prepare();
}

void Graphs::launch() { device_.queue().launch(); }
void Graphs::end() noexcept { device_.queue().end_step(); }

cudaGraphExec_t Graphs::executable(cudaGraph_t graph, cudaStream_t stream) {
  std::size_t nodes = 0;
  check(cudaGraphGetNodes(graph, nullptr, &nodes), "cudaGraphGetNodes");
  if (nodes == 0) return nullptr;
  if (known_.size() == most_kept) known_.clear();
  Executable& kept = known_[{piece_++, nodes}];
  if (kept.handle) {
    cudaGraphExecUpdateResultInfo why{};
    const cudaError_t updated = cudaGraphExecUpdate(kept.handle, graph, &why);
    if (updated == cudaSuccess) return kept.handle;
    if (updated != cudaErrorGraphExecUpdateFailure) check(updated, "cudaGraphExecUpdate");
    (void)cudaGetLastError();
    (void)cudaGraphExecDestroy(std::exchange(kept.handle, nullptr));
  }
  // Making one may wait for the GPU, which may wait for others, which may wait for this thread. So all is done first, and
  // the graph is brought to the GPU before others wait for it.
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  check(cudaGraphInstantiate(&kept.handle, graph, 0), "cudaGraphInstantiate");
  check(cudaGraphUpload(kept.handle, stream), "cudaGraphUpload");
  return kept.handle;
}

}  // namespace troika::cuda

namespace troika {

CudaGraphs::CudaGraphs(CudaDevice& device) : graphs_(std::make_unique<cuda::Graphs>(device)) {}
CudaGraphs::CudaGraphs(CudaGraphs&&) noexcept = default;
CudaGraphs& CudaGraphs::operator=(CudaGraphs&&) noexcept = default;
CudaGraphs::~CudaGraphs() = default;

void CudaGraphs::begin() { graphs_->begin(); }
bool CudaGraphs::prepare() { return graphs_->prepare(); }
void CudaGraphs::launch() { graphs_->launch(); }
void CudaGraphs::end() noexcept { graphs_->end(); }

}  // namespace troika
