// SPDX-License-Identifier: Apache-2.0
#include "products.hpp"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <map>
#include <string>

#include <troika/core/error.hpp>

namespace troika::cuda {

namespace {

void check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(status == CUBLAS_STATUS_ALLOC_FAILED ? Fault::out_of_memory : Fault::device_failed,
              std::string("cuBLASLt failed: ") + call + ": " + cublasLtGetStatusString(status));
}

template <class T>
void set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
}
template <class T>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value),
        "cublasLtMatmulPreferenceSetAttribute");
}

std::int64_t alignment_of(const void* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  return static_cast<std::int64_t>(std::min<std::uintptr_t>(256, at & (~at + 1)));  // the lowest bit that is set
}

cudaDataType_t stored(Product::Type type) {
  switch (type) {
    case Product::Type::bf16: return CUDA_R_16BF;
    case Product::Type::f16: return CUDA_R_16F;
    default: return CUDA_R_32F;
  }
}

// cuBLASLt's GELU is the approximation by tanh.
cublasLtEpilogue_t epilogue_of(const Product& p) {
  if (p.gelu_tanh) return p.bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
  return p.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

template <class T, cublasStatus_t (*destroy)(T*)>
struct Destroy {
  void operator()(T* object) const { (void)destroy(object); }
};
template <class T, cublasStatus_t (*destroy)(T*)>
using Owned = std::unique_ptr<T, Destroy<T, destroy>>;
using Handle = Owned<cublasLtContext, cublasLtDestroy>;
using Operation = Owned<cublasLtMatmulDescOpaque_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayoutOpaque_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreferenceOpaque_t, cublasLtMatmulPreferenceDestroy>;

// Shape, types, and by how much the addresses can be divided: algorithms depend on it.
using Key = std::array<std::int64_t, 10>;

Key key_of(const Product& p) {
  return {static_cast<std::int64_t>(p.type),
          p.m,
          p.n,
          p.k,
          p.y_step,
          p.bias ? alignment_of(p.bias) : 0,
          alignment_of(p.x),
          alignment_of(p.w),
          alignment_of(p.y),
          p.gelu_tanh};
}

Layout make_layout(cudaDataType_t type, std::int64_t rows, std::int64_t columns, std::int64_t step) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(cublasLtMatrixLayoutCreate(&layout, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns),
                                   step),
        "cublasLtMatrixLayoutCreate");
  return Layout(layout);
}

struct Plan {
  Operation operation;
  Layout x, w, y;
  cublasLtMatmulAlgo_t algorithm;
  bool exists = false;
};

constexpr std::size_t workspace_bytes = std::size_t{32} << 20;  // what NVIDIA advises from Hopper on
constexpr std::size_t plans_kept = 1024;

// cuBLASLt counts along columns: there it is yT (n, m) = w (k, n)T x (k, m), and the bias goes along the rows of yT.
Plan make(cublasLtHandle_t handle, const Product& p, const Key& key) {
  Plan plan;
  cublasLtMatmulDesc_t operation = nullptr;
  const auto compute = p.type == Product::Type::tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  check(cublasLtMatmulDescCreate(&operation, compute, CUDA_R_32F), "cublasLtMatmulDescCreate");
  plan.operation.reset(operation);
  set(operation, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  set(operation, CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N);
  set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(p));
  if (p.bias) set(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
  const auto type = stored(p.type);
  plan.w = make_layout(type, p.k, p.n, p.k);
  plan.x = make_layout(type, p.k, p.m, p.k);
  plan.y = make_layout(CUDA_R_32F, p.n, p.m, p.y_step);

  cublasLtMatmulPreference_t made = nullptr;
  check(cublasLtMatmulPreferenceCreate(&made), "cublasLtMatmulPreferenceCreate");
  const Preference preference(made);
  set(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<std::uint32_t>(key[6]));
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<std::uint32_t>(key[7]));
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<std::uint32_t>(key[8]));
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<std::uint32_t>(key[8]));
  cublasLtMatmulHeuristicResult_t advice{};
  int count = 0;
  const auto status = cublasLtMatmulAlgoGetHeuristic(handle, operation, plan.w.get(), plan.x.get(), plan.y.get(),
                                                     plan.y.get(), made, 1, &advice, &count);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) check(status, "cublasLtMatmulAlgoGetHeuristic");
  plan.exists = status == CUBLAS_STATUS_SUCCESS && count > 0;
  plan.algorithm = advice.algo;
  return plan;
}

}  // namespace

struct Products::Plans {
  CudaPool::Buffer workspace;
  Handle handle{};
  std::map<Key, Plan> known{};
};

Products::Products(CudaPool& memory) : plans_(new Plans{memory.allocate_exact(workspace_bytes)}) {
  cublasLtHandle_t handle = nullptr;
  check(cublasLtCreate(&handle), "cublasLtCreate");
  plans_->handle.reset(handle);
}
Products::~Products() = default;

bool Products::multiply(const Product& p, cudaStream_t stream) {
  const Key key = key_of(p);
  auto& [workspace, handle, known] = *plans_;
  auto found = known.find(key);
  if (found == known.end()) {
    if (known.size() == plans_kept) known.clear();
    found = known.emplace(key, make(handle.get(), p, key)).first;
  }
  Plan& plan = found->second;
  if (!plan.exists) return false;
  if (p.bias) set(plan.operation.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
  const float one = 1, zero = 0;
  check(cublasLtMatmul(handle.get(), plan.operation.get(), &one, p.w, plan.w.get(), p.x, plan.x.get(), &zero, p.y,
                       plan.y.get(), p.y, plan.y.get(), &plan.algorithm, workspace.data(), workspace_bytes, stream),
        "cublasLtMatmul");
  return true;
}

}  // namespace troika::cuda
