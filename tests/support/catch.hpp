// SPDX-License-Identifier: Apache-2.0
#pragma once

// Catch2 2.13 (Debian 12) and 3 (Ubuntu 24.04) under one include. Write Catch::Approx,
// Catch::Matchers::ContainsSubstring, Catch::Matchers::WithinAbs; both have REQUIRE_THROWS_MATCHES, SECTION, GENERATE,
// TEMPLATE_TEST_CASE, DYNAMIC_SECTION.

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>

namespace Catch {
using Detail::Approx;
namespace Matchers {
inline auto ContainsSubstring(const std::string& part) { return Contains(part); }
}  // namespace Matchers
}  // namespace Catch
#endif

#include <iostream>

// Ends a test that cannot run here, and makes ctest say "Skipped" instead of "Passed".
#define TROIKA_SKIP(reason)                     \
  do {                                          \
    std::cout << "SKIPPED: " << reason << '\n'; \
    SUCCEED("skipped");                         \
    return;                                     \
  } while (false)
