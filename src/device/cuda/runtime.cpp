// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

#include <string>

#include <troika/core/error.hpp>

namespace troika::cuda {

void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();  // it is told here; what can be repeated should not meet it again
  const std::string what = std::string(call) + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) +
                           ", " + std::to_string(static_cast<int>(error)) + ")";
  switch (error) {
    case cudaErrorMemoryAllocation: throw Error(Fault::out_of_memory, what);
    // Both are what a machine without a GPU answers.
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver: throw Error(Fault::unsupported, "no GPU, or no driver for it: " + what);
    default: throw Error(Fault::device_failed, what);
  }
}

}  // namespace troika::cuda
