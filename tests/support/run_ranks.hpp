// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <troika/communication/rank.hpp>
#include <troika/device/host/device.hpp>
#include <troika/observe/trace.hpp>

namespace troika::test {

// What became of one rank: its result, or what it threw.
template <class R>
struct Outcome {
  std::optional<R> value{};
  std::exception_ptr error{};
  int finished = 0;  // 0 for the rank that ended first

  // The troika::Error that this rank threw, if it threw one.
  std::optional<Error> troika_error() const {
    if (!error) return std::nullopt;
    try {
      std::rethrow_exception(error);
    } catch (const Error& e) {
      return e;
    } catch (...) {
      return std::nullopt;
    }
  }
  // What this rank threw, in words; empty if nothing.
  std::string what() const {
    if (!error) return {};
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& e) {
      return e.what();
    } catch (...) {
      return "not a std::exception";
    }
  }
};

// Runs fn(Rank<D>&) on a thread for each device; all share a World. Gives every rank's outcome. A rank that throws is
// posted to the World, as a scheduler does. fn returns what the main thread is to assert, or nothing.
template <Device D, class F>
auto try_ranks(std::vector<D> devices, F&& fn, Trace* trace = nullptr) {
  using Returned = std::invoke_result_t<F&, Rank<D>&>;
  using Result = std::conditional_t<std::is_void_v<Returned>, bool, std::decay_t<Returned>>;
  const int ranks = static_cast<int>(devices.size());
  auto world = std::make_shared<World>(ranks);
  std::vector<Outcome<Result>> outcomes(devices.size());
  std::atomic<int> finished{0};
  {
    std::vector<std::thread> threads;
    for (int r = 0; r < ranks; ++r) {
      threads.emplace_back([&, r] {
        auto& outcome = outcomes[static_cast<std::size_t>(r)];
        try {
          Rank<D> rank(r, devices[static_cast<std::size_t>(r)], world, trace);
          if constexpr (std::is_void_v<Returned>) {
            fn(rank);
            outcome.value = true;
          } else {
            outcome.value.emplace(fn(rank));
          }
        } catch (const std::exception& e) {
          outcome.error = std::current_exception();
          world->fail(r, e.what());
        } catch (...) {
          outcome.error = std::current_exception();
          world->fail(r, "threw something that is not a std::exception");
        }
        outcome.finished = finished++;
      });
    }
    for (auto& thread : threads) thread.join();
  }
  return outcomes;
}

// The same on so many devices of the host.
inline std::vector<HostDevice> plain_devices(int ranks) {
  std::vector<HostDevice> devices;
  for (int r = 0; r < ranks; ++r) devices.emplace_back(r);
  return devices;
}
template <class F>
auto try_ranks(int ranks, F&& fn, Trace* trace = nullptr) {
  return try_ranks(plain_devices(ranks), fn, trace);
}

// The same for runs that should succeed: the results in rank order (nothing for a function that returns nothing).
// Throws what the rank that ended first of the failed ones threw.
template <Device D, class F>
auto run_ranks(std::vector<D> devices, F&& fn, Trace* trace = nullptr) {
  auto outcomes = try_ranks(std::move(devices), fn, trace);
  const typename decltype(outcomes)::value_type* first = nullptr;
  for (const auto& outcome : outcomes) {
    if (outcome.error && (!first || outcome.finished < first->finished)) first = &outcome;
  }
  if (first) std::rethrow_exception(first->error);
  using Returned = std::invoke_result_t<F&, Rank<D>&>;
  if constexpr (!std::is_void_v<Returned>) {
    std::vector<std::decay_t<Returned>> results;
    for (auto& outcome : outcomes) results.push_back(std::move(*outcome.value));
    return results;
  }
}
template <class F>
auto run_ranks(int ranks, F&& fn, Trace* trace = nullptr) {
  return run_ranks(plain_devices(ranks), fn, trace);
}

}  // namespace troika::test
