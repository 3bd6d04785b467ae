// SPDX-License-Identifier: Apache-2.0
#include <kernels/norm.cuh>
#include <kernels/softmax.cuh>

void norms(const troika::cuda::NormArguments& a, cudaStream_t stream) {
  rms_norm(a, stream);
  layer_norm(a, stream);
  troika::cuda::softmax(a.x, a.y, a.rows, a.d, stream);
}
