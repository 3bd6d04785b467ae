// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace troika {

// Of a device that does its work as it is given.
struct NoGraphs {
  explicit NoGraphs(auto&) {}
  template <class Step, class Meet>
  auto run(Step&& step, Meet&&) {
    return step();
  }
};

namespace detail {
template <class D>
struct GraphsOf {
  using type = NoGraphs;
};
template <class D>
requires requires { typename D::Graphs; }
struct GraphsOf<D> {
  using type = typename D::Graphs;
};
}  // namespace detail

// How steps of one kind, one after the other, are given to a device: GraphsOf<D>(device).run(step, meet).
template <class D>
using GraphsOf = typename detail::GraphsOf<D>::type;

}  // namespace troika
