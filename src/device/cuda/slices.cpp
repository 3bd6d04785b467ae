// SPDX-License-Identifier: Apache-2.0
#include <troika/device/cuda/slices.hpp>

#include "queue.hpp"

namespace troika::cuda {

void copy_rows(CudaStream& stream, const void* from, std::size_t from_step, void* to, std::size_t to_step,
               std::size_t width, std::size_t rows) {
  if (width == 0 || rows == 0) return;
  if (rows == 1) return copy_bytes(stream, from, to, width);
  check(cudaMemcpy2DAsync(to, to_step, from, from_step, width, rows, cudaMemcpyDeviceToDevice, stream_of(stream)),
        "cudaMemcpy2DAsync");
}
void copy_bytes(CudaStream& stream, const void* from, void* to, std::size_t bytes) {
  if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_of(stream)), "cudaMemcpyAsync");
}
void zero_bytes(CudaStream& stream, void* to, std::size_t bytes) {
  if (bytes) check(cudaMemsetAsync(to, 0, bytes, stream_of(stream)), "cudaMemsetAsync");
}

void upload_bytes(CudaStream& stream, const void* host, void* device, std::size_t bytes) {
  if (bytes == 0) return;
  const auto on = stream.device().queue().direct();
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, on), "cudaMemcpyAsync");
  stream.synchronize();
}
void download_bytes(CudaStream& stream, const void* device, void* host, std::size_t bytes) {
  if (bytes == 0) return;
  const auto on = stream.device().queue().direct();
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, on), "cudaMemcpyAsync");
  stream.synchronize();
}

}  // namespace troika::cuda
