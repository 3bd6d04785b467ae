// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <troika/core/partition.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/second_stream.hpp>
#include <troika/device/tensor.hpp>
#include <troika/device/weight.hpp>
#include <troika/sync/chunking.hpp>
#include <troika/sync/dtensor.hpp>

// Products of a device that multiplies some rows while ranks exchange what it has made of others.
namespace troika::detail {

// Products of one x, of which the device may make at once what it multiplies with.
template <Device D, std::size_t n>
void multiply_together(typename D::Stream& stream, View<const float> x, const std::array<Product<D>, n>& products) {
  if constexpr (requires { linear_together(stream, x, products); }) {
    linear_together(stream, x, products);
  } else {
    for (const auto& product : products)
      product.weight.visit([&](auto w) { linear(stream, x, w, product.y, product.bias); });
  }
}

inline Range part_of(Range rows, int parts, int i) {
  return {rows.begin + rows.size() * i / parts, rows.begin + rows.size() * (i + 1) / parts};
}

// Where rows are that are exchanged in parts: part i has the i-th part of the rows of each rank, in the order of ranks,
// and the parts lie one after the other.
struct RowsInParts {
  const Partition& rows;
  int parts;

  Range of(int rank, int i) const { return part_of(rows[rank], parts, i); }
  Range place(int i) const {
    Range place;
    for (int r = 0; r < rows.parts(); ++r) {
      place.begin += of(r, i).begin - rows[r].begin;
      place.end += of(r, i).end - rows[r].begin;
    }
    return place;
  }
  std::vector<std::size_t> counts(int i, std::int64_t width) const {
    std::vector<std::size_t> counts;
    for (int r = 0; r < rows.parts(); ++r) counts.push_back(static_cast<std::size_t>(of(r, i).size() * width));
    return counts;
  }
  // f(rows of a rank, their place) for each rank.
  template <class F>
  void for_each(int i, F&& f) const {
    auto begin = place(i).begin;
    for (int r = 0; r < rows.parts(); ++r) {
      const Range own = of(r, i);
      f(own, Range{begin, begin + own.size()});
      begin += own.size();
    }
  }
};

// multiply(i) for each part, and exchange(i) of it beside the product of the next.
template <HasSecondStream D, class Multiply, class Exchange>
void exchange_after(typename D::Stream& stream, int parts, Multiply&& multiply, Exchange&& exchange) {
  if (parts == 1) {
    multiply(0);
    return exchange(0);
  }
  typename D::SecondStream second(stream);
  for (int i = 0; i < parts; ++i) {
    multiply(i);  // before the host waits for the other ranks to exchange the part before it
    if (i > 0) second.give([&] { exchange(i - 1); });
    second.follow();
  }
  second.give([&] { exchange(parts - 1); });
  second.lead();
}

// exchange(i) for each part, beside the product of the part before, and then multiply(i).
template <HasSecondStream D, class Exchange, class Multiply>
void exchange_before(typename D::Stream& stream, int parts, Exchange&& exchange, Multiply&& multiply) {
  if (parts == 1) {
    exchange(0);
    return multiply(0);
  }
  typename D::SecondStream second(stream);
  second.give([&] { exchange(0); });
  for (int i = 0; i < parts; ++i) {
    second.lead();
    multiply(i);
    if (i + 1 < parts) second.give([&] { exchange(i + 1); });
  }
}

// The product of all rows of x after exchange(rows of it, which ones), which sums them over the ranks in place.
template <HasSecondStream D, class Pipeline, class Layer, class Exchange>
Tensor<float, D> summed(Pipeline& pipeline, const Layer& layer, View<const float> x, Exchange&& exchange) {
  auto& stream = pipeline.stream();
  const Shape shape{x.shape()[0], layer.outputs()};
  const auto run = [&](int parts, View<float> y, auto&& sum) {
    const auto part = [&](int i) { return part_of({0, shape[0]}, parts, i); };
    exchange_after<D>(
        stream, parts,
        [&](int i) { layer.multiply(x.rows(part(i).begin, part(i).end), y.rows(part(i).begin, part(i).end), stream); },
        [&](int i) { sum(y.rows(part(i).begin, part(i).end), part(i)); });
  };
  const auto timed = [&] {
    Tensor<float, D> y(stream.device(), shape);
    layer.multiply(x, y.view(), stream);
    return [&, y = std::move(y)](int parts) mutable {
      run(parts, y.view(), [&](View<float> some, Range) { pipeline.communication().all_reduce(some.span()); });
    };
  };
  const ExchangedProduct product{Operation::all_reduce, shape[0], layer.outputs(), layer.partition().extent()};
  const int parts = pipeline.sync().chunking().parts(pipeline.communication(), stream, product, timed);
  Tensor<float, D> y(stream.device(), shape);
  run(parts, y.view(), exchange);
  return y;
}

// This rank's rows of the product of all rows of x, summed over the ranks.
template <HasSecondStream D, class Pipeline, class Layer>
Tensor<float, D> scattered(Pipeline& pipeline, const Layer& layer, View<const float> x, const Partition& target) {
  auto& stream = pipeline.stream();
  auto& device = stream.device();
  const Shape shape{x.shape()[0], layer.outputs()};
  const Range mine = target[pipeline.rank()];
  const auto run = [&](int parts, View<float> piece) {
    const RowsInParts order{target, parts};
    Tensor<float, D> y(device, shape), ordered(device, parts == 1 ? Shape{0} : x.shape());
    const auto multiply = [&](int i) {
      const Range at = order.place(i);
      if (parts == 1) return layer.multiply(x, y.view(), stream);
      order.for_each(i, [&](Range rows, Range place) {
        copy(stream, x.rows(rows.begin, rows.end), ordered.view().rows(place.begin, place.end));
      });
      layer.multiply(std::as_const(ordered).view().rows(at.begin, at.end), y.view().rows(at.begin, at.end), stream);
    };
    const auto exchange = [&](int i) {
      const Range at = order.place(i), own = order.of(pipeline.rank(), i);
      pipeline.communication().reduce_scatter(std::as_const(y).view().rows(at.begin, at.end).span(),
                                              piece.rows(own.begin - mine.begin, own.end - mine.begin).span(),
                                              order.counts(i, shape[1]));
    };
    exchange_after<D>(stream, parts, multiply, exchange);
  };
  const Shape piece_shape{mine.size(), shape[1]};
  const auto timed = [&] {
    Tensor<float, D> piece(device, piece_shape), y(device, shape), ordered(device, x.shape());
    layer.multiply(x, y.view(), stream);
    return [&, piece = std::move(piece)](int parts) mutable { run(parts, piece.view()); };
  };
  const ExchangedProduct product{Operation::reduce_scatter, shape[0], shape[1], layer.partition().extent()};
  const int parts = pipeline.sync().chunking().parts(pipeline.communication(), stream, product, timed);
  Tensor<float, D> piece(device, piece_shape);
  run(parts, piece.view());
  return piece;
}

// What each product gives for the rows that all ranks have of x. `outputs`: of all ranks, together.
// multiply(stream, x, products) is called for some rows of all at a time.
template <HasSecondStream D, class Pipeline, std::size_t n, class Multiply>
void gathered(Pipeline& pipeline, const DTensor<float, Shard<0>, D>& x, const std::array<Product<D>, n>& products,
              std::int64_t outputs, const Multiply& multiply) {
  auto& stream = pipeline.stream();
  auto& device = stream.device();
  const Range mine = x.partition()[pipeline.rank()];
  const auto run = [&](int parts) {
    const RowsInParts order{x.partition(), parts};
    Tensor<float, D> whole(device, x.shape());
    std::array<Tensor<float, D>, n> ordered;  // rows of y as they are in `whole`
    if (parts > 1)
      for (std::size_t p = 0; p < n; ++p) ordered[p] = Tensor<float, D>(device, products[p].y.shape());
    const auto exchange = [&](int i) {
      const Range at = order.place(i), own = order.of(pipeline.rank(), i);
      pipeline.communication().all_gather(x.local().rows(own.begin - mine.begin, own.end - mine.begin).span(),
                                          whole.view().rows(at.begin, at.end).span(), order.counts(i, x.shape()[1]));
    };
    const auto multiply_part = [&](int i) {
      if (parts == 1) return multiply(stream, std::as_const(whole).view(), products);
      const Range at = order.place(i);
      auto some = products;
      for (std::size_t p = 0; p < n; ++p) some[p].y = ordered[p].view().rows(at.begin, at.end);
      multiply(stream, std::as_const(whole).view().rows(at.begin, at.end), some);
      for (std::size_t p = 0; p < n; ++p) {
        order.for_each(i, [&](Range rows, Range place) {
          copy(stream, std::as_const(ordered[p]).view().rows(place.begin, place.end),
               products[p].y.rows(rows.begin, rows.end));
        });
      }
    };
    exchange_before<D>(stream, parts, exchange, multiply_part);
  };
  const auto timed = [&] {
    const Tensor<float, D> whole(device, x.shape());
    std::array<Tensor<float, D>, n> ordered;
    for (std::size_t p = 0; p < n; ++p) ordered[p] = Tensor<float, D>(device, products[p].y.shape());
    multiply(stream, whole.view(), products);
    return run;
  };
  const ExchangedProduct product{Operation::all_gather, x.shape()[0], outputs, x.shape()[1]};
  run(pipeline.sync().chunking().parts(pipeline.communication(), stream, product, timed));
}

}  // namespace troika::detail
