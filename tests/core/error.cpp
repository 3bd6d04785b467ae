// SPDX-License-Identifier: Apache-2.0
#include <string>

#include <support/catch.hpp>

#include <troika/core/error.hpp>

TEST_CASE("an error says what happened, where, to whom, and of which kind") {
  const troika::Error error(troika::Fault::timeout, "rank 2 did not arrive in 30 s", {2, "all_reduce", 17});
  CHECK(std::string(error.what()) == "all_reduce #17: rank 2 did not arrive in 30 s (rank 2) [timeout]");
  CHECK(error.fault() == troika::Fault::timeout);
  CHECK(error.rank() == 2);
  CHECK(error.operation() == "all_reduce");
  CHECK(error.sequence() == 17);
}

TEST_CASE("the text of an expectation is built only when it fails") {
  bool built = false;
  troika::expects(true, [&] {
    built = true;
    return std::string();
  });
  CHECK_FALSE(built);
  CHECK_THROWS_WITH(troika::expects(false, "a world of 0"), "a world of 0 [invalid argument]");
}
