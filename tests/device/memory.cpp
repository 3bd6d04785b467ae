// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include <troika/device/host/memory.hpp>

using namespace troika;

TEST_CASE("a block has at most a third of slack, and starts on a cache line") {
  for (std::size_t wanted = 64; wanted < 3'000'000; wanted = wanted * 9 / 8 + 1) {
    auto pool = std::make_shared<HostPool>();
    auto buffer = pool->allocate(wanted);
    CAPTURE(wanted);
    REQUIRE(pool->reserved() >= wanted);
    // Below 192 bytes only powers of two are whole cache lines.
    REQUIRE(3 * (pool->reserved() - wanted) <= (wanted < 192 ? 3 * 64 : pool->reserved() + 3));
    REQUIRE(reinterpret_cast<std::uintptr_t>(buffer.data()) % HostPool::alignment == 0);
    buffer.data()[wanted - 1] = std::byte{1};
  }
}

TEST_CASE("nothing can be allocated, too") {
  auto pool = std::make_shared<HostPool>();
  auto buffer = pool->allocate(0);
  REQUIRE(pool->reserved() <= 64);
}

TEST_CASE("a freed block serves the next tensor of its size") {
  auto pool = std::make_shared<HostPool>();
  const std::byte* first = nullptr;
  {
    auto buffer = pool->allocate(1000);
    first = buffer.data();
  }
  const auto reserved = pool->reserved();
  for (int i = 0; i < 100; ++i) {
    auto buffer = pool->allocate(900 + static_cast<std::size_t>(i));
    REQUIRE(buffer.data() == first);
  }
  REQUIRE(pool->reserved() == reserved);
}

TEST_CASE("an exact block has the slack of a cache line at most, and is not kept") {
  for (const std::size_t wanted :
       {std::size_t{0}, std::size_t{1}, std::size_t{65}, std::size_t{5000}, std::size_t{70'000'000}}) {
    auto pool = std::make_shared<HostPool>();
    {
      auto buffer = pool->allocate_exact(wanted);
      CAPTURE(wanted);
      REQUIRE(pool->reserved() >= wanted);
      REQUIRE(pool->reserved() <= wanted + HostPool::alignment);
      REQUIRE(reinterpret_cast<std::uintptr_t>(buffer.data()) % HostPool::alignment == 0);
      buffer.data()[wanted > 0 ? wanted - 1 : 0] = std::byte{1};
    }
    REQUIRE(pool->reserved() <= 128);  // a size that is also one of kept blocks may stay
  }
  auto limited = std::make_shared<HostPool>(std::size_t{4096});
  auto most = limited->allocate_exact(4000);
  REQUIRE_THROWS_AS(limited->allocate_exact(200), Error);
  REQUIRE_THROWS_AS(limited->allocate_exact(SIZE_MAX), Error);
}

TEST_CASE("blocks above the largest kept size go back to the system") {
  auto pool = std::make_shared<HostPool>();
  {
    auto buffer = pool->allocate(HostPool::largest_kept + 1);
    REQUIRE(pool->reserved() > HostPool::largest_kept);
  }
  REQUIRE(pool->reserved() == 0);
}

TEST_CASE("large blocks begin where a huge page may, are fresh, and are known while they are there") {
  auto pool = std::make_shared<HostPool>();
  REQUIRE(pool->large_blocks().empty());
  auto small = pool->allocate_exact(1 << 20);
  {
    auto exact = pool->allocate_exact(5'000'001), kept = pool->allocate(9'000'000);
    for (const auto* buffer : {&exact, &kept}) {
      REQUIRE(reinterpret_cast<std::uintptr_t>(buffer->data()) % detail::huge_page == 0);
      REQUIRE(std::ranges::count(std::span(buffer->data(), 5'000'001), std::byte{0}) == 5'000'001);
    }
    exact.data()[5'000'000] = kept.data()[8'999'999] = std::byte{1};
    const auto blocks = pool->large_blocks();
    REQUIRE(blocks.size() == 2);
    REQUIRE(blocks[0].data() == exact.data());
    REQUIRE(blocks[0].size() == 5'000'064);
    REQUIRE(blocks[1].size() == 12 << 20);
  }
  REQUIRE(pool->large_blocks().size() == 1);  // one is kept
  REQUIRE(pool->reserved() == (1 << 20) + (12 << 20));
  REQUIRE(pool->bind_error() == 0);
}

TEST_CASE("memory that the system does not have is an error, and takes nothing") {
  auto pool = std::make_shared<HostPool>();
  for (const std::size_t bytes : {SIZE_MAX / 2 + 1, SIZE_MAX - 100, std::size_t{1} << 62}) {
    REQUIRE_THROWS_AS(pool->allocate_exact(bytes), Error);
  }
  REQUIRE(pool->reserved() == 0);
  REQUIRE(pool->large_blocks().empty());
}

#if defined(__linux__)
TEST_CASE("a node that is not there cannot have memory, which is told and hurts nobody") {
  auto pool = std::make_shared<HostPool>(SIZE_MAX, std::vector<int>{1000});
  auto buffer = pool->allocate_exact(8 << 20);
  buffer.data()[(8 << 20) - 1] = std::byte{1};
  REQUIRE(pool->bind_error() != 0);
}
#endif

TEST_CASE("past the limit an allocation is an error that says how much was asked") {
  auto pool = std::make_shared<HostPool>(std::size_t{4096});
  auto buffer = pool->allocate(3000);
  try {
    auto more = pool->allocate(2000);
    FAIL("no error");
  } catch (const Error& error) {
    REQUIRE(error.fault() == Fault::out_of_memory);
    REQUIRE_THAT(error.what(), Catch::Matchers::ContainsSubstring("2000 bytes"));
  }
  auto some = pool->allocate(1000);  // the refused one took nothing
  REQUIRE_THROWS_AS(pool->allocate(SIZE_MAX), Error);
  REQUIRE_THROWS_AS(pool->allocate(SIZE_MAX - 100), Error);
}

TEST_CASE("a moved buffer is owned once") {
  auto pool = std::make_shared<HostPool>();
  auto a = pool->allocate(128);
  auto b = pool->allocate(128);
  const auto* data = a.data();
  b = std::move(a);
  REQUIRE(b.data() == data);
  auto c = std::move(b);
  REQUIRE(c.data() == data);
  auto d = pool->allocate(128);
  REQUIRE(d.data() != data);
}

TEST_CASE("a buffer may outlive its pool's owner and die on another thread") {
  auto pool = std::make_shared<HostPool>();
  std::vector<HostPool::Buffer> buffers;
  for (int i = 0; i < 200; ++i) buffers.push_back(pool->allocate(static_cast<std::size_t>(64 + 100 * i)));
  std::thread other([taken = std::move(buffers)]() mutable { taken.clear(); });
  for (int i = 0; i < 200; ++i) pool->allocate(static_cast<std::size_t>(64 + 100 * i)).data()[0] = std::byte{2};
  other.join();
  auto last = pool->allocate(64);
  pool.reset();
  last.data()[0] = std::byte{3};
}

TEST_CASE("threads that allocate at once get different blocks") {
  auto pool = std::make_shared<HostPool>();
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        auto buffer = pool->allocate(256);
        for (int j = 0; j < 256; ++j) buffer.data()[j] = static_cast<std::byte>(t);
        for (int j = 0; j < 256; ++j) wrong[t] += buffer.data()[j] != static_cast<std::byte>(t);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  REQUIRE(wrong == std::vector<int>(4, 0));
}
