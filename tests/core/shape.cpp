// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <vector>

#include <support/catch.hpp>

#include <troika/core/shape.hpp>

using troika::Error;
using troika::Shape;
using troika::View;

TEST_CASE("a shape counts, compares and prints") {
  const Shape shape{2, 3, 5};
  CHECK(shape.dims() == 3);
  CHECK(shape.count() == 30);
  CHECK(shape.outer(1) == 2);
  CHECK(shape.inner(1) == 5);
  CHECK(shape.with(1, 7) == Shape{2, 7, 5});
  CHECK(shape.to_string() == "(2, 3, 5)");
  CHECK(Shape{}.count() == 1);
  CHECK(Shape{4, 0}.count() == 0);
}

TEST_CASE("shapes that a hostile file may state are refused") {
  CHECK_THROWS_AS((Shape{-1}), Error);
  CHECK_THROWS_AS((Shape{1, 1, 1, 1, 1}), Error);
  CHECK_THROWS_AS((Shape{std::int64_t{1} << 40, std::int64_t{1} << 40}), Error);
  CHECK_THROWS_AS((Shape{2, 2}.with(2, 1)), Error);
}

TEST_CASE("a view gives rows and other shapes of the same memory") {
  std::vector<int> data{0, 1, 2, 3, 4, 5};
  const View<int> view(data.data(), {3, 2});
  CHECK(view.rows(1, 3)[0] == 2);
  CHECK(view.rows(1, 3).shape() == Shape{2, 2});
  CHECK(view.rows(3, 3).count() == 0);
  CHECK(view.reshaped({6}).shape() == Shape{6});
  CHECK_THROWS_AS(view.rows(2, 4), Error);
  CHECK_THROWS_AS(view.reshaped({5}), Error);
}
