// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include <support/catch.hpp>

#include <troika/serving/page_pool.hpp>

using Tokens = std::vector<std::int32_t>;
using troika::serving::PagePool;

namespace {

constexpr auto page_tokens = static_cast<std::size_t>(troika::kv_page);

// `pages` pages of one of few kinds each, so that texts often begin alike, and some tokens more.
Tokens text_of(std::mt19937& random, std::size_t pages, std::size_t more) {
  Tokens text;
  for (std::size_t i = 0; i < pages; ++i) text.insert(text.end(), page_tokens, static_cast<std::int32_t>(random() % 3));
  text.insert(text.end(), more, 7);
  return text;
}

}  // namespace

TEST_CASE("a text finds the pages of what it begins with, but never its last token") {
  PagePool pool(8);
  Tokens text(3 * page_tokens, 1);
  std::fill(text.begin() + page_tokens, text.begin() + 2 * page_tokens, 2);
  Tokens pages;
  auto before = PagePool::none;
  for (std::size_t i = 0; i < 3; ++i) {
    pages.push_back(pool.take().value());
    before = pool.remember(before, std::span(text).subspan(i * page_tokens, page_tokens), pages.back());
    CHECK(before == pages.back());
  }
  CHECK(pool.used() == 3);
  CHECK(pool.find(text) == Tokens{pages[0], pages[1]});  // the third would hold the last token
  auto longer = text;
  longer.push_back(5);
  CHECK(pool.find(longer) == pages);
  auto other = longer;
  other[page_tokens + 5] = 9;
  CHECK(pool.find(other) == Tokens{pages[0]});
  CHECK(pool.find(std::span(text).subspan(page_tokens)).empty());  // the same tokens at another place are another page
  CHECK(pool.find({}).empty());
}

TEST_CASE("what nobody uses is found again until its place is needed, the oldest going first") {
  PagePool pool(3);
  const Tokens a(page_tokens + 1, 1), b(page_tokens + 1, 2), c(page_tokens + 1, 3);
  Tokens pages;
  for (const auto& text : {a, b, c}) {
    pages.push_back(pool.take().value());
    pool.remember(PagePool::none, std::span(text).first(page_tokens), pages.back());
  }
  CHECK(!pool.take());
  for (const auto page : pages) pool.give_back({&page, 1});
  CHECK(pool.available() == 3);
  pool.give_back(pool.find(a));  // now b is the oldest
  CHECK(pool.take() == pages[1]);
  CHECK(pool.find(b).empty());
  CHECK(pool.find(a) == Tokens{pages[0]});
  CHECK(pool.find(c) == Tokens{pages[2]});
  CHECK(!pool.take());
}

TEST_CASE("two pages that hold the same become one") {
  PagePool pool(2);
  const Tokens text(page_tokens, 4);
  const auto first = pool.take().value(), second = pool.take().value();
  CHECK(pool.remember(PagePool::none, text, first) == first);
  CHECK(pool.remember(PagePool::none, text, second) == first);
  CHECK(pool.used() == 1);
  pool.give_back({&first, 1});
  CHECK(pool.used() == 1);  // the second user is left
  pool.give_back({&first, 1});
  CHECK(pool.used() == 0);
}

TEST_CASE("whatever is taken, found, remembered and given back, a page that is found holds what it should") {
  for (std::uint32_t seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    PagePool pool(6 + seed % 7);
    std::vector<Tokens> holds(static_cast<std::size_t>(pool.size()));  // the whole text up to the end of each page
    struct User {
      Tokens text, pages;
    };
    std::vector<User> users;
    for (int round = 0; round < 400; ++round) {
      if (!users.empty() && (random() % 2 == 0 || pool.available() == 0)) {
        const auto i = random() % users.size();
        pool.give_back(users[i].pages);
        users.erase(users.begin() + static_cast<std::ptrdiff_t>(i));
        continue;
      }
      User user{text_of(random, random() % 5, 1 + random() % 20), {}};
      user.pages = pool.find(user.text);
      for (std::size_t i = 0; i < user.pages.size(); ++i) {
        REQUIRE(holds[static_cast<std::size_t>(user.pages[i])] ==
                Tokens(user.text.begin(), user.text.begin() + static_cast<std::ptrdiff_t>((i + 1) * page_tokens)));
      }
      for (auto i = user.pages.size(); i < user.text.size() / page_tokens; ++i) {
        const auto page = pool.take();
        if (!page) break;
        for (const auto& other : users) REQUIRE(std::ranges::find(other.pages, *page) == other.pages.end());
        holds[static_cast<std::size_t>(*page)].assign(
            user.text.begin(), user.text.begin() + static_cast<std::ptrdiff_t>((i + 1) * page_tokens));
        const auto before = i == 0 ? PagePool::none : user.pages[i - 1];
        user.pages.push_back(pool.remember(before, std::span(user.text).subspan(i * page_tokens, page_tokens), *page));
      }
      users.push_back(std::move(user));
      std::set<std::int32_t> used;
      for (const auto& some : users) used.insert(some.pages.begin(), some.pages.end());
      REQUIRE(pool.used() == static_cast<std::int64_t>(used.size()));
    }
    for (const auto& user : users) pool.give_back(user.pages);
    REQUIRE(pool.available() == pool.size());
  }
}
