// SPDX-License-Identifier: Apache-2.0
#include <kernels/activation.cuh>
#include <kernels/rotary.cuh>

using namespace troika;

void elementwise(Activation activation, const float* x, float* y, f16* half, bf16* brain,
                 const cuda::RotaryArguments& a, cudaStream_t stream) {
  cuda::activate(activation, x, y, a.tokens, stream);
  cuda::activate_multiply(activation, x, x, y, a.tokens, stream);
  cuda::map(cuda::SoftCap{30}, a.tokens, stream, y, x);
  cuda::map(cuda::Add{}, a.tokens, stream, y, x, x);
  cuda::map(cuda::Scale{2}, a.tokens, stream, y, x);
  cuda::cast(x, half, a.tokens, stream);
  cuda::cast(x, brain, a.tokens, stream);
  cuda::cast(static_cast<const f16*>(half), y, a.tokens, stream);
  cuda::cast(static_cast<const bf16*>(brain), y, a.tokens, stream);
  cuda::rotary(a, stream);
}
