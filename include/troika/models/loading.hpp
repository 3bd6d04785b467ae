// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>

#include <troika/layers/embedding.hpp>
#include <troika/layers/linear.hpp>
#include <troika/layers/norm.hpp>
#include <troika/models/files/config.hpp>
#include <troika/models/files/weights.hpp>

namespace troika::models {

// Called after each tensor with the bytes that this rank has read since the last call; any rank, any thread.
using LoadProgress = std::function<void(std::uint64_t bytes)>;

// Error{out_of_memory} where the weights take more bytes than are available.
inline void check_memory(const Weights& weights, std::uint64_t available) {
  if (weights.total_bytes() <= available) return;
  throw Error(Fault::out_of_memory, "the weights in " + weights.folder().string() + " take " +
                                        std::to_string(weights.total_bytes() / 1'000'000) + " MB, and " +
                                        std::to_string(available / 1'000'000) +
                                        " MB of memory are left; take a smaller model, or one with fewer bits");
}

// Reads one rank's part of the weights into its device. Each rank reads only what it will hold.
template <class Pipeline>
class Loader {
 public:
  using D = typename Pipeline::Device;

  // Collective: Error{out_of_memory} where the machine has less memory left than all ranks together will take. Where
  // some of them are GPUs, what the host's ranks take is not known beforehand.
  Loader(Pipeline& pipeline, const Weights& weights, LoadProgress progress = {})
      : pipeline_(&pipeline), weights_(&weights), progress_(std::move(progress)) {
    if constexpr (!Pipeline::mixed && requires { memory_available(pipeline.device()); }) {
      const std::uint64_t available = memory_available(pipeline.device());
      pipeline.communication().barrier();  // before any rank takes of it
      check_memory(weights, available);
    }
  }

  int rank() const { return pipeline_->rank(); }
  auto& stream() { return pipeline_->stream(); }

  // name + ".weight" is (rows.extent(), columns); with bias also name + ".bias".
  ColumnParallelLinear<D> column(const std::string& name, const Partition& rows, std::int64_t columns,
                                 bool bias = false) {
    return {matrix_rows(name, rows[rank()], rows.extent(), columns, true), rows, rank(),
            bias ? vector(name + ".bias", rows.extent(), rows[rank()]) : Tensor<float, D>()};
  }
  // name + ".weight" is (rows, columns.extent()); each rank's columns are whole blocks of what the file has.
  RowParallelLinear<D> row(const std::string& name, std::int64_t rows, const Partition& columns, bool bias = false) {
    const auto& info = weights_->expect(name + ".weight", {rows, columns.extent()});
    std::vector<Weight<D>> pieces;
    for (const Range piece : columns.pieces(rank())) {
      auto& weight = pieces.emplace_back(make_weight(info, {rows, piece.size()}));
      fill(weight, [&](std::span<std::byte> to) { weights_->copy_columns(info.name, piece, to); });
      make_ready(pipeline_->device(), weight);
      report(weight.bytes());
    }
    return {std::move(pieces), columns, rank(), bias ? vector(name + ".bias", rows) : Tensor<float, D>()};
  }
  // `projects`: products will read the table, too.
  VocabParallelEmbedding<D> embedding(const std::string& name, const Partition& rows, std::int64_t features,
                                      bool projects = false) {
    return {matrix_rows(name, rows[rank()], rows.extent(), features, projects), rows, rank()};
  }
  Tensor<float, D> vector(const std::string& name, std::int64_t extent) { return vector(name, extent, {0, extent}); }
  Tensor<float, D> vector(const std::string& name, std::int64_t extent, Range range) {
    weights_->expect(name, {extent});
    Tensor<float, D> values(pipeline_->device(), {range.size()});
    fill_on_host(pipeline_->stream(), values.view(),
                 [&](std::span<float> to) { weights_->template read_rows<float>(name, range, to); });
    report(static_cast<std::uint64_t>(range.size()) * sizeof(float));
    return values;
  }
  // name + ".weight" for products, whole on every rank.
  Weight<D> whole(const std::string& name, std::int64_t rows, std::int64_t columns) {
    return matrix_rows(name, {0, rows}, rows, columns, true);
  }
  // A whole (rows, columns) matrix as f32, on every rank.
  Tensor<float, D> matrix(const std::string& name, std::int64_t rows, std::int64_t columns) {
    weights_->expect(name, {rows, columns});
    Tensor<float, D> values(pipeline_->device(), {rows, columns});
    fill_on_host(pipeline_->stream(), values.view(),
                 [&](std::span<float> to) { weights_->template read<float>(name, to); });
    report(static_cast<std::uint64_t>(values.count()) * sizeof(float));
    return values;
  }

 private:
  Weight<D> matrix_rows(const std::string& name, Range rows, std::int64_t extent, std::int64_t columns,
                        bool multiplied) {
    const auto& info = weights_->expect(name + ".weight", {extent, columns});
    auto weight = make_weight(info, {rows.size(), columns});
    fill(weight, [&](std::span<std::byte> to) { weights_->copy_rows(info.name, rows, to); });
    if (multiplied) make_ready(pipeline_->device(), weight);
    report(weight.bytes());
    return weight;
  }
  // The blocks of quantised rows stay as the file has them.
  Weight<D> make_weight(const TensorInfo& info, Shape shape) {
    if (!info.type) {
      std::string valid;
      for (const auto& layout : weight_layouts) valid += (valid.empty() ? "" : ", ") + std::string(layout.name);
      throw Error(Fault::unsupported, "tensor " + info.name + " in " + weights_->folder().string() + " is " +
                                          info.dtype_name + "; weights may be " + valid);
    }
    return {pipeline_->device(), *info.type, shape};
  }
  template <class F>
  void fill(Weight<D>& weight, F&& f) {
    const View<std::byte> bytes(weight.data(), {static_cast<std::int64_t>(weight.bytes())});
    fill_on_host(pipeline_->stream(), bytes, f);
  }
  void report(std::uint64_t bytes) const {
    if (progress_) progress_(bytes);
  }

  Pipeline* pipeline_;
  const Weights* weights_;
  LoadProgress progress_;
};

// The weight of an RMSNorm, (extent).
template <class Loader>
auto load_norm_weight(Loader& load, const ModelConfig& config, const std::string& name, std::int64_t extent) {
  auto weight = load.vector(name, extent);
  if (config.norm_adds_one) {
    change_on_host(load.stream(), weight.view(), [](std::span<float> values) {
      for (float& value : values) value += 1;
    });
  }
  return weight;
}

// The norm over the hidden state that the model has.
template <class Loader>
Norm<typename Loader::D> load_norm(Loader& load, const ModelConfig& config, const std::string& name) {
  const auto hidden = config.hidden_size;
  if (config.norm == NormKind::layer) {
    return LayerNorm<typename Loader::D>(load.vector(name + ".weight", hidden), load.vector(name + ".bias", hidden),
                                         config.norm_eps, load.rank());
  }
  return RmsNorm<typename Loader::D>(load_norm_weight(load, config, name + ".weight", hidden), config.norm_eps,
                                     load.rank());
}

}  // namespace troika::models
