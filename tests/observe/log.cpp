// SPDX-License-Identifier: Apache-2.0
#include <troika/observe/log.hpp>

#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.hpp"

using namespace troika;

TEST_CASE("A log hands messages to its sink and drops those below its level") {
  std::vector<std::string> seen;
  const Log log(
      [&](LogLevel level, std::string_view text) {
        seen.push_back(std::string(to_string(level)) + ": " + std::string(text));
      },
      LogLevel::info);
  log.write(LogLevel::debug, "a");
  log.write(LogLevel::info, "b");
  log.write(LogLevel::error, "c");
  CHECK(seen == std::vector<std::string>{"info: b", "error: c"});
}

TEST_CASE("A sink that throws, and no sink at all, change nothing for the writer") {
  const Log throwing([](LogLevel, std::string_view) { throw std::runtime_error("full disk"); });
  CHECK_NOTHROW(throwing.write(LogLevel::error, "x"));
  CHECK_NOTHROW(Log::silent().write(LogLevel::error, "x"));
}

TEST_CASE("The sink is called by one thread at a time") {
  std::vector<int> lengths;  // not thread-safe by itself
  const Log log([&](LogLevel, std::string_view text) { lengths.push_back(static_cast<int>(text.size())); });
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([copy = log] {
      for (int k = 0; k < 500; ++k) copy.write(LogLevel::info, "abc");
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(lengths == std::vector<int>(2000, 3));
}
