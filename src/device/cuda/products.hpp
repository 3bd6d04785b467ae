// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>

#include <troika/device/cuda/memory.hpp>

namespace troika::cuda {

// y = x wT + bias, rows of `y_step` floats. tf32: f32 in memory, rounded to 11 bits where they are multiplied.
struct Product {
  enum class Type : std::uint8_t { f32, tf32, bf16, f16 };  // of x and w
  Type type;
  const void* x;      // (m, k)
  const void* w;      // (n, k)
  const float* bias;  // (n), or null
  float* y;           // (m, n)
  std::int64_t m, n, k, y_step;
};

// The products of one device by cuBLASLt. What it advises for a shape is asked for once and kept.
class Products {
 public:
  explicit Products(CudaPool& memory);

  // False where cuBLASLt has nothing for such a product; then nothing was done.
  bool multiply(const Product& product, cudaStream_t stream);

 private:
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
  using Key = std::array<std::int64_t, 9>;
  static Key key_of(const Product& product);

  struct Plan {
    Operation operation;
    Layout x, w, y;
    cublasLtMatmulAlgo_t algorithm;
    bool exists = false;
  };
  Plan make(const Product& product, const Key& key);
  static Layout layout(cudaDataType_t type, std::int64_t rows, std::int64_t columns, std::int64_t step);

  static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;  // what NVIDIA advises from Hopper on
  static constexpr std::size_t plans_kept = 1024;

  CudaPool::Buffer workspace_;
  Handle handle_;
  std::map<Key, Plan> plans_;
};

}  // namespace troika::cuda
