// SPDX-License-Identifier: Apache-2.0
#include <cublasLt.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <mutex>

#include <troika/core/dtype.hpp>

#include "driver.hpp"

using troika::recording::Driver;
using troika::recording::Step;

struct cublasLtContext {};
struct cublasLtMatmulDescOpaque_t {
  cublasComputeType_t compute;
  cublasOperation_t a = CUBLAS_OP_N, b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const float* bias = nullptr;

  bool has(cublasLtEpilogue_t part) const { return (epilogue & part) != 0; }
};
struct cublasLtMatrixLayoutOpaque_t {
  cudaDataType type;
  std::int64_t rows, columns, step;

  std::size_t element() const { return type == CUDA_R_32F ? 4 : 2; }
  std::size_t bytes() const { return static_cast<std::size_t>((columns - 1) * step + rows) * element(); }
};
struct cublasLtMatmulPreferenceOpaque_t {};

namespace {

template <class F>
cublasStatus_t call(F&& f, cublasStatus_t failure = CUBLAS_STATUS_NOT_INITIALIZED) {
  Driver* const driver = Driver::current;
  if (!driver) return CUBLAS_STATUS_NOT_INITIALIZED;
  std::lock_guard lock(driver->mutex);
  if (driver->call_fails()) return failure;
  return f(*driver);
}
template <class T>
cublasStatus_t make(T** object, T value, const char* kind) {
  return call(
      [&](Driver& driver) {
        *object = new T(value);
        driver.count(kind, 1);
        return CUBLAS_STATUS_SUCCESS;
      },
      CUBLAS_STATUS_ALLOC_FAILED);
}
template <class T>
cublasStatus_t destroy(T* object, const char* kind) {
  Driver* const driver = Driver::current;
  delete object;
  if (!driver) return CUBLAS_STATUS_NOT_INITIALIZED;
  std::lock_guard lock(driver->mutex);
  driver->count(kind, -1);
  return CUBLAS_STATUS_SUCCESS;
}
template <class T>
cublasStatus_t read(T& to, const void* value, std::size_t bytes) {
  if (bytes != sizeof to) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

// A number as it is stored, with `tf32` rounded to 10 bits of fraction.
double number(const void* data, std::int64_t at, cudaDataType type, bool tf32) {
  if (type == CUDA_R_16F) return double{static_cast<float>(static_cast<const troika::f16*>(data)[at])};
  if (type == CUDA_R_16BF) return double{static_cast<float>(static_cast<const troika::bf16*>(data)[at])};
  const float value = static_cast<const float*>(data)[at];
  if (!tf32) return double{value};
  return double{std::bit_cast<float>((std::bit_cast<std::uint32_t>(value) + 0x1000u) & 0xffffe000u)};
}

}  // namespace

const char* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED: break;
  }
  return "CUBLAS_STATUS_NOT_SUPPORTED";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) { return make(handle, {}, "cublasLt handles"); }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return destroy(handle, "cublasLt handles"); }
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* operation, cublasComputeType_t compute, cudaDataType_t) {
  return make(operation, {compute}, "cublasLt operations");
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  return destroy(operation, "cublasLt operations");
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, std::size_t bytes) {
  return call([&](Driver&) {
    switch (attribute) {
      case CUBLASLT_MATMUL_DESC_TRANSA: return read(operation->a, value, bytes);
      case CUBLASLT_MATMUL_DESC_TRANSB: return read(operation->b, value, bytes);
      case CUBLASLT_MATMUL_DESC_EPILOGUE: return read(operation->epilogue, value, bytes);
      case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return read(operation->bias, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
  });
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t step) {
  return make(layout, {type, static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns), step},
              "cublasLt layouts");
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return destroy(layout, "cublasLt layouts");
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return make(preference, {}, "cublasLt preferences");
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return destroy(preference, "cublasLt preferences");
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void*,
                                                    std::size_t bytes) {
  const bool workspace = attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
  return call([&](Driver&) {
    return bytes == (workspace ? sizeof(std::size_t) : sizeof(std::uint32_t)) ? CUBLAS_STATUS_SUCCESS
                                                                              : CUBLAS_STATUS_INVALID_VALUE;
  });
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t, int wanted,
                                              cublasLtMatmulHeuristicResult_t* results, int* count) {
  return call([&](Driver&) {
    // 16-bit rows that do not begin at whole words have no algorithm here, nor have odd numbers of rows with GELU, so
    // that there are such shapes.
    const bool known = wanted > 0 && (a->type == CUDA_R_32F || a->step % 2 == 0) &&
                       (!operation->has(CUBLASLT_EPILOGUE_GELU) || d->rows % 2 == 0);
    *count = known ? 1 : 0;
    if (known) results[0] = {};
    if (known) results[0].algo.data[0] = static_cast<std::uint64_t>(operation->epilogue);
    return known ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
  });
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void*,
                              std::size_t, cudaStream_t stream) {
  return call([&](Driver& driver) {
    auto* const known = driver.find(stream);
    const auto op = *operation;
    const auto A = *a_layout, B = *b_layout, D = *d_layout;
    const std::int64_t k = op.a == CUBLAS_OP_T ? A.rows : A.columns;
    const bool fits = (op.a == CUBLAS_OP_T ? A.columns : A.rows) == D.rows &&
                      (op.b == CUBLAS_OP_T ? B.rows : B.columns) == D.columns &&
                      (op.b == CUBLAS_OP_T ? B.columns : B.rows) == k && A.type == B.type && D.type == CUDA_R_32F &&
                      A.step >= A.rows && B.step >= B.rows && D.step >= D.rows;
    const bool there = driver.memory.holding(a, A.bytes()) && driver.memory.holding(b, B.bytes()) &&
                       driver.memory.holding(d, D.bytes());
    const bool plain = *static_cast<const float*>(alpha) == 1 && *static_cast<const float*>(beta) == 0 && c == d;
    const bool advised =
        algorithm->data[0] == static_cast<std::uint64_t>(op.epilogue) && (!op.has(CUBLASLT_EPILOGUE_BIAS) || op.bias);
    if (!known || !fits || !there || !plain || !advised) {
      driver.problem("a product of matrices that do not fit, or are not there, or by the algorithm of another");
      return CUBLAS_STATUS_INVALID_VALUE;
    }
    const bool tf32 = op.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    const auto multiply = [=] {
      for (std::int64_t j = 0; j < D.columns; ++j) {
        for (std::int64_t i = 0; i < D.rows; ++i) {
          double sum = op.has(CUBLASLT_EPILOGUE_BIAS) ? double{op.bias[i]} : 0.0;
          for (std::int64_t p = 0; p < k; ++p) {
            const std::int64_t at_a = op.a == CUBLAS_OP_T ? i * A.step + p : p * A.step + i;
            const std::int64_t at_b = op.b == CUBLAS_OP_T ? p * B.step + j : j * B.step + p;
            sum += number(a, at_a, A.type, tf32) * number(b, at_b, B.type, tf32);
          }
          if (op.has(CUBLASLT_EPILOGUE_GELU))
            sum *= 0.5 * (1 + std::tanh(0.79788456 * (sum + 0.044715 * sum * sum * sum)));
          static_cast<float*>(d)[j * D.step + i] = static_cast<float>(sum);
        }
      }
      return Step::done;
    };
    driver.add(*known, {"kernel", false, [=](Driver& on, troika::recording::Stream& to) {
                          on.give(to, {.step = multiply});
                          on.touch(to, to.clock, a, A.bytes(), false, "a product");
                          on.touch(to, to.clock, b, B.bytes(), false, "a product");
                          on.touch(to, to.clock, d, D.bytes(), true, "a product");
                        }});
    return CUBLAS_STATUS_SUCCESS;
  });
}
