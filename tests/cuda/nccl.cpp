// SPDX-License-Identifier: Apache-2.0
#include <troika/communication/nccl.hpp>

#include <chrono>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <src/communication/nccl/library.hpp>
#include <troika/communication/communication.hpp>

#include "communication/operations.hpp"
#include "on_gpu.hpp"
#include "runtime/nccl_recorder.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

using namespace troika;
using namespace troika::test;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using recording::Recording;
using recording::When;
using Fate = recorded_nccl::Fate;

namespace {

// What must hold after every test, whatever went wrong in it.
void check_clean(const Recording& recorded) {
  CHECK(joined(recorded_nccl::violations()) == "");
  CHECK(recorded_nccl::alive() == 0);
  CHECK(joined(recorded.problems()) == "");
  CHECK(joined(recorded.live()) == "");
}

// Some collectives on every rank, the results of which are looked at.
std::string some_collectives(Rank<CudaDevice>& rank, std::chrono::nanoseconds deadline) {
  Communication c{rank, Nccl({.connect_deadline = deadline}), {.deadline = deadline}};
  const auto place = on_gpu(rank);
  return check_operations<float>(c, place, 1, 100) + check_operations<std::int32_t>(c, place, 2, 33);
}

}  // namespace

static_assert(Transport<Nccl, CudaDevice>);
static_assert(!Transport<Nccl, HostDevice>, "NCCL moves memory of GPUs");

TEST_CASE("Every operation by NCCL gives what a naive loop gives, for every type, size and world", "[nccl]") {
  const int ranks = GENERATE(1, 2, 3, 4, 5, 8);
  const When when = GENERATE(When::early, When::late);
  recorded_nccl::reset();
  Recording recorded({.gpus = ranks, .when = when});
  const auto wrong = run_ranks(gpus(ranks), [&](auto& rank) {
    Communication c{rank, Nccl{}};
    const auto place = on_gpu(rank);
    std::string text;
    std::uint64_t seed = 0;
    for (const std::size_t count : {0, 1, 3, 17, 1000}) {
      text += check_operations<float>(c, place, ++seed, count);
      text += check_operations<f16>(c, place, ++seed, count);
      text += check_operations<bf16>(c, place, ++seed, count);
      text += check_operations<std::int32_t>(c, place, ++seed, count);
      text += check_operations<std::int8_t>(c, place, ++seed, count);
      text += check_operations<std::uint8_t>(c, place, ++seed, count);
    }
    text += compare_all_reduce_norm(c, rank, 7, 33) + compare_all_reduce_norm(c, rank, 2, 700);
    // Memory of the host goes by the host.
    return text + check_operations<float>(c, on_host, ++seed, 300);
  });
  for (const auto& text : wrong) CHECK(text == "");
  check_clean(recorded);
}

TEST_CASE("Buffers may overlap on GPUs", "[nccl]") {
  recorded_nccl::reset();
  Recording recorded({.gpus = 3});
  const auto ok = run_ranks(gpus(3), [&](auto& rank) {
    Communication c{rank, Nccl{}};
    const auto place = on_gpu(rank);
    const std::vector<std::int32_t> ones(11, rank.rank() + 1);
    auto buffer = place(ones);
    c.all_reduce(buffer.read().first(10), buffer.span().subspan(1));
    bool good = buffer.values() == std::vector<std::int32_t>{rank.rank() + 1, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6};
    auto all = place(std::vector<std::int32_t>(9, rank.rank()));
    c.all_gather(all.read().subspan(1, 3), all.span());
    good &= all.values() == std::vector<std::int32_t>{0, 0, 0, 1, 1, 1, 2, 2, 2};
    const std::vector<std::size_t> counts(3, 3);
    c.all_to_all(all.read(), counts, all.span(), counts);
    return good && all.values() == std::vector<std::int32_t>(9, rank.rank());
  });
  for (const bool good : ok) CHECK(good);
  check_clean(recorded);
}

TEST_CASE("split makes communicators of their own", "[nccl]") {
  recorded_nccl::reset();
  Recording recorded({.gpus = 5});
  check_split(Nccl{});
  CHECK(recorded_nccl::calls("CommInitRankConfig") == 10);
  check_clean(recorded);
}

TEST_CASE("An NCCL that is missing, older or of another kind is one error", "[nccl]") {
  const auto refused = [](auto&& load, const std::string& text) {
    try {
      load();
      FAIL("it was loaded");
    } catch (const Error& error) {
      CHECK(error.fault() == Fault::unsupported);
      CHECK_THAT(error.what(), ContainsSubstring(text));
    }
  };
  refused([] { troika::nccl::load("/nowhere/libnccl.so.2"); }, "NCCL is missing: /nowhere/libnccl.so.2");
  refused([] { troika::nccl::load("libm.so.6"); }, "this NCCL has no ncclGetVersion");
  recorded_nccl::reset(NCCL_VERSION(2, 27, 3));
  refused([] { troika::nccl::load(); }, "NCCL is 2.27.3, but troika was compiled with 2.28.9");
  recorded_nccl::reset(NCCL_VERSION(3, 0, 0));
  refused([] { troika::nccl::load(); }, "NCCL is 3.0.0");
  recorded_nccl::reset(NCCL_VERSION(2, 30, 1));
  CHECK_NOTHROW(troika::nccl::load());
}

TEST_CASE("Two ranks on one GPU are refused with NCCL's words", "[nccl]") {
  recorded_nccl::reset();
  Recording recorded({.gpus = 2});
  const auto outcomes = try_ranks(cuda_devices({.virtual_ranks = 2}, {0}), [&](auto& rank) {
    Communication c{rank, Nccl{}};
  });
  for (const auto& outcome : outcomes) {
    REQUIRE(outcome.troika_error());
    CHECK(outcome.troika_error()->fault() == Fault::peer_failed);
  }
  CHECK_THAT(outcomes[0].what() + outcomes[1].what(), ContainsSubstring("Duplicate GPU detected"));
  check_clean(recorded);
}

TEST_CASE("Each call of NCCL that goes wrong is an error of every rank, and nothing is left", "[nccl]") {
  struct Plan {
    const char* function;
    int nth;
    Fate fate;
    bool always;  // whether ranks must fail: not where only the end of a communicator goes wrong
  };
  const auto plan = GENERATE(
      Plan{"GetUniqueId", 1, Fate::fails, true}, Plan{"CommInitRankConfig", 2, Fate::fails, true},
      Plan{"CommInitRankConfig", 1, Fate::stalls, true}, Plan{"CommInitRankConfig", 3, Fate::breaks, true},
      Plan{"CommGetAsyncError", 5, Fate::fails, true}, Plan{"CommGetAsyncError", 60, Fate::fails, true},
      Plan{"AllReduce", 2, Fate::fails, true}, Plan{"AllReduce", 1, Fate::stalls, true},
      Plan{"AllReduce", 3, Fate::hangs, true}, Plan{"AllReduce", 4, Fate::breaks, true},
      Plan{"AllGather", 1, Fate::fails, true}, Plan{"AllGather", 2, Fate::hangs, true},
      Plan{"ReduceScatter", 3, Fate::fails, true}, Plan{"ReduceScatter", 1, Fate::hangs, true},
      Plan{"Broadcast", 2, Fate::fails, true}, Plan{"Broadcast", 4, Fate::hangs, true},
      Plan{"Reduce", 1, Fate::fails, true}, Plan{"Send", 2, Fate::fails, true}, Plan{"Recv", 1, Fate::hangs, true},
      Plan{"GroupStart", 2, Fate::fails, true}, Plan{"GroupEnd", 1, Fate::fails, true},
      Plan{"GroupEnd", 3, Fate::hangs, true}, Plan{"CommFinalize", 1, Fate::fails, false},
      Plan{"CommFinalize", 2, Fate::stalls, false}, Plan{"CommDestroy", 1, Fate::fails, false});
  CAPTURE(plan.function, plan.nth, static_cast<int>(plan.fate));
  recorded_nccl::reset();
  recorded_nccl::plan(plan.function, plan.nth, plan.fate);
  Recording recorded({.gpus = 3});
  const bool waits = plan.fate == Fate::stalls || plan.fate == Fate::hangs;
  const auto outcomes = try_ranks(gpus(3), [&](auto& rank) { return some_collectives(rank, waits ? 500ms : 60s); });
  for (const auto& outcome : outcomes) {
    if (outcome.value) {
      CHECK(!plan.always);
      CHECK(*outcome.value == "");
    } else {
      REQUIRE(outcome.troika_error());
      CHECK(outcome.troika_error()->fault() != Fault::invalid_argument);
      CHECK(outcome.troika_error()->operation() != "");
    }
  }
  check_clean(recorded);
}

TEST_CASE("Ranks that call different things learn who did, before NCCL is told", "[nccl]") {
  recorded_nccl::reset();
  Recording recorded({.gpus = 4});
  const auto outcomes = try_ranks(gpus(4), [&](auto& rank) {
    Communication c{rank, Nccl{}};
    auto data = on_gpu(rank)(std::vector<float>(16));
    c.all_reduce(data.span());
    if (rank.rank() == 2)
      c.all_reduce(data.span(), Reduction::max);
    else
      c.all_reduce(data.span());
  });
  for (const auto& outcome : outcomes) {
    REQUIRE(outcome.troika_error());
    CHECK(outcome.troika_error()->fault() == Fault::mismatch);
    CHECK(outcome.troika_error()->rank() == 2);
    CHECK(outcome.troika_error()->sequence() == 2);
  }
  CHECK(recorded_nccl::calls("AllReduce") == 4);
  check_clean(recorded);
}

TEST_CASE("A rank that throws, leaves or does not come is named on all others, whose devices stop waiting", "[nccl]") {
  const std::string how = GENERATE("throws", "leaves", "does not connect");
  recorded_nccl::reset();
  Recording recorded({.gpus = 3});
  const auto outcomes = try_ranks(gpus(3), [&](auto& rank) {
    if (rank.rank() == 1 && how == "does not connect") throw std::runtime_error("no more rope");
    Communication c{rank, Nccl{}};
    auto data = on_gpu(rank)(std::vector<float>(100));
    for (int i = 0;; ++i) {
      c.all_reduce(data.span());
      if (i < 3 || rank.rank() != 1) continue;
      if (how == "throws") throw std::runtime_error("no more rope");
      return;
    }
  });
  for (const std::size_t r : {std::size_t{0}, std::size_t{2}}) {
    REQUIRE(outcomes[r].troika_error());
    CHECK(outcomes[r].troika_error()->fault() == Fault::peer_failed);
    CHECK(outcomes[r].troika_error()->rank() == 1);
  }
  check_clean(recorded);
}

TEST_CASE("A device that hangs in a collective fails all ranks by the deadline, also who only waits for its stream",
          "[nccl]") {
  recorded_nccl::reset();
  recorded_nccl::plan("AllReduce", 5, Fate::hangs);
  Recording recorded({.gpus = 3});
  const auto outcomes = try_ranks(gpus(3), [&](auto& rank) {
    Communication c{rank, Nccl{}, {.deadline = 2s}};
    auto data = on_gpu(rank)(std::vector<float>(100));
    c.all_reduce(data.span());
    c.all_reduce(data.span());
    rank.stream().synchronize();
  });
  for (const auto& outcome : outcomes) {
    REQUIRE(outcome.troika_error());
    CHECK(outcome.troika_error()->fault() == Fault::timeout);
    CHECK(outcome.troika_error()->operation() == "all_reduce");
    CHECK_THAT(outcome.what(), ContainsSubstring("waited in all_reduce #2 for 2000 ms"));
  }
  check_clean(recorded);
}

TEST_CASE("An abort that does not return holds nobody up for longer than the deadline", "[nccl]") {
  recorded_nccl::reset();
  recorded_nccl::plan("AllReduce", 2, Fate::hangs);
  recorded_nccl::plan("CommAbort", 1, Fate::hangs);
  {
    Recording recorded({.gpus = 2});
    const auto outcomes = try_ranks(gpus(2), [&](auto& rank) {
      Communication c{rank, Nccl{}, {.deadline = 300ms}};
      auto data = on_gpu(rank)(std::vector<float>(100));
      c.all_reduce(data.span());
      c.barrier();
      std::this_thread::sleep_for(1s);
      c.all_reduce(data.span());
    });
    for (const auto& outcome : outcomes) {
      REQUIRE(outcome.troika_error());
      CHECK(outcome.troika_error()->fault() == Fault::timeout);
    }
    std::this_thread::sleep_for(3s);  // until it has returned: what it uses goes with the recording
  }
  CHECK(recorded_nccl::alive() == 0);
}

TEST_CASE("After a failure those that are left make new communicators", "[nccl]") {
  recorded_nccl::reset();
  recorded_nccl::plan("AllReduce", 3, Fate::breaks);
  Recording recorded({.gpus = 4});
  const auto outcomes = try_ranks(gpus(4), [&](auto& rank) { return some_collectives(rank, 60s); });
  for (const auto& outcome : outcomes) CHECK(outcome.troika_error());
  const auto wrong = run_ranks(gpus(3), [&](auto& rank) { return some_collectives(rank, 60s); });
  for (const auto& text : wrong) CHECK(text == "");
  check_clean(recorded);
}

TEST_CASE("The host runs a bounded way ahead of the device", "[nccl]") {
  recorded_nccl::reset();
  Recording recorded({.gpus = 2, .when = When::late});
  const auto values = run_ranks(gpus(2), [&](auto& rank) {
    Communication c{rank, Nccl{}};
    auto data = on_gpu(rank)(std::vector<std::int32_t>{1});
    for (int i = 0; i < 3 * static_cast<int>(NcclEngine::most_ahead); ++i) c.all_reduce(data.span(), Reduction::max);
    return data.values()[0];
  });
  CHECK(values == std::vector<std::int32_t>{1, 1});
  check_clean(recorded);
}
