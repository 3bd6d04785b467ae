// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <troika/core/activation.hpp>
#include <troika/device/second_stream.hpp>
#include <troika/device/tensor.hpp>
#include <troika/device/weight.hpp>
#include <troika/layers/overlap.hpp>
#include <troika/observe/trace.hpp>
#include <troika/pipeline.hpp>
#include <troika/sync/dtensor.hpp>

namespace troika {

// The two halves of a split matrix product, after Megatron-LM (arXiv 1909.08053). Weights have the layout of Hugging
// Face files, (out, in); activations are (tokens, features) in f32.

namespace detail {

// Range `rows` x `columns` of a whole matrix in host memory, as a weight of this device.
template <Device D, class S, Element W>
Weight<D> slice_weight(S& stream, View<const W> whole, Range rows, Range columns) {
  expects(whole.shape().dims() == 2, [&] { return "a weight is (out, in), not " + whole.shape().to_string(); });
  Weight<D> weight(stream.device(), dtype_of<W>, {rows.size(), columns.size()});
  View<W> part(reinterpret_cast<W*>(weight.data()), weight.shape());
  if (columns.size() == whole.shape()[1]) {
    upload(stream, View<const W>(whole.rows(rows.begin, rows.end)), part);
  } else {
    for (std::int64_t r = 0; r < rows.size(); ++r) {
      const View<const W> row(whole.data() + (rows.begin + r) * whole.shape()[1] + columns.begin, {columns.size()});
      upload(stream, row, View<W>(part.data() + r * columns.size(), row.shape()));
    }
  }
  return weight;
}

// The same of quantised rows: `columns` are whole blocks.
template <Device D, class S>
Weight<D> slice_weight(S& stream, const QuantisedView& whole, Range rows, Range columns) {
  const auto& layout = layout_of(whole.type);
  expects(whole.shape().dims() == 2 && whole.shape()[1] % layout.block == 0, [&] {
    return "a weight of type " + std::string(layout.name) + " is (out, in) with a multiple of " +
           std::to_string(layout.block) + " inputs, not " + whole.shape().to_string();
  });
  expects(columns.begin % layout.block == 0 && columns.end % layout.block == 0, [&] {
    return "columns " + std::to_string(columns.begin) + " to " + std::to_string(columns.end) + " cut a block of " +
           std::string(layout.name) + "; valid shares are multiples of " + std::to_string(layout.block);
  });
  using Byte = const std::uint8_t;
  Weight<D> weight(stream.device(), whole.type, {rows.size(), columns.size()});
  const auto row = static_cast<std::int64_t>(row_bytes(whole.type, whole.shape()[1]));
  const auto part = static_cast<std::int64_t>(row_bytes(whole.type, columns.size()));
  const auto skip = static_cast<std::int64_t>(row_bytes(whole.type, columns.begin));
  auto* const to = reinterpret_cast<std::uint8_t*>(weight.data());
  const auto* const from = reinterpret_cast<Byte*>(whole.data) + rows.begin * row + skip;
  if (part == row) {
    upload(stream, View<Byte>(from, {rows.size() * row}), View<std::uint8_t>(to, {rows.size() * row}));
  } else {
    for (std::int64_t r = 0; r < rows.size(); ++r) {
      upload(stream, View<Byte>(from + r * row, {part}), View<std::uint8_t>(to + r * part, {part}));
    }
  }
  make_ready(stream.device(), weight);
  return weight;
}

template <Device D, class S>
Tensor<float, D> slice_bias(S& stream, std::span<const float> whole, std::int64_t extent, Range range) {
  if (whole.empty()) return {};
  expects(static_cast<std::int64_t>(whole.size()) == extent, [&] {
    return "a bias of " + std::to_string(whole.size()) + " does not fit " + std::to_string(extent) + " outputs";
  });
  Tensor<float, D> bias(stream.device(), {range.size()});
  upload(stream, View<const float>(whole.data() + range.begin, bias.shape()), bias.view());
  return bias;
}

template <Device D>
void check_weight(std::string_view layer, const Weight<D>& weight, const Tensor<float, D>& bias, std::int64_t outputs) {
  expects(weight.shape().dims() == 2,
          [&] { return std::string(layer) + ": a weight is (out, in), not " + weight.shape().to_string(); });
  expects(!bias.data() || bias.shape() == Shape{outputs}, [&] {
    return std::string(layer) + ": bias " + bias.shape().to_string() + " for " + std::to_string(outputs) + " outputs";
  });
}

inline void check_input(std::string_view layer, const Shape& x, std::int64_t features) {
  expects(x.dims() == 2 && x[1] == features, [&] {
    return std::string(layer) + ": the input is (tokens, " + std::to_string(features) + "), not " + x.to_string();
  });
}

}  // namespace detail

// y = x Wᵀ + b with the rows of W split over the ranks: Replicate -> Shard<1>, no communication.
template <Device D>
class ColumnParallelLinear {
 public:
  static constexpr std::string_view name = "column_parallel_linear";

  ColumnParallelLinear() = default;
  // weight: this rank's rows, (partition[rank].size(), in); bias: its part, (partition[rank].size()), or empty.
  ColumnParallelLinear(Weight<D> weight, Partition partition, int rank, Tensor<float, D> bias = {})
      : weight_(std::move(weight)), bias_(std::move(bias)), partition_(std::move(partition)), rank_(rank) {
    detail::check_weight(name, weight_, bias_, partition_[rank].size());
    expects(weight_.shape()[0] == partition_[rank].size(), [&] {
      return std::string(name) + ": weight " + weight_.shape().to_string() + " is not this rank's part of " +
             partition_.to_string();
    });
  }
  // Takes this rank's part of a whole (out, in) matrix in host memory.
  template <class Pipeline, class W>
  ColumnParallelLinear(Pipeline& pipeline, View<W> whole, std::span<const float> bias = {})
      : ColumnParallelLinear(pipeline, whole, bias, pipeline.partition(whole.shape()[0])) {}
  template <class Pipeline, class W>
  ColumnParallelLinear(Pipeline& pipeline, View<W> whole, std::span<const float> bias, Partition partition)
      : ColumnParallelLinear(
            detail::slice_weight<D>(pipeline.stream(), View<const std::remove_const_t<W>>(whole),
                                    partition[pipeline.rank()], {0, whole.shape()[1]}),
            partition, pipeline.rank(),
            detail::slice_bias<D>(pipeline.stream(), bias, whole.shape()[0], partition[pipeline.rank()])) {}

  // The same of quantised rows.
  template <class Pipeline>
  ColumnParallelLinear(Pipeline& pipeline, const QuantisedView& whole, std::span<const float> bias = {})
      : ColumnParallelLinear(pipeline, whole, bias, pipeline.partition(whole.shape()[0])) {}
  template <class Pipeline>
  ColumnParallelLinear(Pipeline& pipeline, const QuantisedView& whole, std::span<const float> bias, Partition partition)
      : ColumnParallelLinear(
            detail::slice_weight<D>(pipeline.stream(), whole, partition[pipeline.rank()], {0, whole.shape()[1]}),
            partition, pipeline.rank(),
            detail::slice_bias<D>(pipeline.stream(), bias, whole.shape()[0], partition[pipeline.rank()])) {}

  template <class S>
  DTensor<float, Shard<1>, D> operator()(const DTensor<float, Replicate, D>& x, S& stream) const {
    return std::move(of(x, stream, *this)[0]);
  }
  // What several layers give for one x: what the device does to x before it multiplies is done once.
  template <class S, class... Layers>
  static std::array<DTensor<float, Shard<1>, D>, sizeof...(Layers)> of(const DTensor<float, Replicate, D>& x, S& stream,
                                                                       const Layers&... layers) {
    auto [y, products] = outputs_of(x.shape(), stream.device(), layers...);
    detail::multiply_together<D>(stream, x.local(), products);
    return std::move(y);
  }

  // The same for rows that are split over the ranks, of which some may be multiplied while others are gathered.
  template <class Pipeline>
  DTensor<float, Shard<1>, D> gathered(Pipeline& pipeline,
                                       const DTensor<float, Shard<0>, D>& x) const requires HasSecondStream<D> {
    return std::move(of_gathered(pipeline, x, *this)[0]);
  }
  template <class Pipeline, class... Layers>
  static auto of_gathered(Pipeline& pipeline, const DTensor<float, Shard<0>, D>& x,
                          const Layers&... layers) requires HasSecondStream<D> {
    const Span span(pipeline.track(), name);
    auto [y, products] = outputs_of(x.shape(), pipeline.device(), layers...);
    detail::gathered<D>(pipeline, x, products, (layers.partition_.extent() + ...),
                        [](auto& stream, View<const float> rows, const auto& some) {
                          detail::multiply_together<D>(stream, rows, some);
                        });
    return std::move(y);
  }

  // gelu_tanh of what it gives, on devices that do both in one.
  template <class S>
  DTensor<float, Shard<1>, D> with_gelu_tanh(const DTensor<float, Replicate, D>& x, S& stream) const {
    auto [y, products] = outputs_of(x.shape(), stream.device(), *this);
    multiply_with_gelu_tanh(stream, x.local(), products);
    return std::move(y[0]);
  }
  template <class Pipeline>
  DTensor<float, Shard<1>, D> gathered_with_gelu_tanh(
      Pipeline& pipeline, const DTensor<float, Shard<0>, D>& x) const requires HasSecondStream<D> {
    const Span span(pipeline.track(), name);
    auto [y, products] = outputs_of(x.shape(), pipeline.device(), *this);
    detail::gathered<D>(
        pipeline, x, products, partition_.extent(),
        [](auto& stream, View<const float> rows, const auto& some) { multiply_with_gelu_tanh(stream, rows, some); });
    return std::move(y[0]);
  }

  const Weight<D>& weight() const { return weight_; }
  const Partition& partition() const { return partition_; }

 private:
  template <class S>
  static void multiply_with_gelu_tanh(S& stream, View<const float> x, const std::array<Product<D>, 1>& product) {
    linear_gelu_tanh(stream, x, product[0].weight, product[0].y, product[0].bias);
  }
  template <class... Layers>
  static auto outputs_of(const Shape& x, D& device, const Layers&... layers) {
    constexpr std::size_t n = sizeof...(Layers);
    (detail::check_input(name, x, layers.weight_.shape()[1]), ...);
    std::array<DTensor<float, Shard<1>, D>, n> y{DTensor<float, Shard<1>, D>(
        Tensor<float, D>(device, {x[0], layers.weight_.shape()[0]}), layers.partition_, layers.rank_)...};
    std::size_t i = 0;
    std::array<Product<D>, n> products{Product<D>{layers.weight_, y[i++].local(), layers.bias_.data()}...};
    return std::pair(std::move(y), products);  // moved, they hold the same memory
  }

  Weight<D> weight_;
  Tensor<float, D> bias_;
  Partition partition_;
  int rank_ = 0;
};
template <class Pipeline, class W>
ColumnParallelLinear(Pipeline&, View<W>, std::span<const float> = {})
    -> ColumnParallelLinear<typename Pipeline::Device>;
template <class Pipeline, class W>
ColumnParallelLinear(Pipeline&, View<W>, std::span<const float>, Partition)
    -> ColumnParallelLinear<typename Pipeline::Device>;
template <class Pipeline>
ColumnParallelLinear(Pipeline&, const QuantisedView&, std::span<const float> = {})
    -> ColumnParallelLinear<typename Pipeline::Device>;
template <class Pipeline>
ColumnParallelLinear(Pipeline&, const QuantisedView&, std::span<const float>, Partition)
    -> ColumnParallelLinear<typename Pipeline::Device>;

// y = x Wᵀ + b with the columns of W split like the features of x: Shard<1> -> Partial. The bias is added once, in the
// term of rank 0, so that it is in the sum once. Where the partition has several pieces a rank, each is a weight and a
// product of its own, and their sum is a branch of the tree that the reduction over ranks continues.
template <Device D>
class RowParallelLinear {
 public:
  static constexpr std::string_view name = "row_parallel_linear";

  RowParallelLinear() = default;
  // weights: this rank's columns, (out, size) for each of partition.pieces(rank); bias: all of it, (out), or empty.
  RowParallelLinear(std::vector<Weight<D>> weights, Partition partition, int rank, Tensor<float, D> bias = {})
      : weights_(std::move(weights)), bias_(std::move(bias)), partition_(std::move(partition)), rank_(rank) {
    const auto pieces = partition_.pieces(rank);
    expects(weights_.size() == pieces.size(), [&] {
      return std::string(name) + ": " + std::to_string(weights_.size()) + " weights for the " +
             std::to_string(pieces.size()) + " pieces of this rank";
    });
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      detail::check_weight(name, weights_[i], bias_, weights_[0].shape()[0]);
      expects(weights_[i].shape() == Shape{weights_[0].shape()[0], pieces[i].size()}, [&] {
        return std::string(name) + ": weight " + weights_[i].shape().to_string() + " is not this rank's part of " +
               partition_.to_string();
      });
    }
  }
  RowParallelLinear(Weight<D> weight, Partition partition, int rank, Tensor<float, D> bias = {})
      : RowParallelLinear(one(std::move(weight)), std::move(partition), rank, std::move(bias)) {}
  template <class Pipeline, class W>
  RowParallelLinear(Pipeline& pipeline, View<W> whole, std::span<const float> bias = {})
      : RowParallelLinear(pipeline, whole, bias, pipeline.partition(whole.shape()[1])) {}
  template <class Pipeline, class W>
  RowParallelLinear(Pipeline& pipeline, View<W> whole, std::span<const float> bias, Partition partition)
      : RowParallelLinear(slices(pipeline, View<const std::remove_const_t<W>>(whole), partition), partition,
                          pipeline.rank(),
                          detail::slice_bias<D>(pipeline.stream(), bias, whole.shape()[0], {0, whole.shape()[0]})) {}

  // The same of quantised rows.
  template <class Pipeline>
  RowParallelLinear(Pipeline& pipeline, const QuantisedView& whole, std::span<const float> bias = {})
      : RowParallelLinear(pipeline, whole, bias, pipeline.partition(whole.shape()[1], layout_of(whole.type).block)) {}
  template <class Pipeline>
  RowParallelLinear(Pipeline& pipeline, const QuantisedView& whole, std::span<const float> bias, Partition partition)
      : RowParallelLinear(slices(pipeline, whole, partition), partition, pipeline.rank(),
                          detail::slice_bias<D>(pipeline.stream(), bias, whole.shape()[0], {0, whole.shape()[0]})) {}

  template <class S>
  DTensor<float, Partial, D> operator()(const DTensor<float, Shard<1>, D>& x, S& stream) const {
    Tensor<float, D> y(stream.device(), {x.shape()[0], outputs()});
    multiply(checked(x), y.view(), stream);
    return DTensor<float, Partial, D>(std::move(y));
  }

  // This and the sum over ranks that follows it, for a device that does both at once where that is faster.
  template <class Pipeline>
  DTensor<float, Replicate, D> then(Pipeline& pipeline, const DTensor<float, Shard<1>, D>& x,
                                    const To<Replicate>&) const requires HasSecondStream<D> {
    return DTensor<float, Replicate, D>(
        summed(pipeline, x, [&](View<float> y, Range) { pipeline.communication().all_reduce(y.span()); }));
  }
  template <class Pipeline>
  DTensor<float, Shard<0>, D> then(Pipeline& pipeline, const DTensor<float, Shard<1>, D>& x,
                                   const To<Shard<0>>&) const requires HasSecondStream<D> {
    return then(pipeline, x, to<Shard<0>>(pipeline.partition(x.shape()[0])));
  }
  template <class Pipeline>
  DTensor<float, Shard<0>, D> then(Pipeline& pipeline, const DTensor<float, Shard<1>, D>& x,
                                   const To<Shard<0>>::By& by) const requires HasSecondStream<D> {
    const Span span(pipeline.track(), name);
    auto piece = detail::scattered<D>(pipeline, *this, checked(x), by.partition);
    return DTensor<float, Shard<0>, D>(std::move(piece), by.partition, rank_);
  }
  // The same where exchange(some rows of the product, which ones) does more than to sum them.
  template <class Pipeline, class Exchange>
  Tensor<float, D> summed(Pipeline& pipeline, const DTensor<float, Shard<1>, D>& x,
                          Exchange&& exchange) const requires HasSecondStream<D> {
    const Span span(pipeline.track(), name);
    return detail::summed<D>(pipeline, *this, checked(x), exchange);
  }

  std::int64_t outputs() const { return weights_[0].shape()[0]; }
  // y = x Wᵀ + b for this rank's columns, some rows or all.
  template <class S>
  void multiply(View<const float> x, View<float> y, S& stream) const {
    if (weights_.size() == 1) return multiply(0, x, y, stream);
    constexpr std::int64_t together = 512;  // rows of the products of all pieces that are in memory at once
    for (std::int64_t first = 0; first < x.shape()[0]; first += together) {
      const auto last = std::min(x.shape()[0], first + together);
      const auto products = products_of(x.rows(first, last), stream);
      add_products(stream, products.view(), y.rows(first, last));
    }
  }

  std::int64_t pieces() const { return std::ssize(weights_); }
  // The product of each piece: (pieces, tokens, out), for who has more to add to each before they are added.
  template <class S>
  Tensor<float, D> products_of(View<const float> x, S& stream) const {
    detail::check_input(name, x.shape(), partition_[rank_].size());
    const std::int64_t tokens = x.shape()[0];
    Tensor<float, D> products(stream.device(), {pieces(), tokens, outputs()});
    std::int64_t begin = 0;
    for (std::int64_t i = 0; i < pieces(); ++i) {
      const auto size = weights_[static_cast<std::size_t>(i)].shape()[1];
      const auto product = products.view().rows(i, i + 1).reshaped({tokens, outputs()});
      if (size == x.shape()[1]) {
        multiply(i, x, product, stream);
      } else {
        Tensor<float, D> part(stream.device(), {tokens, size});
        copy_slice(stream, x, 1, {begin, begin + size}, part.view());
        multiply(i, std::as_const(part).view(), product, stream);
      }
      begin += size;
    }
    return products;
  }

  // Of the first piece.
  const Weight<D>& weight() const { return weights_[0]; }
  const Partition& partition() const { return partition_; }

 private:
  static std::vector<Weight<D>> one(Weight<D> weight) {
    std::vector<Weight<D>> weights;
    weights.push_back(std::move(weight));
    return weights;
  }
  template <class Pipeline, class Whole>
  static std::vector<Weight<D>> slices(Pipeline& pipeline, const Whole& whole, const Partition& partition) {
    std::vector<Weight<D>> weights;
    for (const Range piece : partition.pieces(pipeline.rank())) {
      weights.push_back(detail::slice_weight<D>(pipeline.stream(), whole, {0, whole.shape()[0]}, piece));
    }
    return weights;
  }
  View<const float> checked(const DTensor<float, Shard<1>, D>& x) const {
    expects(x.partition() == partition_, [&] {
      return std::string(name) + ": the input is split as " + x.partition().to_string() + ", the weight as " +
             partition_.to_string() + "; give both layers the same partition";
    });
    return x.local();
  }
  // With the bias, if this is the first piece of all.
  template <class S>
  void multiply(std::int64_t piece, View<const float> x, View<float> y, S& stream) const {
    const float* const bias = rank_ == 0 && piece == 0 ? bias_.data() : nullptr;
    weights_[static_cast<std::size_t>(piece)].visit([&](auto w) { linear(stream, x, w, y, bias); });
  }

  std::vector<Weight<D>> weights_;  // one a piece
  Tensor<float, D> bias_;
  Partition partition_;
  int rank_ = 0;
};
template <class Pipeline, class W>
RowParallelLinear(Pipeline&, View<W>, std::span<const float> = {}) -> RowParallelLinear<typename Pipeline::Device>;
template <class Pipeline, class W>
RowParallelLinear(Pipeline&, View<W>, std::span<const float>, Partition)
    -> RowParallelLinear<typename Pipeline::Device>;
template <class Pipeline>
RowParallelLinear(Pipeline&, const QuantisedView&, std::span<const float> = {})
    -> RowParallelLinear<typename Pipeline::Device>;
template <class Pipeline>
RowParallelLinear(Pipeline&, const QuantisedView&, std::span<const float>, Partition)
    -> RowParallelLinear<typename Pipeline::Device>;

// y = act(x Gᵀ) * (x Uᵀ), G and U split alike: Replicate -> Shard<1>. The first half of a SwiGLU or GeGLU MLP (arXiv
// 2002.05202).
template <Device D>
class GatedColumnParallelLinear {
 public:
  static constexpr std::string_view name = "gated_column_parallel_linear";

  GatedColumnParallelLinear() = default;
  GatedColumnParallelLinear(ColumnParallelLinear<D> gate, ColumnParallelLinear<D> up,
                            Activation activation = Activation::silu)
      : gate_(std::move(gate)), up_(std::move(up)), activation_(activation) {
    expects(gate_.partition() == up_.partition(), "the gate and up projections must be split alike");
  }

  template <class S>
  DTensor<float, Shard<1>, D> operator()(const DTensor<float, Replicate, D>& x, S& stream) const {
    return product_of(ColumnParallelLinear<D>::of(x, stream, gate_, up_), stream);
  }
  template <class Pipeline>
  DTensor<float, Shard<1>, D> gathered(Pipeline& pipeline,
                                       const DTensor<float, Shard<0>, D>& x) const requires HasSecondStream<D> {
    return product_of(ColumnParallelLinear<D>::of_gathered(pipeline, x, gate_, up_), pipeline.stream());
  }

  const ColumnParallelLinear<D>& gate() const { return gate_; }
  const ColumnParallelLinear<D>& up() const { return up_; }

 private:
  template <class S>
  DTensor<float, Shard<1>, D> product_of(std::array<DTensor<float, Shard<1>, D>, 2> both, S& stream) const {
    auto& [gate, up] = both;
    activate_multiply(stream, activation_, std::as_const(gate).local(), std::as_const(up).local(), gate.local());
    return std::move(gate);
  }

  ColumnParallelLinear<D> gate_, up_;
  Activation activation_ = Activation::silu;
};

}  // namespace troika
