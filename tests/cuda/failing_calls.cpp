// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include <troika/communication/communication.hpp>
#include <troika/communication/nccl.hpp>
#include <troika/communication/peer.hpp>

#include "communication/operations.hpp"
#include "on_gpu.hpp"
#include "runtime/nccl_recorder.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

using namespace troika;
using namespace troika::test;
using namespace std::chrono_literals;
using recording::Recording;

namespace {

// Runs some collectives on two GPUs, of which the n-th call of CUDA fails, of `runs` numbers over all that there are: an
// error of each rank that has one, a right result of the others, and nothing is left.
template <class Transport>
void fail_in_turn(const Transport& transport, int runs) {
  const auto run = [&](std::int64_t failing, std::int64_t& calls) {
    recorded_nccl::reset();
    Recording recorded({.gpus = 2});
    auto devices = gpus(2);
    const auto before = recorded.calls();
    if (failing > 0) recorded.fail(failing);
    int errors = 0;
    for (const auto& outcome : try_ranks(std::move(devices), [&](auto& rank) {
           Communication c{rank, transport, {.deadline = 400ms}};
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
  for (std::int64_t n = 1; n < calls; n += calls / runs) {
    CAPTURE(n);
    failed += run(n, ignored);
  }
  CHECK(failed > runs / 2);  // ranks; what only looks may fail unnoticed
}

}  // namespace

TEST_CASE("Calls of CUDA that fail under collectives by NCCL are errors, and leave nothing", "[nccl]") {
  fail_in_turn(Nccl({.connect_deadline = 5s}), 25);
}

TEST_CASE("Calls of CUDA that fail under collectives by Peer are errors, and leave nothing", "[peer]") {
  fail_in_turn(Peer({.connect_deadline = 5s}), 25);
}
