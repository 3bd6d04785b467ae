// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>
#include <string>
#include <utility>

#include "driver.hpp"

// How every call of the recorded CUDA runtime begins.
namespace troika::recording::calls {

// One call: f(driver, lock) under the lock, or the error that was wished for.
template <class F>
cudaError_t call(F&& f, cudaError_t failure = cudaErrorUnknown) {
  Driver* const driver = Driver::current;
  if (!driver || driver->options.gpus == 0) return cudaErrorInsufficientDriver;
  std::unique_lock lock(driver->mutex);
  if (driver->call_fails()) return failure;
  return f(*driver, lock);
}
// The same of what frees things: that happens, failing or not.
template <class F>
cudaError_t last_call(F&& f) {
  Driver* const driver = Driver::current;
  if (!driver) return cudaErrorInsufficientDriver;
  std::unique_lock lock(driver->mutex);
  const bool fails = driver->call_fails();
  const cudaError_t error = f(*driver, lock);
  return fails ? cudaErrorUnknown : error;
}
// A call on a stream whose GPU has not failed.
template <class F>
cudaError_t stream_call(cudaStream_t stream, F&& f) {
  return call([&](Driver& driver, auto& lock) {
    auto* const known = driver.find(stream);
    if (!known) return cudaErrorInvalidResourceHandle;
    const auto& error = driver.errors[static_cast<std::size_t>(known->gpu)];
    if (error != cudaSuccess) return error;
    const cudaError_t own = f(driver, lock, *known);
    return own == cudaSuccess ? error : own;  // what failed meanwhile
  });
}

inline cudaError_t wrong(Driver& driver, std::string what) {
  driver.problem(std::move(what));
  return cudaErrorInvalidValue;
}

}  // namespace troika::recording::calls
