// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <troika/communication/fastest.hpp>
#include <troika/device/cuda/slices.hpp>

#include "exchange.hpp"

namespace troika {
namespace {

using namespace std::chrono_literals;

void say(FastestEngine::Trial& trial, const std::string& trouble) {
  trial.sound = false;
  std::strncpy(trial.trouble.data(), trouble.c_str(), trial.trouble.size() - 1);
}

// The median of a few runs, each between two waits for the stream.
float time_of(DeviceEngine& engine, Operation operation, std::size_t bytes, std::chrono::nanoseconds deadline,
              const std::byte* in, std::byte* out, const std::function<bool(bool)>& meet) {
  const auto ranks = static_cast<std::size_t>(engine.site().world_size);
  const bool of_parts = operation == Operation::all_gather || operation == Operation::reduce_scatter ||
                        operation == Operation::all_to_all;
  const std::size_t count = std::max<std::size_t>(1, bytes / sizeof(float) / (of_parts ? ranks : 1));
  const Call call{{.operation = operation, .dtype = DType::f32, .root = 0, .count = count}, 0, deadline};
  CudaStream stream = engine.site().stream;
  std::array<float, 3> seconds;
  for (int i = -1; i < static_cast<int>(seconds.size()); ++i) {
    meet(true);
    const auto begin = std::chrono::steady_clock::now();
    fastest::exchange(engine, operation, call, in, out);
    stream.synchronize();
    const std::chrono::duration<float> time = std::chrono::steady_clock::now() - begin;
    if (i >= 0) seconds[static_cast<std::size_t>(i)] = time.count();
  }
  std::ranges::nth_element(seconds, seconds.begin() + 1);
  return seconds[1];
}

}  // namespace

void fastest::exchange(DeviceEngine& engine, Operation operation, const Call& call, const std::byte* in,
                       std::byte* out) {
  const int me = engine.site().rank, n = engine.site().world_size;
  const std::size_t count = call.signature.count, bytes = count * size_of(call.signature.dtype);
  switch (operation) {
    case Operation::all_reduce: return engine.all_reduce(call, in, out);
    case Operation::all_gather: return engine.all_gather(call, in, out, {});
    case Operation::reduce_scatter: return engine.reduce_scatter(call, in, out, {});
    case Operation::broadcast: return engine.broadcast(call, out);
    case Operation::all_to_all: {
      const std::vector<std::size_t> counts(static_cast<std::size_t>(n), count);
      return engine.all_to_all(call, in, counts, out, counts, count);
    }
    default:
      if (n == 1) return;
      if (me % 2 == 0) engine.send(call, {in, bytes}, (me + 1) % n);
      engine.recv(call, {out, bytes}, (me + n - 1) % n);
      if (me % 2 == 1) engine.send(call, {in, bytes}, (me + 1) % n);
  }
}

void FastestEngine::Trial::refuse(const std::exception& error) {
  const auto* const known = dynamic_cast<const Error*>(&error);
  missing = known && known->fault() == Fault::unsupported;
  say(*this, error.what());
}

void FastestEngine::measure(DeviceEngine& engine, const Call& call, const std::optional<FastestTimes::Seconds>& known,
                            const std::function<bool(bool)>& meet, Trial& trial) {
  // Who waits for a device that does not come does not wait until the start of everything is given up.
  const auto deadline = std::min<std::chrono::nanoseconds>(10s, call.deadline / 2);
  const std::string wrong = fastest::self_test(engine, deadline);
  trial.sound = wrong.empty();
  if (!trial.sound) say(trial, wrong);
  if (known) trial.seconds = *known;
  if (!meet(!known)) return;
  const auto sizes = FastestChoice{}.sizes;
  CudaStream stream = engine.site().stream;
  const std::size_t room = sizes.back() + sizeof(float) * static_cast<std::size_t>(engine.site().world_size);
  auto in = stream.device().allocate(room), out = stream.device().allocate(room);
  cuda::zero_bytes(stream, in.data(), room);
  cuda::zero_bytes(stream, out.data(), room);
  const auto enough = std::chrono::steady_clock::now() + 300ms;
  for (std::size_t s = 0; s < sizes.size(); ++s) {
    for (std::size_t o = 0; o < FastestChoice::operations.size(); ++o) {
      auto& row = trial.seconds[o];
      if (s > 0 && !meet(std::chrono::steady_clock::now() < enough))
        row[s] = row[s - 1] * static_cast<float>(sizes[s]) / static_cast<float>(sizes[s - 1]);
      else
        row[s] = time_of(engine, FastestChoice::operations[o], sizes[s], deadline, in.data(), out.data(), meet);
    }
  }
}

void FastestEngine::settle(CudaStream& stream) noexcept {
  try {
    stream.synchronize();
  } catch (...) {  // it is known already
  }
}

}  // namespace troika
