// SPDX-License-Identifier: Apache-2.0
#include <examples/selftest/checks.hpp>

#include <string>
#include <vector>

#include <troika/communication/nccl.hpp>
#include <troika/communication/peer.hpp>

#include "on_gpu.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

using namespace troika;
using namespace troika::test;
using recording::Recording;

namespace {

constexpr std::size_t sizes[] = {1, 17, 130};

template <class Transport>
selftest::Outcome checked(int ranks, Transport transport) {
  Recording recorded({.gpus = ranks});
  selftest::Outcome all;
  for (const auto& outcome : run_ranks(gpus(ranks), [&](auto& rank) {
         Communication c{rank, transport};
         return selftest::check_everything(rank, c, sizes);
       })) {
    all.compared += outcome.compared;
    all.wrong.insert(all.wrong.end(), outcome.wrong.begin(), outcome.wrong.end());
  }
  return all;
}

// Whose broadcasts do nothing.
template <class C>
struct Wrong : C {
  using C::C;
  template <Element E>
  void broadcast(std::span<E>, Root) {}
};

}  // namespace

TEST_CASE("troika-selftest finds nothing wrong with what is right", "[selftest]") {
  for (const auto& outcome : {checked(3, Nccl{}), checked(2, Peer{}), checked(2, Threads{})}) {
    CHECK(joined(outcome.wrong) == "");
    CHECK(outcome.compared > 10'000);
  }
}

TEST_CASE("troika-selftest finds a collective that does nothing, and names it", "[selftest]") {
  const auto outcomes = run_ranks(2, [&](auto& rank) {
    Wrong<Communication<Threads, HostDevice>> c{rank, Threads{}};
    return selftest::check_everything(rank, c, sizes);
  });
  for (const auto& outcome : outcomes) {
    REQUIRE(outcome.wrong.size() == 6 * std::size(sizes));
    CHECK(outcome.wrong[0].starts_with("broadcast of 1 f32: element 0 of rank "));
  }
}
