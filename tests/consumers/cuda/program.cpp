// SPDX-License-Identifier: Apache-2.0
// A product on a GPU, where there is one; a machine without says so.
#include <cmath>
#include <cstdio>
#include <vector>

#include <troika/device/cuda/cuda.hpp>

using troika::View;

int main() {
  if (troika::cuda_device_count() == 0) {
    std::puts("no GPU");
    return 0;
  }
  troika::CudaDevice device;
  troika::CudaStream stream(device);
  const std::vector<float> values(16 * 64, 0.5f);
  troika::CudaTensor<float> x(device, {16, 64}), w(device, {16, 64}), y(device, {16, 16});
  upload(stream, View<const float>(values.data(), x.shape()), x.view());
  upload(stream, View<const float>(values.data(), w.shape()), w.view());
  linear(stream, View<const float>(x.view()), View<const float>(w.view()), y.view());
  const auto result = read_back(stream, y.view());
  for (const float value : result.span())
    if (std::abs(value - 16) > 1e-3f) return 1;
  std::printf("%s multiplies\n", device.name().c_str());
  return 0;
}
