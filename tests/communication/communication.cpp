// SPDX-License-Identifier: Apache-2.0
#include <troika/communication/communication.hpp>

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "communication/support.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

using namespace troika;
using namespace troika::test;

namespace {

// Every operation once, on one rank, against what the test works out itself. Gives what differs.
template <Element E, class C>
std::string check_operations(C& c, std::uint64_t seed, std::size_t count) {
  const int n = c.world_size(), me = c.rank();
  const auto ranks = static_cast<std::size_t>(n), mine = static_cast<std::size_t>(me);
  std::string wrong;
  const auto expect = [&](const std::vector<E>& got, const std::vector<E>& wanted, const std::string& what) {
    if (same_bits(got, wanted)) return;
    wrong += what + " of " + std::to_string(count) + " " + std::string(to_string(dtype_of<E>)) + " on rank " +
             std::to_string(me) + " of " + std::to_string(n) + "; ";
  };

  std::vector<std::vector<E>> in(ranks);
  for (int r = 0; r < n; ++r) in[static_cast<std::size_t>(r)] = elements<E>(seed, r, count);
  for (const Reduction reduction : {Reduction::sum, Reduction::max}) {
    std::vector<E> wanted(count), terms(ranks), out(count);
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t r = 0; r < ranks; ++r) terms[r] = in[r][i];
      wanted[i] = reduced(terms, reduction);
    }
    const std::string name(to_string(reduction));
    c.all_reduce(std::span<const E>(in[mine]), std::span<E>(out), reduction);
    expect(out, wanted, "all_reduce " + name);
    std::vector<E> in_place = in[mine];
    c.all_reduce(std::span<E>(in_place), reduction);
    expect(in_place, wanted, "all_reduce in place " + name);

    const std::size_t part = count / ranks;
    const auto begin = wanted.begin() + static_cast<std::ptrdiff_t>(part * mine);
    const std::vector<E> wanted_part(begin, begin + static_cast<std::ptrdiff_t>(part));
    std::vector<E> scattered(part);
    c.reduce_scatter(std::span<const E>(in[mine]).first(part * ranks), std::span<E>(scattered), reduction);
    expect(scattered, wanted_part, "reduce_scatter " + name);

    // Rank r gets a share that grows with r; the last one the rest; rank 1 nothing.
    std::vector<std::size_t> counts(ranks, 0);
    std::size_t given = 0;
    for (std::size_t r = 0; r + 1 < ranks; ++r) given += counts[r] = r == 1 ? 0 : count * (r + 1) / (ranks * ranks + 1);
    counts.back() = count - given;
    const std::size_t skip = std::accumulate(counts.begin(), counts.begin() + me, std::size_t{0});
    scattered.assign(counts[mine], E{});
    c.reduce_scatter(std::span<const E>(in[mine]), std::span<E>(scattered), counts, reduction);
    const auto uneven = wanted.begin() + static_cast<std::ptrdiff_t>(skip);
    expect(scattered, {uneven, uneven + static_cast<std::ptrdiff_t>(counts[mine])}, "uneven reduce_scatter " + name);

    std::vector<E> gathered(count);
    c.all_gather(std::span<const E>(scattered), std::span<E>(gathered), counts);
    expect(gathered, wanted, "uneven all_gather " + name);
  }

  std::vector<E> all;
  for (const auto& part : in) all.insert(all.end(), part.begin(), part.end());
  std::vector<E> out(count * ranks);
  c.all_gather(std::span<const E>(in[mine]), std::span<E>(out));
  expect(out, all, "all_gather");

  for (int root = 0; root < n; ++root) {
    std::vector<E> data = in[mine];
    c.broadcast(std::span<E>(data), Root{root});
    expect(data, in[static_cast<std::size_t>(root)], "broadcast");
  }

  // Rank i sends (i * 7 + j * 3) % 5 * count / 8 elements to rank j: zeros among them.
  const auto sends = [&](int i, int j) { return static_cast<std::size_t>((i * 7 + j * 3) % 5) * count / 8; };
  std::vector<std::size_t> send_counts, recv_counts;
  std::vector<E> sent, received, wanted;
  for (int peer = 0; peer < n; ++peer) {
    send_counts.push_back(sends(me, peer));
    recv_counts.push_back(sends(peer, me));
    for (std::size_t i = 0; i < sends(me, peer); ++i) sent.push_back(element<E>(seed + 1 + mine, peer, i));
    for (std::size_t i = 0; i < sends(peer, me); ++i) {
      wanted.push_back(element<E>(seed + 1 + static_cast<std::uint64_t>(peer), me, i));
    }
  }
  received.resize(wanted.size());
  c.all_to_all(std::span<const E>(sent), send_counts, std::span<E>(received), recv_counts);
  expect(received, wanted, "all_to_all");

  // A ring of messages: the even ones send first.
  if (n > 1) {
    const int next = (me + 1) % n, previous = (me + n - 1) % n;
    std::vector<E> message(count);
    if (me % 2 == 0) c.send(std::span<const E>(in[mine]), next);
    c.recv(std::span<E>(message), previous);
    if (me % 2 == 1) c.send(std::span<E>(in[mine]), next);
    expect(message, in[static_cast<std::size_t>(previous)], "ring");
  }
  c.barrier();
  return wrong;
}

}  // namespace

TEMPLATE_TEST_CASE("Every operation gives what a naive loop gives, for every type, size and world", "[communication]",
                   OnThreads, OnStagelessThreads, OnSimulated) {
  const int ranks = GENERATE(1, 2, 3, 4, 5, 8);
  TestType on(static_cast<std::uint64_t>(ranks));
  const auto wrong = run_ranks(ranks, [&](auto& rank) {
    Communication c{rank, on.transport()};
    std::string text;
    std::uint64_t seed = 0;
    for (const std::size_t count : {0, 1, 3, 17, 64, 1000, 5003}) {
      text += check_operations<float>(c, ++seed, count);
      text += check_operations<f16>(c, ++seed, count);
      text += check_operations<bf16>(c, ++seed, count);
      text += check_operations<std::int32_t>(c, ++seed, count);
      text += check_operations<std::int8_t>(c, ++seed, count);
      text += check_operations<std::uint8_t>(c, ++seed, count);
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
    return check_operations<float>(c, 1, (1 << 18) + 5) + check_operations<bf16>(c, 2, (1 << 18) - 1) +
           check_operations<std::int8_t>(c, 3, 1 << 18);
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
