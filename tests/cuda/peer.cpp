// SPDX-License-Identifier: Apache-2.0
#include <troika/communication/peer.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <kernels/language.cuh>
#include <troika/communication/communication.hpp>

#include "communication/operations.hpp"
#include "on_gpu.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

using namespace troika;
using namespace troika::test;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using recording::Recording;

namespace {

void check_clean(const Recording& recorded) {
  CHECK(joined(recorded.problems()) == "");
  CHECK(joined(recorded.live()) == "");
}

// Of one GPU that all share, or of a GPU each.
std::vector<CudaDevice> devices(int ranks, bool shared) {
  return shared ? cuda_devices({.virtual_ranks = ranks}, {0}) : gpus(ranks);
}

constexpr std::size_t little = 16384;  // so that 5,003 floats take two pieces

}  // namespace

static_assert(Transport<Peer, CudaDevice>);
static_assert(!Transport<Peer, HostDevice>, "Peer moves memory of GPUs");

TEST_CASE("Every operation by Peer gives what a naive loop gives, for every type and world", "[peer]") {
  const auto [ranks, shared] = GENERATE(table<int, bool>(
      {{1, false}, {2, false}, {3, false}, {4, false}, {2, true}, {3, true}, {4, true}, {5, true}, {8, true}}));
  Recording recorded({.gpus = ranks});
  const auto wrong = run_ranks(devices(ranks, shared), [](auto& rank) {
    Communication c{rank, Peer({.staged_bytes = little, .one_shot_bytes = 2000})};
    const auto place = on_gpu(rank), odd = on_gpu(rank, 1);
    std::string text = check_operations<float>(c, place, 1, 1000) + check_operations<bf16>(c, place, 2, 17);
    text += check_operations<f16>(c, odd, 3, 100) + check_operations<std::int32_t>(c, place, 4, 3);
    text += check_operations<std::int8_t>(c, odd, 5, 77) + check_operations<std::uint8_t>(c, place, 6, 1);
    // Memory of the host goes by the host.
    return text + check_operations<float>(c, place, 7, 0) + check_operations<float>(c, on_host, 8, 300);
  });
  for (const auto& text : wrong) CHECK(text == "");
  check_clean(recorded);
}

TEST_CASE("What is longer than the memory that peers read goes in pieces", "[peer]") {
  const int ranks = GENERATE(2, 3);
  Recording recorded({.gpus = ranks});
  const auto wrong = run_ranks(gpus(ranks), [&](auto& rank) {
    Communication c{rank, Peer({.staged_bytes = little, .one_shot_bytes = 2000})};
    return check_operations<float>(c, on_gpu(rank), 1, 5003) +
           check_operations<std::int8_t>(c, on_gpu(rank, 3), 2, 9001);
  });
  for (const auto& text : wrong) CHECK(text == "");
  check_clean(recorded);
}

static_assert(Communication<Peer, CudaDevice>::has_all_reduce_norm);
static_assert(!Communication<Threads, CudaDevice>::has_all_reduce_norm);

TEST_CASE("Sum, residual and norm by Peer in one have the bits of the three, in pieces and in both ways", "[peer]") {
  const auto [ranks, shared] = GENERATE(table<int, bool>({{1, false}, {2, false}, {3, false}, {4, true}, {5, true}}));
  Recording recorded({.gpus = ranks});
  const auto wrong = run_ranks(devices(ranks, shared), [&](auto& rank) {
    Communication c{rank, Peer({.staged_bytes = little, .one_shot_bytes = 2000})};
    auto stream = rank.stream();
    std::string text;
    for (const auto& [rows, d] : {std::pair{1, 64}, {7, 33}, {40, 128}, {2, 6000}, {0, 8}}) {
      text += compare_all_reduce_norm(c, rank, rows, d);
      const auto count = static_cast<std::size_t>(rows * d);
      const auto values = [&](std::size_t size, int seed) {
        std::vector<float> result(size);
        for (std::size_t i = 0; i < size; ++i)
          result[i] = static_cast<float>((static_cast<int>(i) * 37 + seed * 71) % 101) / 7 - 6;
        return result;
      };
      const auto place = on_gpu(rank);
      const auto weight = place(values(static_cast<std::size_t>(d), 90));
      auto y = place(values(count, rank.rank())), residual = place(values(count, 80));
      auto sum = place(values(count, rank.rank())), added = place(values(count, 80));
      c.all_reduce_norm(y.span(), residual.span(), weight.read(), 1e-5f);
      const auto view = [shape = Shape{rows, d}](auto& placed) { return View<float>(placed.span().data(), shape); };
      c.all_reduce(sum.span());
      add(stream, View<const float>(view(sum)), View<const float>(view(added)), view(added));
      rms_norm(stream, View<const float>(view(added)), weight.read(), 1e-5f, view(sum));
      if (y.values() != sum.values()) text += "y of rows of " + std::to_string(d) + " differs\n";
      if (residual.values() != added.values()) text += "residual of rows of " + std::to_string(d) + " differs\n";
    }
    return text;
  });
  for (const auto& text : wrong) CHECK(text == "");
  check_clean(recorded);
}

TEST_CASE("Sum, residual and norm by Peer refuse what cannot work, and name a rank that calls something else",
          "[peer]") {
  const auto message = [](auto&& call) {
    Recording recorded({.gpus = 2});
    const auto outcomes = try_ranks(gpus(2), [&](auto& rank) {
      Communication c{rank, Peer({.staged_bytes = little})};
      auto y = on_gpu(rank)(std::vector<float>(6000)), residual = on_gpu(rank)(std::vector<float>(6000));
      call(c, y, residual);
    });
    for (const auto& outcome : outcomes) REQUIRE(outcome.troika_error());
    check_clean(recorded);
    return std::string(outcomes[0].what());
  };
  CHECK_THAT(message([](auto& c, auto& y, auto& residual) {
               c.all_reduce_norm(y.span(), residual.span(), residual.read().first(7), 1e-5f);
             }),
             ContainsSubstring("whole rows of weight, not 6000, 6000 and 7 elements"));
  CHECK_THAT(message([](auto& c, auto& y, auto&) {
               std::vector<float> here(6000);
               c.all_reduce_norm(y.span(), here, y.read().first(100), 1e-5f);
             }),
             ContainsSubstring("in memory of the device"));
  CHECK_THAT(message([](auto& c, auto& y, auto& residual) {
               if (c.rank() == 0) return c.all_reduce(y.span());
               c.all_reduce_norm(y.span(), residual.span(), residual.read().first(100), 1e-5f);
             }),
             ContainsSubstring("all_reduce_norm"));
}

TEST_CASE("split makes groups of peers", "[peer]") {
  Recording recorded({.gpus = 5});
  check_split(Peer{});
  check_clean(recorded);
}

TEST_CASE("GPUs that do not reach each other are refused on every rank", "[peer]") {
  Recording recorded({.gpus = 3, .without_peers = 1});
  const auto outcomes = try_ranks(gpus(3), [&](auto& rank) { Communication c{rank, Peer{}}; });
  for (const auto& outcome : outcomes) {
    REQUIRE(outcome.troika_error());
    CHECK(outcome.troika_error()->fault() == Fault::unsupported);
    CHECK_THAT(outcome.what(), ContainsSubstring("GPU 0 does not reach the memory of GPU 1"));
  }
  check_clean(recorded);
}

TEST_CASE("Nine ranks are refused", "[peer]") {
  Recording recorded({.gpus = 9});
  const auto outcomes = try_ranks(gpus(9), [&](auto& rank) { Communication c{rank, Peer{}}; });
  for (const auto& outcome : outcomes) {
    REQUIRE(outcome.troika_error());
    CHECK_THAT(outcome.what(), ContainsSubstring("Peer connects up to 8 ranks, not 9"));
  }
  check_clean(recorded);
}

namespace {

// Stands in a stream until it is opened: a device that hangs.
struct Gate {
  std::atomic<bool> open{false};
  void stand_in(CudaStream stream) {
    cuda::launch(
        +[](std::atomic<bool>* opened) {
          while (!*opened) cuda::pause();
        },
        dim3{}, 32, static_cast<cudaStream_t>(stream.native()), &open);
  }
};

}  // namespace

TEST_CASE("A GPU that does not come is named on all ranks by the deadline, also to who waits for its stream",
          "[peer]") {
  Recording recorded({.gpus = 3});
  Gate gate;
  std::atomic<int> told{0};
  const auto outcomes = try_ranks(gpus(3), [&](auto& rank) {
    Communication c{rank, Peer{}, {.deadline = 5s}};
    auto data = on_gpu(rank)(std::vector<float>(100));
    c.all_reduce(data.span());
    if (rank.rank() == 1) gate.stand_in(rank.stream());
    c.all_reduce(data.span());
    if (rank.rank() == 1) {
      while (told < 2) std::this_thread::sleep_for(5ms);
      gate.open = true;
      rank.stream().synchronize();
    } else {
      try {
        rank.stream().synchronize();
      } catch (...) {
        ++told;
        throw;
      }
    }
  });
  for (const auto& outcome : outcomes) {
    REQUIRE(outcome.troika_error());
    CHECK(outcome.troika_error()->fault() == Fault::timeout);
    CHECK(outcome.troika_error()->rank() == 1);
    CHECK(outcome.troika_error()->operation() == "all_reduce");
    CHECK_THAT(outcome.what(), ContainsSubstring("the GPU of rank 1 did not come to a collective within 5000 ms"));
  }
  check_clean(recorded);
}

TEST_CASE("A peer that throws or leaves is named on the others", "[peer]") {
  const bool throws = GENERATE(true, false);
  Recording recorded({.gpus = 3});
  const auto outcomes = try_ranks(gpus(3), [&](auto& rank) {
    Communication c{rank, Peer{}};
    auto data = on_gpu(rank)(std::vector<float>(100));
    for (int i = 0;; ++i) {
      c.all_reduce(data.span());
      if (i < 3 || rank.rank() != 1) continue;
      if (throws) throw std::runtime_error("no more rope");
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

TEST_CASE("Nothing is allocated once Peer is connected", "[peer]") {
  Recording recorded({.gpus = 2});
  run_ranks(gpus(2), [&](auto& rank) {
    Communication c{rank, Peer{}};
    auto data = on_gpu(rank)(std::vector<float>(1000));
    const auto all = [&] {
      c.all_reduce(data.span());
      c.broadcast(data.span(), Root{0});
      c.reduce_scatter(data.span(), data.span().subspan(static_cast<std::size_t>(500 * rank.rank()), 500));
    };
    all();
    c.barrier();
    const auto before = recorded.allocations();
    c.barrier();
    for (int i = 0; i < 3; ++i) all();
    c.barrier();
    if (recorded.allocations() != before) throw std::runtime_error("something was allocated");
  });
  check_clean(recorded);
}
