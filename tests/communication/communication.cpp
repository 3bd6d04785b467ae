// SPDX-License-Identifier: Apache-2.0
#include <troika/communication/communication.hpp>

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "communication/operations.hpp"
#include "communication/support.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

using namespace troika;
using namespace troika::test;

TEMPLATE_TEST_CASE("Every operation gives what a naive loop gives, for every type, size and world", "[communication]",
                   OnThreads, OnStagelessThreads, OnSimulated) {
  const int ranks = GENERATE(1, 2, 3, 4, 5, 8);
  TestType on(static_cast<std::uint64_t>(ranks));
  const auto wrong = run_ranks(ranks, [&](auto& rank) {
    Communication c{rank, on.transport()};
    std::string text;
    std::uint64_t seed = 0;
    for (const std::size_t count : {0, 1, 3, 17, 64, 1000, 5003}) {
      text += check_operations<float>(c, on_host, ++seed, count);
      text += check_operations<f16>(c, on_host, ++seed, count);
      text += check_operations<bf16>(c, on_host, ++seed, count);
      text += check_operations<std::int32_t>(c, on_host, ++seed, count);
      text += check_operations<std::int8_t>(c, on_host, ++seed, count);
      text += check_operations<std::uint8_t>(c, on_host, ++seed, count);
    }
    return text;
  });
  for (const auto& text : wrong) CHECK(text == "");
}

TEMPLATE_TEST_CASE("Large messages", "[communication]", OnThreads, OnSimulated) {
  const int ranks = GENERATE(1, 2, 3, 5);
  TestType on(7);
  const auto wrong = run_ranks(ranks, [&](auto& rank) {
    Communication c{rank, on.transport()};
    return check_operations<float>(c, on_host, 1, (1 << 18) + 5) +
           check_operations<bf16>(c, on_host, 2, (1 << 18) - 1) + check_operations<std::int8_t>(c, on_host, 3, 1 << 18);
  });
  for (const auto& text : wrong) CHECK(text == "");
}

TEMPLATE_TEST_CASE("All ranks hold the same bits, run after run", "[communication]", OnThreads, OnSimulated) {
  const int ranks = GENERATE(2, 3, 4, 5, 8);
  for (const std::size_t count : {std::size_t{100}, std::size_t{70'001}}) {
    std::vector<float> first;
    for (std::uint64_t run = 0; run < 3; ++run) {
      TestType on(run);
      const auto results = run_ranks(ranks, [&](auto& rank) {
        Communication c{rank, on.transport()};
        auto data = elements<float>(5, c.rank(), count);
        c.all_reduce(std::span(data));
        return data;
      });
      if (first.empty()) first = results[0];
      for (const auto& result : results) CHECK(same_bits(result, first));
    }
  }
}

TEMPLATE_TEST_CASE("Buffers may overlap in any way", "[communication]", OnThreads, OnStagelessThreads, OnSimulated) {
  const int ranks = GENERATE(1, 2, 3, 5);
  const std::size_t count = GENERATE(5, 9000);
  TestType on(3);
  const auto ok = run_ranks(ranks, [&](auto& rank) {
    Communication c{rank, on.transport()};
    const auto n = static_cast<std::size_t>(c.world_size()), me = static_cast<std::size_t>(c.rank());
    bool good = true;
    std::vector<std::int32_t> all, sums(count * n);
    for (int r = 0; r < c.world_size(); ++r) {
      const auto part = elements<std::int32_t>(1, r, count);
      all.insert(all.end(), part.begin(), part.end());
    }
    const auto own = elements<std::int32_t>(1, c.rank(), count);
    const auto same = [](auto a, const auto& b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); };

    // all_gather: in at the start of out, in at its own place in out, in across the middle.
    for (const std::size_t at : {std::size_t{0}, me * count, (me * count + 2) % (count * n - count + 1)}) {
      std::vector<std::int32_t> out(count * n, -1);
      std::copy(own.begin(), own.end(), out.begin() + static_cast<std::ptrdiff_t>(at));
      c.all_gather(std::span(out).subspan(at, count), std::span(out));
      good &= out == all;
    }
    // all_reduce: out starts one element after in.
    std::vector<std::int32_t> buffer(count + 1);
    std::copy(own.begin(), own.end(), buffer.begin());
    c.all_reduce(std::span(buffer).first(count), std::span(buffer).subspan(1));
    std::vector<std::int32_t> wanted(count);
    for (std::size_t i = 0; i < count; ++i) {
      std::uint32_t sum = 0;
      for (std::size_t r = 0; r < n; ++r) sum += static_cast<std::uint32_t>(all[r * count + i]);
      wanted[i] = static_cast<std::int32_t>(sum);
    }
    good &= same(std::span(buffer).subspan(1), wanted);
    // reduce_scatter: out at the start of in, at its own place in in.
    for (const std::size_t at : {std::size_t{0}, me * count}) {
      auto whole = elements<std::int32_t>(9, c.rank(), count * n);
      std::vector<std::int32_t> part(count);
      c.reduce_scatter(std::span(whole), std::span(part));
      c.reduce_scatter(std::span(whole), std::span(whole).subspan(at, count));
      good &= same(std::span(whole).subspan(at, count), part);
    }
    // all_to_all: in place.
    auto whole = elements<std::int32_t>(11, c.rank(), count * n);
    const auto before = whole;
    std::vector<std::int32_t> apart(count * n);
    const std::vector<std::size_t> counts(n, count);
    c.all_to_all(std::span(before), counts, std::span(apart), counts);
    c.all_to_all(std::span(whole), counts, std::span(whole), counts);
    good &= whole == apart;
    return good;
  });
  for (const bool good : ok) CHECK(good);
}

TEMPLATE_TEST_CASE("split makes groups that are ordered by key and count for themselves", "[communication]", OnThreads,
                   OnSimulated) {
  const int ranks = GENERATE(1, 2, 3, 4, 5, 8);
  TestType on(5);
  const auto texts = run_ranks(ranks, [&](auto& rank) {
    Communication world{rank, on.transport()};
    std::ostringstream text;
    auto parity = world.split(world.rank() % 2, -world.rank());  // highest first
    text << parity.rank() << '/' << parity.world_size();
    std::int32_t sum = world.rank();
    for (int i = 0; i < world.rank() % 2 + 1; ++i) parity.all_reduce(std::span(&sum, 1));
    auto alone = parity.split(parity.rank(), 0);
    alone.all_reduce(std::span(&sum, 1));
    std::int32_t from = world.rank();
    parity.broadcast(std::span(&from, 1), Root{0});
    world.barrier();
    text << " sum " << sum << " root " << from << " sequence " << parity.sequence() << ' ' << world.sequence();
    return text.str();
  });
  for (int r = 0; r < ranks; ++r) {
    std::vector<int> members;
    for (int other = ranks - 1; other >= 0; --other)
      if (other % 2 == r % 2) members.push_back(other);
    int place = 0, sum = std::accumulate(members.begin(), members.end(), 0);
    while (members[static_cast<std::size_t>(place)] != r) ++place;
    const int size = static_cast<int>(members.size());
    if (r % 2 == 1) sum *= size;
    CHECK(texts[static_cast<std::size_t>(r)] == std::to_string(place) + "/" + std::to_string(size) + " sum " +
                                                    std::to_string(sum) + " root " + std::to_string(members[0]) +
                                                    " sequence " + std::to_string(r % 2 + 3) + " 2");
  }
}

TEMPLATE_TEST_CASE("Wrong arguments name the valid ones, send nothing and leave the communication usable",
                   "[communication]", OnThreads, OnSimulated) {
  TestType on(1);
  const auto texts = run_ranks(2, [&](auto& rank) {
    Communication c{rank, on.transport()};
    std::string text;
    const auto attempt = [&](auto&& f) {
      try {
        f();
        text += "no error\n";
      } catch (const Error& error) {
        text += error.fault() == Fault::invalid_argument ? std::string(error.what()) + "\n" : "wrong fault\n";
      }
    };
    std::vector<float> a(4), b(7);
    const std::vector<std::size_t> short_counts{4}, wrong_sum{4, 4}, wrong_own{3, 4}, huge{SIZE_MAX, 8};
    attempt([&] { c.all_reduce(std::span(a), std::span(b)); });
    attempt([&] { c.all_gather(std::span(a), std::span(b)); });
    attempt([&] { c.reduce_scatter(std::span(b), std::span(a)); });
    attempt([&] { c.all_gather(std::span(a), std::span(b), short_counts); });
    attempt([&] { c.all_gather(std::span(a), std::span(b), wrong_sum); });
    if (c.rank() == 0)
      attempt([&] { c.all_gather(std::span(a), std::span(b), wrong_own); });
    else
      attempt([&] { c.all_gather(std::span(a).first(3), std::span(b), wrong_own); });
    attempt([&] { c.reduce_scatter(std::span(b), std::span(a), huge); });
    attempt([&] { c.broadcast(std::span(a), Root{2}); });
    attempt([&] { c.broadcast(std::span(a), Root{-1}); });
    attempt([&] { c.send(std::span(a), 2); });
    attempt([&] { c.recv(std::span(a), c.rank()); });
    attempt([&] { c.split(-1, 0); });
    if (c.sequence() != 0) text += "a wrong call counted\n";
    std::int32_t one = 1;
    c.all_reduce(std::span(&one, 1));
    if (one != 2) text += "unusable\n";
    return text;
  });
  for (const auto& text : texts) {
    using Catch::Matchers::ContainsSubstring;
    CHECK_THAT(text,
               ContainsSubstring("all_reduce over 2 ranks: in has 4 elements and out 7; a valid size of out is 4"));
    CHECK_THAT(text, ContainsSubstring("a valid size of out is 8"));
    CHECK_THAT(text, ContainsSubstring("one count per rank is needed, 2 in all, not 1"));
    CHECK_THAT(text, ContainsSubstring("root: 2 is no rank; there are 0 to 1"));
    CHECK_THAT(text, ContainsSubstring("cannot send to or receive from itself"));
    CHECK_THAT(text, !ContainsSubstring("no error"));
    CHECK_THAT(text, !ContainsSubstring("wrong"));
    CHECK_THAT(text, !ContainsSubstring("unusable"));
  }
}

TEST_CASE("A deadline of zero is refused") {
  CHECK_THROWS_AS(run_ranks(1,
                            [](auto& rank) {
                              Communication c{rank, Threads{}, {.deadline = std::chrono::seconds(0)}};
                            }),
                  Error);
}

TEST_CASE("Collectives appear in the trace with their bytes", "[communication]") {
  Trace trace;
  run_ranks(
      2,
      [](auto& rank) {
        Communication c{rank, Threads{}};
        std::vector<float> data(10);
        c.all_reduce(std::span(data));
        c.barrier();
      },
      &trace);
  std::ostringstream json;
  trace.write(json);
  using Catch::Matchers::ContainsSubstring;
  CHECK_THAT(json.str(), ContainsSubstring("\"all_reduce\"") && ContainsSubstring("\"bytes\":40") &&
                             ContainsSubstring("\"barrier\"") && ContainsSubstring("rank 1 communication"));
}
