// SPDX-License-Identifier: Apache-2.0
#include <limits>
#include <random>
#include <vector>

#include <support/catch.hpp>

#include <troika/core/partition.hpp>

using troika::Error;
using troika::Partition;
using troika::Range;

TEST_CASE("an even partition gives the lower ranks one unit more") {
  const auto partition = Partition::even(11, 4);
  CHECK(partition.to_string() == "0..2 | 3..5 | 6..8 | 9..10");
  CHECK(partition.extent() == 11);
  CHECK(partition.parts() == 4);
  CHECK(partition.is_disjoint());
}

TEST_CASE("more ranks than rows leave the last ranks with nothing to do") {
  const auto partition = Partition::even(3, 5);
  CHECK(partition.to_string() == "0..0 | 1..1 | 2..2 | - | -");
  CHECK(partition[3].empty());
  CHECK(partition[4].size() == 0);
}

TEST_CASE("alignment keeps quantisation blocks whole") {
  const auto partition = Partition::even(256 * 5, 3, 256);
  CHECK(partition[0].size() == 512);
  CHECK(partition[1].size() == 512);
  CHECK(partition[2].size() == 256);
  CHECK_THROWS_WITH(Partition::even(1000, 3, 256), Catch::Matchers::ContainsSubstring("multiples of 256"));
}

TEST_CASE("weights of 1 to 3 give a quarter and three quarters") {
  const double weights[] = {1, 3};
  const auto partition = Partition::weighted(1000, weights);
  CHECK(partition[0] == Range{0, 250});
  CHECK(partition[1] == Range{250, 1000});
}

TEST_CASE("any weighted partition covers the extent once, within one unit of the ideal") {
  std::mt19937 random(7);
  for (int run = 0; run < 2000; ++run) {
    const auto parts = 1 + random() % 9;
    const std::int64_t align = 1 + static_cast<std::int64_t>(random() % 5);
    const std::int64_t units = static_cast<std::int64_t>(random() % 200);
    std::vector<double> weights(parts);
    double total = 0;
    for (auto& weight : weights) total += weight = random() % 4 == 0 ? 0.0 : static_cast<double>(random() % 1000) / 7;
    if (total == 0) total = weights[0] = 1;
    const auto partition = Partition::weighted(units * align, weights, align);
    std::int64_t at = 0;
    for (std::size_t r = 0; r < parts; ++r) {
      const auto range = partition[static_cast<int>(r)];
      REQUIRE(range.begin == at);
      REQUIRE(range.size() % align == 0);
      const double ideal = static_cast<double>(units) * weights[r] / total;
      REQUIRE(std::abs(static_cast<double>(range.size() / align) - ideal) < 1.0 + 1e-9);
      if (weights[r] == 0) REQUIRE(range.empty());
      at = range.end;
    }
    REQUIRE(at == units * align);
  }
}

TEST_CASE("sizes by hand must add up") {
  const std::int64_t sizes[] = {4, 0, 8};
  CHECK(Partition::by_hand(12, sizes, 4).to_string() == "0..3 | - | 4..11");
  CHECK_THROWS_WITH(Partition::by_hand(16, sizes), Catch::Matchers::ContainsSubstring("add up to 12"));
  CHECK_THROWS_AS(Partition::by_hand(8, sizes), Error);
  CHECK_THROWS_WITH(Partition::by_hand(12, sizes, 3), Catch::Matchers::ContainsSubstring("multiples of 3"));
}

TEST_CASE("query heads bring the KV heads that they read") {
  CHECK(Partition::even(8, 2, 4).covering(4).to_string() == "0..0 | 1..1");
  // More ranks than KV heads: each KV head is held by every rank that reads it.
  const auto kv = Partition::even(8, 5).covering(4);
  CHECK(kv.to_string() == "0..0 | 0..0 | 1..1 | 1..1 | 1..1");
  CHECK_FALSE(kv.is_disjoint());
  // A boundary inside of a group: the middle rank reads both.
  CHECK(Partition::even(8, 3).covering(4).to_string() == "0..0 | 0..1 | 1..1");
  // A rank without query heads needs no KV head.
  CHECK(Partition::even(2, 3).covering(2).to_string() == "0..0 | 0..0 | -");
  CHECK_THROWS_AS(Partition::even(8, 2).covering(3), Error);
}

TEST_CASE("a partition of heads scales to features") {
  CHECK(Partition::even(3, 2).scaled(64).to_string() == "0..127 | 128..191");
}

TEST_CASE("nonsense is refused with the valid values") {
  const double negative[] = {1, -1}, none[] = {0, 0}, nan[] = {1, std::numeric_limits<double>::quiet_NaN()};
  CHECK_THROWS_WITH(Partition::even(8, 0), Catch::Matchers::ContainsSubstring("at least 1"));
  CHECK_THROWS_AS(Partition::even(-1, 2), Error);
  CHECK_THROWS_AS(Partition::even(8, 2, 0), Error);
  CHECK_THROWS_AS(Partition::weighted(8, negative), Error);
  CHECK_THROWS_AS(Partition::weighted(8, none), Error);
  CHECK_THROWS_AS(Partition::weighted(8, nan), Error);
}

TEST_CASE("a joined partition remembers its pieces, scaled or not") {
  const auto pieces = Partition::even(11, 8);
  const auto joined = pieces.joined(2);
  CHECK(joined.to_string() == "0..6 | 7..10");
  REQUIRE(joined.pieces(1).size() == 4);
  CHECK(joined.pieces(1)[0] == Range{7, 8});
  CHECK(joined.scaled(4).pieces(0)[3] == Range{24, 28});
  CHECK(joined == Partition::by_hand(11, std::vector<std::int64_t>{7, 4}));  // who holds what is all that counts
  CHECK(pieces.pieces(3).size() == 1);
  CHECK(pieces.pieces(3)[0] == pieces[3]);
  CHECK_THROWS_WITH(pieces.joined(3), Catch::Matchers::ContainsSubstring("8 parts cannot be joined to 3"));
}

TEST_CASE("invariant shares cut in the same places for 1, 2, 4 and 8 ranks, and refuse others") {
  const auto whole = troika::Shares{{1}, true}.partition(1000, 10);
  for (const std::size_t world : {2u, 4u, 8u}) {
    const auto partition = troika::Shares{std::vector<double>(world, 0.5), true}.partition(1000, 10);
    std::size_t next = 0;
    for (int rank = 0; rank < partition.parts(); ++rank) {
      for (const Range piece : partition.pieces(rank)) CHECK(piece == whole.pieces(0)[next++]);
    }
    CHECK(next == 8);
  }
  using Catch::Matchers::ContainsSubstring;
  CHECK_THROWS_WITH((troika::Shares{{1, 1, 1}, true}.partition(8)), ContainsSubstring("1, 2, 4 or 8 ranks, not on 3"));
  CHECK_THROWS_WITH((troika::Shares{{1, 3}, true}.partition(8)), ContainsSubstring("equal shares, not 1.0"));
}
