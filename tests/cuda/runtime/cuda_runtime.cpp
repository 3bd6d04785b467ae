// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "calls.hpp"
#include "driver.hpp"

using namespace troika::recording::calls;
using troika::recording::Driver;
using troika::recording::EventState;
using troika::recording::Memory;
using troika::recording::Step;

struct CUevent_st {
  int gpu;
  std::shared_ptr<EventState> state = std::make_shared<EventState>();
};

namespace {

thread_local int this_device = 0;

// Whether `bytes` from `data` on are on the side that the kind of copy says.
bool on_side(Driver& driver, const void* data, std::size_t bytes, bool device) {
  return device ? driver.memory.is_device(data) && driver.memory.holding(data, bytes) : !driver.memory.is_device(data);
}

}  // namespace

cudaError_t cudaGetDeviceCount(int* count) {
  return call([&](Driver& driver, auto&) {
    *count = driver.options.gpus;
    return cudaSuccess;
  });
}
cudaError_t cudaSetDevice(int device) {
  return call([&](Driver& driver, auto&) {
    if (device < 0 || device >= driver.options.gpus) return cudaErrorInvalidDevice;
    this_device = device;
    return cudaSuccess;
  });
}
cudaError_t cudaGetDevice(int* device) {
  *device = this_device;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  return call([&](Driver&, auto&) {
    *value = 4;
    return cudaSuccess;
  });
}
cudaError_t cudaDeviceGetPCIBusId(char* name, int size, int device) {
  return call([&](Driver& driver, auto&) {
    if (device < 0 || device >= driver.options.gpus) return cudaErrorInvalidDevice;
    std::snprintf(name, static_cast<std::size_t>(size), "0000:%02X:00.0", 1 + device);
    return cudaSuccess;
  });
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  return call([&](Driver& driver, auto&) {
    *can = device != peer && (device < driver.options.without_peers) == (peer < driver.options.without_peers);
    return cudaSuccess;
  });
}
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned) {
  return call([&](Driver& driver, auto&) {
    if (peer == this_device || peer < 0 || peer >= driver.options.gpus) return cudaErrorInvalidDevice;
    const bool added = driver.peers.insert({this_device, peer}).second;
    return added ? cudaSuccess : cudaErrorPeerAccessAlreadyEnabled;
  });
}
cudaError_t cudaGetLastError() { return cudaSuccess; }

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorPeerAccessAlreadyEnabled: return "cudaErrorPeerAccessAlreadyEnabled";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureIsolation: return "cudaErrorStreamCaptureIsolation";
    case cudaErrorStreamCaptureWrongThread: return "cudaErrorStreamCaptureWrongThread";
    case cudaErrorGraphExecUpdateFailure: return "cudaErrorGraphExecUpdateFailure";
    case cudaErrorUnknown: break;
  }
  return "cudaErrorUnknown";
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error) + std::strlen("cuda"); }

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  return call(
      [&](Driver& driver, auto&) {
        if (driver.forbidden("cudaMalloc")) return cudaErrorStreamCaptureUnsupported;
        const auto* const block = driver.memory.allocate(this_device, bytes);
        if (!block) return cudaErrorMemoryAllocation;
        *data = block->data;
        driver.count("cudaMalloc", 1);
        ++driver.allocations;
        return cudaSuccess;
      },
      cudaErrorMemoryAllocation);
}
cudaError_t cudaMemGetInfo(std::size_t* available, std::size_t* all) {
  return call([&](Driver& driver, auto&) {
    *available = driver.memory.left(this_device);
    *all = driver.options.memory;
    return cudaSuccess;
  });
}
cudaError_t cudaFree(void* data) {
  return last_call([&](Driver& driver, auto& lock) {
    if (!data) return cudaSuccess;
    if (driver.forbidden("cudaFree")) return cudaErrorStreamCaptureUnsupported;
    auto* const block = driver.memory.at(data);
    if (!block || block->gpu == Memory::host) return wrong(driver, "cudaFree of what cudaMalloc did not give");
    if (driver.opened.contains(data)) driver.problem("cudaFree of memory that another process has open");
    driver.synchronize_gpu(lock, block->gpu);
    driver.count("cudaMalloc", -1);
    ++driver.allocations;
    if (!driver.memory.free(*block)) driver.problem("something wrote beside memory of cudaMalloc");
    return cudaSuccess;
  });
}
cudaError_t cudaHostAlloc(void** data, std::size_t bytes, unsigned) {
  return call(
      [&](Driver& driver, auto&) {
        if (driver.forbidden("cudaHostAlloc")) return cudaErrorStreamCaptureUnsupported;
        *data = driver.memory.allocate(Memory::host, bytes)->data;
        driver.count("cudaHostAlloc", 1);
        ++driver.allocations;
        return cudaSuccess;
      },
      cudaErrorMemoryAllocation);
}
cudaError_t cudaFreeHost(void* data) {
  return last_call([&](Driver& driver, auto& lock) {
    if (!data) return cudaSuccess;
    if (driver.forbidden("cudaFreeHost")) return cudaErrorStreamCaptureUnsupported;
    auto* const block = driver.memory.at(data);
    if (!block || block->gpu != Memory::host) return wrong(driver, "cudaFreeHost of what cudaHostAlloc did not give");
    for (int gpu = 0; gpu < driver.options.gpus; ++gpu) driver.synchronize_gpu(lock, gpu);
    driver.count("cudaHostAlloc", -1);
    ++driver.allocations;
    if (!driver.memory.free(*block)) driver.problem("something wrote beside memory of cudaHostAlloc");
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* lowest, int* highest) {
  return call([&](Driver&, auto&) {
    *lowest = 0;
    *highest = -5;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  return call([&](Driver& driver, auto&) {
    *stream = driver.add_stream(this_device);
    driver.count("streams", 1);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return last_call([&](Driver& driver, auto& lock) {
    auto* const known = driver.find(stream);
    if (!known) return cudaErrorInvalidResourceHandle;
    (void)driver.is_capturing(*known, "cudaStreamDestroy");
    driver.synchronize(lock, *known);
    driver.remove(*known);
    driver.count("streams", -1);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return stream_call(stream, [](Driver& driver, auto& lock, auto& known) {
    if (driver.is_capturing(known, "cudaStreamSynchronize")) return cudaErrorStreamCaptureUnsupported;
    driver.synchronize(lock, known);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return stream_call(stream, [](Driver& driver, auto&, auto& known) {
    if (driver.is_capturing(known, "cudaStreamQuery")) return cudaErrorStreamCaptureUnsupported;
    if (known.works.empty()) {
      driver.host_clock().join(known.clock);
      return cudaSuccess;
    }
    driver.nudge();
    return cudaErrorNotReady;
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return stream_call(stream, [&](Driver& driver, auto&, auto& known) {
    if (driver.is_capturing(known, "cudaStreamWaitEvent")) return cudaErrorStreamCaptureIsolation;
    const auto state = event->state;
    known.clock.join(state->clock);
    driver.give(known, {.ready = [state, wanted = state->recorded] { return state->fired >= wanted; }});
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return call([&](Driver& driver, auto&) {
    *event = new CUevent_st{this_device};
    driver.count("events", 1);
    return cudaSuccess;
  });
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return last_call([&](Driver& driver, auto&) {
    delete event;
    driver.count("events", -1);
    return cudaSuccess;
  });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return stream_call(stream, [&](Driver& driver, auto&, auto& known) {
    if (event->gpu != known.gpu) return wrong(driver, "an event of one GPU recorded in a stream of another");
    if (driver.is_capturing(known, "cudaEventRecord")) return cudaErrorStreamCaptureUnsupported;
    const auto state = event->state;
    // Under the lock, as ready() is.
    driver.give(known, {.step = [&driver, state, number = ++state->recorded] {
                  std::lock_guard lock(driver.mutex);
                  state->fired = number;
                  return Step::done;
                }});
    state->clock = known.clock;
    return cudaSuccess;
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call([&](Driver& driver, auto& lock) {
    if (driver.forbidden("cudaEventSynchronize")) return cudaErrorStreamCaptureUnsupported;
    const auto state = event->state;
    const auto& error = driver.errors[static_cast<std::size_t>(event->gpu)];
    driver.wait(lock, [&, wanted = state->recorded] { return state->fired >= wanted || error != cudaSuccess; });
    driver.host_clock().join(state->clock);
    return error;
  });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call([&](Driver& driver, auto&) {
    if (driver.forbidden("cudaEventQuery")) return cudaErrorStreamCaptureUnsupported;
    const auto state = event->state;
    if (state->fired < state->recorded) {
      driver.nudge();
      return cudaErrorNotReady;
    }
    driver.host_clock().join(state->clock);
    return driver.errors[static_cast<std::size_t>(event->gpu)];
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_step, const void* from, std::size_t from_step, std::size_t width,
                              std::size_t rows, cudaMemcpyKind kind, cudaStream_t stream) {
  return stream_call(stream, [&](Driver& driver, auto& lock, auto& known) {
    if (width == 0 || rows == 0) return cudaSuccess;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const std::size_t from_bytes = (rows - 1) * from_step + width, to_bytes = (rows - 1) * to_step + width;
    if (width > from_step || width > to_step || !on_side(driver, from, from_bytes, from_device) ||
        !on_side(driver, to, to_bytes, to_device))
      return wrong(driver, "a copy between ranges, or sides, that are not there");
    const auto copy = [=](const std::byte* source) {
      for (std::size_t row = 0; row < rows; ++row)
        std::memcpy(static_cast<std::byte*>(to) + row * to_step, source + row * from_step, width);
      return Step::done;
    };
    // What is not pinned is read before the call returns, or written; in a graph nobody knows when.
    const bool read_now = !from_device && !driver.memory.holding(from, from_bytes);
    const bool written_now = !to_device && !driver.memory.holding(to, to_bytes);
    if ((read_now || written_now) && driver.is_capturing(known, "a copy of memory that is not pinned"))
      return cudaErrorStreamCaptureUnsupported;
    const auto* const source = static_cast<const std::byte*>(from);
    const auto give = [=](Driver& on, troika::recording::Stream& to_stream) {
      if (read_now) {
        on.give(to_stream, {.step = [copy, kept = std::vector<std::byte>(source, source + from_bytes)] {
                  return copy(kept.data());
                }});
      } else {
        on.give(to_stream, {.step = [copy, source] { return copy(source); }});
      }
      on.touch(to_stream, to_stream.clock, from, from_bytes, false, "a copy");
      on.touch(to_stream, to_stream.clock, to, to_bytes, true, "a copy");
    };
    constexpr const char* kinds[] = {"copy on the host", "copy to a GPU", "copy from a GPU", "copy on a GPU"};
    driver.add(known, {kinds[kind], rows > 1, give});
    if (written_now) driver.synchronize(lock, known);
    return cudaSuccess;
  });
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return stream_call(stream, [&](Driver& driver, auto&, auto& known) {
    if (!on_side(driver, to, bytes, true)) return wrong(driver, "a fill of a range that is not there");
    driver.add(known, {"fill", false, [=](Driver& on, troika::recording::Stream& to_stream) {
                         on.give(to_stream, {.step = [=] {
                                   std::memset(to, value, bytes);
                                   return Step::done;
                                 }});
                         on.touch(to_stream, to_stream.clock, to, bytes, true, "a fill");
                       }});
    return cudaSuccess;
  });
}
