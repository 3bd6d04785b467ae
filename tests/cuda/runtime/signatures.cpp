// SPDX-License-Identifier: Apache-2.0
// The names, values and signatures of the CUDA runtime that src/device/cuda is written against. Compiled twice: with the
// stand-ins of this folder, and where nvcc is, with NVIDIA's headers (tests/kernels/nvcc).
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

static_assert(cudaSuccess == 0 && cudaErrorInvalidValue == 1 && cudaErrorMemoryAllocation == 2);
static_assert(cudaErrorInvalidConfiguration == 9 && cudaErrorInsufficientDriver == 35 && cudaErrorNoDevice == 100);
static_assert(cudaErrorInvalidDevice == 101 && cudaErrorInvalidResourceHandle == 400 && cudaErrorNotReady == 600);
static_assert(cudaErrorPeerAccessAlreadyEnabled == 704 && cudaErrorLaunchFailure == 719 && cudaErrorUnknown == 999);
static_assert(cudaErrorStreamCaptureUnsupported == 900 && cudaErrorStreamCaptureInvalidated == 901);
static_assert(cudaErrorStreamCaptureIsolation == 905 && cudaErrorStreamCaptureWrongThread == 908);
static_assert(cudaErrorGraphExecUpdateFailure == 910);
static_assert(cudaStreamCaptureModeGlobal == 0 && cudaStreamCaptureModeThreadLocal == 1 &&
              cudaStreamCaptureModeRelaxed == 2);
static_assert(cudaMemcpyHostToHost == 0 && cudaMemcpyHostToDevice == 1 && cudaMemcpyDeviceToHost == 2);
static_assert(cudaMemcpyDeviceToDevice == 3 && cudaMemcpyDefault == 4 && cudaDevAttrMultiProcessorCount == 16);
static_assert(cudaStreamNonBlocking == 1 && cudaEventDisableTiming == 2 && cudaHostAllocPortable == 1);
static_assert(cudaIpcMemLazyEnablePeerAccess == 1 && sizeof(cudaIpcMemHandle_t) == 64 && sizeof(cudaUUID_t) == 16);

namespace {

using std::size_t;

// Each is a function of that type, or one of its overloads is.
[[maybe_unused]] void check() {
  const auto is = [](auto) {};
  is(static_cast<cudaError_t (*)(int*)>(cudaGetDeviceCount));
  is(static_cast<cudaError_t (*)(int)>(cudaSetDevice));
  is(static_cast<cudaError_t (*)(int*)>(cudaGetDevice));
  is(static_cast<cudaError_t (*)(int*, cudaDeviceAttr, int)>(cudaDeviceGetAttribute));
  is(static_cast<cudaError_t (*)(char*, int, int)>(cudaDeviceGetPCIBusId));
  is(static_cast<cudaError_t (*)(int*, int, int)>(cudaDeviceCanAccessPeer));
  is(static_cast<cudaError_t (*)(int, unsigned)>(cudaDeviceEnablePeerAccess));
  is(static_cast<cudaError_t (*)()>(cudaGetLastError));
  is(static_cast<cudaError_t (*)(cudaDeviceProp*, int)>(cudaGetDeviceProperties));
  is(static_cast<cudaError_t (*)(cudaIpcMemHandle_t*, void*)>(cudaIpcGetMemHandle));
  is(static_cast<cudaError_t (*)(void**, cudaIpcMemHandle_t, unsigned)>(cudaIpcOpenMemHandle));
  is(static_cast<cudaError_t (*)(void*)>(cudaIpcCloseMemHandle));
  is(static_cast<const char* (*)(cudaError_t)>(cudaGetErrorName));
  is(static_cast<const char* (*)(cudaError_t)>(cudaGetErrorString));
  is(static_cast<cudaError_t (*)(void**, size_t)>(cudaMalloc));
  is(static_cast<cudaError_t (*)(void*)>(cudaFree));
  is(static_cast<cudaError_t (*)(size_t*, size_t*)>(cudaMemGetInfo));
  is(static_cast<cudaError_t (*)(void**, size_t, unsigned)>(cudaHostAlloc));
  is(static_cast<cudaError_t (*)(void*)>(cudaFreeHost));
  is(static_cast<cudaError_t (*)(int*, int*)>(cudaDeviceGetStreamPriorityRange));
  is(static_cast<cudaError_t (*)(cudaStream_t*, unsigned)>(cudaStreamCreateWithFlags));
  is(static_cast<cudaError_t (*)(cudaStream_t*, unsigned, int)>(cudaStreamCreateWithPriority));
  is(static_cast<cudaError_t (*)(cudaStream_t)>(cudaStreamDestroy));
  is(static_cast<cudaError_t (*)(cudaStream_t)>(cudaStreamSynchronize));
  is(static_cast<cudaError_t (*)(cudaStream_t)>(cudaStreamQuery));
  is(static_cast<cudaError_t (*)(cudaStream_t, cudaEvent_t, unsigned)>(cudaStreamWaitEvent));
  is(static_cast<cudaError_t (*)(cudaEvent_t*, unsigned)>(cudaEventCreateWithFlags));
  is(static_cast<cudaError_t (*)(cudaEvent_t)>(cudaEventDestroy));
  is(static_cast<cudaError_t (*)(cudaEvent_t, cudaStream_t)>(cudaEventRecord));
  is(static_cast<cudaError_t (*)(cudaEvent_t)>(cudaEventSynchronize));
  is(static_cast<cudaError_t (*)(cudaEvent_t)>(cudaEventQuery));
  is(static_cast<cudaError_t (*)(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t)>(cudaMemcpyAsync));
  is(static_cast<cudaError_t (*)(void*, size_t, const void*, size_t, size_t, size_t, cudaMemcpyKind, cudaStream_t)>(
      cudaMemcpy2DAsync));
  is(static_cast<cudaError_t (*)(void*, int, size_t, cudaStream_t)>(cudaMemsetAsync));
  is(static_cast<cudaError_t (*)(cudaStream_t, cudaStreamCaptureMode)>(cudaStreamBeginCapture));
  is(static_cast<cudaError_t (*)(cudaStream_t, cudaGraph_t*)>(cudaStreamEndCapture));
  is(static_cast<cudaError_t (*)(cudaStreamCaptureMode*)>(cudaThreadExchangeStreamCaptureMode));
  is(static_cast<cudaError_t (*)(cudaGraph_t, cudaGraphNode_t*, size_t*)>(cudaGraphGetNodes));
  is(static_cast<cudaError_t (*)(cudaGraph_t)>(cudaGraphDestroy));
  is(static_cast<cudaError_t (*)(cudaGraphExec_t*, cudaGraph_t, unsigned long long)>(cudaGraphInstantiate));
  is(static_cast<cudaError_t (*)(cudaGraphExec_t, cudaGraph_t, cudaGraphExecUpdateResultInfo*)>(cudaGraphExecUpdate));
  is(static_cast<cudaError_t (*)(cudaGraphExec_t, cudaStream_t)>(cudaGraphUpload));
  is(static_cast<cudaError_t (*)(cudaGraphExec_t, cudaStream_t)>(cudaGraphLaunch));
  is(static_cast<cudaError_t (*)(cudaGraphExec_t)>(cudaGraphExecDestroy));
}

}  // namespace

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>

static_assert(CUBLAS_STATUS_SUCCESS == 0 && CUBLAS_STATUS_NOT_INITIALIZED == 1 && CUBLAS_STATUS_ALLOC_FAILED == 3);
static_assert(CUBLAS_STATUS_INVALID_VALUE == 7 && CUBLAS_STATUS_NOT_SUPPORTED == 15);
static_assert(CUBLAS_OP_N == 0 && CUBLAS_OP_T == 1 && CUDA_R_32F == 0 && CUDA_R_16F == 2 && CUDA_R_16BF == 14);
static_assert(CUBLAS_COMPUTE_32F == 68 && CUBLAS_COMPUTE_32F_FAST_TF32 == 77);
static_assert(CUBLASLT_EPILOGUE_DEFAULT == 1 && CUBLASLT_EPILOGUE_BIAS == 4);
static_assert(CUBLASLT_MATMUL_DESC_TRANSA == 3 && CUBLASLT_MATMUL_DESC_TRANSB == 4);
static_assert(CUBLASLT_MATMUL_DESC_EPILOGUE == 7 && CUBLASLT_MATMUL_DESC_BIAS_POINTER == 8);
static_assert(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES == 1 && CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES == 5);
static_assert(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES == 6 && CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES == 7);
static_assert(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES == 8);
static_assert(sizeof(cublasLtMatmulAlgo_t) == 64 && sizeof(cublasLtMatmulHeuristicResult_t) == 96);

namespace {

[[maybe_unused]] void check_products() {
  const auto is = [](auto) {};
  using Operation = cublasLtMatmulDesc_t;
  using Layout = cublasLtMatrixLayout_t;
  using Preference = cublasLtMatmulPreference_t;
  is(static_cast<const char* (*)(cublasStatus_t)>(cublasLtGetStatusString));
  is(static_cast<cublasStatus_t (*)(cublasLtHandle_t*)>(cublasLtCreate));
  is(static_cast<cublasStatus_t (*)(cublasLtHandle_t)>(cublasLtDestroy));
  is(static_cast<cublasStatus_t (*)(Operation*, cublasComputeType_t, cudaDataType_t)>(cublasLtMatmulDescCreate));
  is(static_cast<cublasStatus_t (*)(Operation)>(cublasLtMatmulDescDestroy));
  is(static_cast<cublasStatus_t (*)(Operation, cublasLtMatmulDescAttributes_t, const void*, size_t)>(
      cublasLtMatmulDescSetAttribute));
  is(static_cast<cublasStatus_t (*)(Layout*, cudaDataType, std::uint64_t, std::uint64_t, std::int64_t)>(
      cublasLtMatrixLayoutCreate));
  is(static_cast<cublasStatus_t (*)(Layout)>(cublasLtMatrixLayoutDestroy));
  is(static_cast<cublasStatus_t (*)(Preference*)>(cublasLtMatmulPreferenceCreate));
  is(static_cast<cublasStatus_t (*)(Preference)>(cublasLtMatmulPreferenceDestroy));
  is(static_cast<cublasStatus_t (*)(Preference, cublasLtMatmulPreferenceAttributes_t, const void*, size_t)>(
      cublasLtMatmulPreferenceSetAttribute));
  is(static_cast<cublasStatus_t (*)(cublasLtHandle_t, Operation, Layout, Layout, Layout, Layout, Preference, int,
                                    cublasLtMatmulHeuristicResult_t*, int*)>(cublasLtMatmulAlgoGetHeuristic));
  is(static_cast<cublasStatus_t (*)(cublasLtHandle_t, Operation, const void*, const void*, Layout, const void*, Layout,
                                    const void*, const void*, Layout, void*, Layout, const cublasLtMatmulAlgo_t*, void*,
                                    size_t, cudaStream_t)>(cublasLtMatmul));
}

}  // namespace
#endif
