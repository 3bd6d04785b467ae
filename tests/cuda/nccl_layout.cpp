// SPDX-License-Identifier: Apache-2.0

// What troika relies on of NCCL's header. Compiled with the stand-in, and with the real one where that is found: both
// must be the same to a program.

#include <nccl.h>

#include <cstddef>

static_assert(NCCL_MAJOR == 2 && NCCL_VERSION_CODE >= 22809, "the stand-in is written after 2.28.9");
static_assert(sizeof(ncclUniqueId) == 128 && NCCL_UNIQUE_ID_BYTES == 128);
static_assert(ncclSuccess == 0 && ncclUnhandledCudaError == 1 && ncclSystemError == 2 && ncclInternalError == 3 &&
              ncclInvalidArgument == 4 && ncclInvalidUsage == 5 && ncclRemoteError == 6 && ncclInProgress == 7 &&
              ncclNumResults == 8);
static_assert(ncclSum == 0 && ncclProd == 1 && ncclMax == 2 && ncclMin == 3 && ncclAvg == 4);
static_assert(ncclInt8 == 0 && ncclUint8 == 1 && ncclInt32 == 2 && ncclFloat16 == 6 && ncclFloat32 == 7 &&
              ncclBfloat16 == 9);
static_assert(sizeof(ncclResult_t) == 4 && sizeof(ncclRedOp_t) == 4 && sizeof(ncclDataType_t) == 4);

static_assert(offsetof(ncclConfig_t, size) == 0 && offsetof(ncclConfig_t, magic) == 8 &&
              offsetof(ncclConfig_t, version) == 12 && offsetof(ncclConfig_t, blocking) == 16 &&
              offsetof(ncclConfig_t, netName) == 32 && offsetof(ncclConfig_t, commName) == 48 &&
              offsetof(ncclConfig_t, CTAPolicy) == 60 && sizeof(ncclConfig_t) >= 80);

namespace {

// The functions as troika calls them: each must take these types.
[[maybe_unused]] constexpr ncclResult_t (*init)(ncclComm_t*, int, ncclUniqueId, int,
                                                ncclConfig_t*) = ncclCommInitRankConfig;
[[maybe_unused]] constexpr ncclResult_t (*all_reduce)(const void*, void*, size_t, ncclDataType_t, ncclRedOp_t,
                                                      ncclComm_t, cudaStream_t) = ncclAllReduce;
[[maybe_unused]] constexpr ncclResult_t (*all_gather)(const void*, void*, size_t, ncclDataType_t, ncclComm_t,
                                                      cudaStream_t) = ncclAllGather;
[[maybe_unused]] constexpr ncclResult_t (*reduce_scatter)(const void*, void*, size_t, ncclDataType_t, ncclRedOp_t,
                                                          ncclComm_t, cudaStream_t) = ncclReduceScatter;
[[maybe_unused]] constexpr ncclResult_t (*broadcast)(const void*, void*, size_t, ncclDataType_t, int, ncclComm_t,
                                                     cudaStream_t) = ncclBroadcast;
[[maybe_unused]] constexpr ncclResult_t (*reduce)(const void*, void*, size_t, ncclDataType_t, ncclRedOp_t, int,
                                                  ncclComm_t, cudaStream_t) = ncclReduce;
[[maybe_unused]] constexpr ncclResult_t (*send)(const void*, size_t, ncclDataType_t, int, ncclComm_t,
                                                cudaStream_t) = ncclSend;
[[maybe_unused]] constexpr ncclResult_t (*recv)(void*, size_t, ncclDataType_t, int, ncclComm_t,
                                                cudaStream_t) = ncclRecv;
[[maybe_unused]] constexpr ncclResult_t (*state)(ncclComm_t, ncclResult_t*) = ncclCommGetAsyncError;
[[maybe_unused]] constexpr ncclResult_t (*finalize)(ncclComm_t) = ncclCommFinalize;
[[maybe_unused]] constexpr ncclResult_t (*destroy)(ncclComm_t) = ncclCommDestroy;
[[maybe_unused]] constexpr ncclResult_t (*abort)(ncclComm_t) = ncclCommAbort;

}  // namespace
