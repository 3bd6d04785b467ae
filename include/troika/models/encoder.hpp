// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <troika/device/rotary_table.hpp>
#include <troika/layers/block.hpp>
#include <troika/layers/embedding.hpp>
#include <troika/models/files/config.hpp>
#include <troika/models/host_pipeline.hpp>
#include <troika/models/loading.hpp>
#include <troika/models/split.hpp>

namespace troika::models {

// A BERT-like encoder on one rank: its part of every matrix. Its positions are learned (BERT) or rotated (Nomic). All
// ranks construct and call it together.
template <Device D>
class Encoder {
 public:
  template <class Pipeline>
  Encoder(Pipeline& pipeline, const ModelConfig& config, const Weights& weights, LoadProgress progress = {});

  const ModelConfig& config() const { return config_; }
  const ModelSplit& split() const { return split_; }

  using Ids = std::span<const std::int32_t>;  // of one text

  // The last hidden states of texts, one after the other: (tokens of all, hidden). A text sees nothing of the others.
  // All tokens are of type 0. Collective.
  template <class Pipeline>
  DTensor<float, Replicate, D> forward(Pipeline& pipeline, std::span<const Ids> texts) const;
  template <class Pipeline>
  DTensor<float, Replicate, D> forward(Pipeline& pipeline, Ids text) const {
    return forward(pipeline, std::span(&text, 1));
  }

  // A vector for each text, (hidden), pooled as the folder asks (the mean over tokens where it says nothing).
  // Collective.
  template <class Pipeline>
  std::vector<std::vector<float>> embed(Pipeline& pipeline, std::span<const Ids> texts) const {
    const auto x = forward(pipeline, texts);
    std::vector<std::vector<float>> vectors;
    const auto on_host = read_back(pipeline.stream(), x.local());
    std::span<const float> rows = on_host.span();
    for (const auto& text : texts) {
      const auto size = text.size() * static_cast<std::size_t>(config_.hidden_size);
      vectors.push_back(pooled(rows.first(size)));
      rows = rows.subspan(size);
    }
    return vectors;
  }
  template <class Pipeline>
  std::vector<float> embed(Pipeline& pipeline, Ids text) const {
    return std::move(embed(pipeline, std::span(&text, 1))[0]);
  }

 private:
  // Of the hidden states of one text.
  std::vector<float> pooled(std::span<const float> state) const {
    const auto hidden = static_cast<std::size_t>(config_.hidden_size);
    const auto rows = config_.pooling == Pooling::cls ? std::size_t{1} : state.size() / hidden;
    std::vector<double> sum(hidden, 0.0);
    for (std::size_t t = 0; t < rows; ++t) {
      for (std::size_t i = 0; i < hidden; ++i) sum[i] += double{state[t * hidden + i]};
    }
    double scale = 1.0 / static_cast<double>(rows);
    if (config_.normalize_embedding) {
      scale = 1.0 / std::max(1e-12, std::sqrt(std::inner_product(sum.begin(), sum.end(), sum.begin(), 0.0)));
    }
    std::vector<float> result(hidden);
    for (std::size_t i = 0; i < hidden; ++i) {
      result[i] = static_cast<float>(sum[i] * scale);
      expects(std::isfinite(result[i]), "the embedding is not a number (NaN): the weights hold NaN or infinity");
    }
    return result;
  }

  template <class Loader>
  LayerNorm<D> load_norm(Loader& load, const std::string& name) {
    return {load.vector(name + ".weight", config_.hidden_size), load.vector(name + ".bias", config_.hidden_size),
            config_.norm_eps, rank_};
  }

  template <class Loader>
  EncoderBlock<D> load_block(Loader& load, const std::string& name) {
    const auto& c = config_;
    const auto hidden = c.hidden_size;
    const auto features = split_.heads.query_features();
    const std::string self = name + ".attention.self.";
    return {
        {split_.heads, load.column(self + "query", features, hidden, c.qkv_bias),
         load.column(self + "key", features, hidden, c.qkv_bias),
         load.column(self + "value", features, hidden, c.qkv_bias),
         load.row(name + ".attention.output.dense", hidden, features, c.output_bias), rank_},
        load_norm(load, name + ".attention.output.LayerNorm"),
        load_mlp(load, name),
        load_norm(load, name + ".output.LayerNorm"),
    };
  }

  template <class Loader>
  std::variant<GatedMlp<D>, PlainMlp<D>> load_mlp(Loader& load, const std::string& name) {
    const auto& c = config_;
    auto up = load.column(name + ".intermediate.dense", split_.intermediate, c.hidden_size, c.mlp_bias);
    auto down = load.row(name + ".output.dense", c.hidden_size, split_.intermediate, c.mlp_bias);
    if (!c.gated_mlp) return PlainMlp<D>{std::move(up), c.hidden_act, std::move(down)};
    auto gate = load.column(name + ".intermediate.gate", split_.intermediate, c.hidden_size, c.mlp_bias);
    return GatedMlp<D>{{std::move(gate), std::move(up), c.hidden_act}, std::move(down)};
  }

  ModelConfig config_;
  ModelSplit split_;
  int rank_;
  VocabParallelEmbedding<D> words_;
  std::optional<RotaryTable> rotary_;  // empty: positions are learned
  Tensor<float, D> positions_, types_;
  LayerNorm<D> norm_;
  std::vector<EncoderBlock<D>> blocks_;
};
template <class Pipeline>
Encoder(Pipeline&, const ModelConfig&, const Weights&, LoadProgress = {}) -> Encoder<typename Pipeline::Device>;

template <Device D>
template <class Pipeline>
Encoder<D>::Encoder(Pipeline& pipeline, const ModelConfig& config, const Weights& weights, LoadProgress progress)
    : config_(config),
      split_(ModelSplit::make(config, pipeline.shares(), SplitBlocks::of(weights))),
      rank_(pipeline.rank()) {
  if (config.is_decoder()) {
    throw Error(Fault::unsupported, "a " + std::string(to_string(config.architecture)) + " model is no encoder");
  }
  if (!config.gated_mlp && config.hidden_act == Activation::silu) {
    throw Error(Fault::unsupported,
                "an encoder whose MLP has no gate and hidden_act silu is not built; there it is gelu or gelu_tanh");
  }
  Loader<Pipeline> load(pipeline, weights, std::move(progress));
  const auto hidden = config.hidden_size;
  const std::string root = weights.contains("bert.embeddings.word_embeddings.weight") ? "bert." : "";
  words_ = load.embedding(root + "embeddings.word_embeddings", split_.vocab, hidden);
  if (config.learned_positions) {
    positions_ = load.matrix(root + "embeddings.position_embeddings.weight", config.max_position_embeddings, hidden);
  } else {
    rotary_.emplace(config.max_position_embeddings, config.rotary_dim,
                    RotaryOptions{.theta = static_cast<float>(config.rope_theta)});
  }
  types_ = load.matrix(root + "embeddings.token_type_embeddings.weight", config.type_vocab_size, hidden);
  norm_ = load_norm(load, root + "embeddings.LayerNorm");
  for (std::int64_t i = 0; i < config.layers; ++i) {
    blocks_.push_back(load_block(load, root + "encoder.layer." + std::to_string(i)));
  }
}

template <Device D>
template <class Pipeline>
DTensor<float, Replicate, D> Encoder<D>::forward(Pipeline& pipeline, std::span<const Ids> texts) const {
  std::vector<std::int32_t> ids, positions;
  std::vector<SequenceRows> sequences;
  for (const auto& text : texts) {
    const auto tokens = static_cast<std::int64_t>(text.size());
    expects(tokens >= 1 && tokens <= config_.max_position_embeddings, [&] {
      return "an input of " + std::to_string(tokens) + " tokens; this model takes 1 to " +
             std::to_string(config_.max_position_embeddings);
    });
    ids.insert(ids.end(), text.begin(), text.end());
    for (std::int32_t position = 0; position < tokens; ++position) positions.push_back(position);
    sequences.push_back({.tokens = tokens});
  }
  expects(!texts.empty(), "an encoder needs at least 1 text");
  auto x = pipeline.run(
      pipeline.replicate(View<const std::int32_t>(ids.data(), {static_cast<std::int64_t>(ids.size())})), words_,
      to<Replicate>,
      [&](DTensor<float, Replicate, D>&& words, auto& s) {
        std::int64_t end = 0;
        for (const auto& text : sequences) {
          const auto rows = words.local().rows(end, end + text.tokens);
          if (config_.learned_positions) add(s, View<const float>(rows), positions_.view().rows(0, text.tokens), rows);
          end += text.tokens;
        }
        for (std::int64_t t = 0; t < end; ++t) {
          const auto row = words.local().rows(t, t + 1);
          add(s, View<const float>(row), types_.view().rows(0, 1), row);
        }
        return std::move(words);
      },
      norm_, same_replicas);
  const AttentionContext<D> context{
      .positions = positions, .rotary = rotary_ ? &*rotary_ : nullptr, .sequences = sequences};
  for (const auto& block : blocks_) x = block.forward(pipeline, std::move(x), context);
  return x;
}

// What the library troika::models has compiled, as of the decoder.
#define TROIKA_ENCODER_INSTANCES(instance)                                                                \
  instance Encoder<HostDevice>::Encoder(HostPipeline&, const ModelConfig&, const Weights&, LoadProgress); \
  instance DTensor<float, Replicate, HostDevice> Encoder<HostDevice>::forward(                            \
      HostPipeline&, std::span<const Encoder<HostDevice>::Ids>) const;
TROIKA_ENCODER_INSTANCES(extern template)

}  // namespace troika::models
