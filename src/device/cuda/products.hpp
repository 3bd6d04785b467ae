// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include <troika/device/cuda/memory.hpp>

namespace troika::cuda {

// y = x wT + bias, or gelu_tanh of it, rows of `y_step` floats. tf32: f32 in memory, rounded to 11 bits where they are multiplied.
struct Product {
  enum class Type : std::uint8_t { f32, tf32, bf16, f16 };  // of x and w
  Type type;
  const void* x;      // (m, k)
  const void* w;      // (n, k)
  const float* bias;  // (n), or null
  float* y;           // (m, n)
  std::int64_t m, n, k, y_step;
  bool gelu_tanh = false;
};

// The products of one device by cuBLASLt. What it advises for a shape is asked for once and kept.
class Products {
 public:
  explicit Products(CudaPool& memory);
  ~Products();

  // False where cuBLASLt has nothing for such a product; then nothing was done.
  bool multiply(const Product& product, cudaStream_t stream);

 private:
  struct Plans;  // products.cpp alone includes cublasLt.h
  std::unique_ptr<Plans> plans_;
};

}  // namespace troika::cuda
