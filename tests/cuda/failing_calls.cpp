// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include <troika/communication/communication.hpp>
#include <troika/communication/nccl.hpp>

#include "communication/operations.hpp"
#include "on_gpu.hpp"
#include "runtime/nccl_recorder.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

using namespace troika;
using namespace troika::test;
using namespace std::chrono_literals;
using recording::Recording;

// Every n-th call of CUDA under some collectives fails: an error of each rank that has one, a right result of the
// others, and nothing is left.
TEST_CASE("Calls of CUDA that fail under collectives by NCCL are errors, and leave nothing", "[nccl]") {
  const auto run = [](std::int64_t failing, std::int64_t& calls) {
    recorded_nccl::reset();
    Recording recorded({.gpus = 2});
    auto devices = gpus(2);
    const auto before = recorded.calls();
    if (failing > 0) recorded.fail(failing);
    int errors = 0;
    for (const auto& outcome : try_ranks(std::move(devices), [](auto& rank) {
           Communication c{rank, Nccl({.connect_deadline = 5s}), {.deadline = 400ms}};
           return check_operations<float>(c, on_gpu(rank), 1, 100);
         })) {
      errors += outcome.error != nullptr;
      if (outcome.error)
        CHECK(outcome.troika_error());
      else
        CHECK(*outcome.value == "");
    }
    calls = recorded.calls() - before;
    CHECK(recorded_nccl::alive() == 0);
    CHECK(joined(recorded.live()) == "");
    return errors;
  };
  std::int64_t calls = 0, ignored = 0;
  run(0, calls);
  REQUIRE(calls > 100);
  int failed = 0;
  for (std::int64_t n = 1; n < calls; n += calls / 25) {
    CAPTURE(n);
    failed += run(n, ignored);
  }
  CHECK(failed > 10);
}
