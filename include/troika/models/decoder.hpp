// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <troika/device/graphs.hpp>
#include <troika/device/rotary_table.hpp>
#include <troika/layers/block.hpp>
#include <troika/layers/embedding.hpp>
#include <troika/models/batch.hpp>
#include <troika/models/files/config.hpp>
#include <troika/models/host_pipeline.hpp>
#include <troika/models/loading.hpp>
#include <troika/models/split.hpp>

namespace troika::models {

struct DecoderOptions {
  std::int64_t context = 0;        // tokens that a cache holds; 0: what the model was made for, at most 4096
  KvType kv_type = KvType::f32;    // of the cache: bf16 and f16 take half of the memory, q8 about a quarter
  bool sequence_parallel = false;  // split the tokens of a prompt over the ranks between the matrix products
};

// A decoder on one rank: its part of every matrix. What its blocks have (norms, rotations, caps, gates, experts) are
// values of its configuration. All ranks construct it and call forward() together; const after construction, so one
// rank may serve several caches in turn.
template <Device D>
class Decoder {
 public:
  template <class Pipeline>
  Decoder(Pipeline& pipeline, const ModelConfig& config, const Weights& weights, DecoderOptions options = {},
          LoadProgress progress = {});

  const ModelConfig& config() const { return config_; }
  const ModelSplit& split() const { return split_; }
  std::int64_t context() const { return options_.context; }

  // An empty cache for this rank's KV heads. Its memory is taken here.
  KvCache<D> make_cache(D& device) const {
    return {device,           static_cast<int>(config_.layers),
            options_.context, split_.heads.kv[rank_].size(),
            config_.head_dim, options_.kv_type};
  }

  // Memory of `pages` pages of kv_page tokens each, for sequences that share it; every sequence holds at most context()
  // tokens.
  KvMemory<D> make_memory(D& device, std::int64_t pages) const {
    return {device,           static_cast<int>(config_.layers),
            pages * kv_page,  split_.heads.kv[rank_].size(),
            config_.head_dim, options_.kv_type};
  }

  // Appends the tokens to the cached ones and gives the logits of the last, or of the last `wanted`: (wanted,
  // vocabulary). Collective. An empty input, an id outside of the vocabulary or more tokens than the context holds is
  // an Error before anything is computed.
  template <class Pipeline>
  DTensor<float, Shard<1>, D> forward(Pipeline& pipeline, std::span<const std::int32_t> ids, KvCache<D>& cache,
                                      std::int64_t wanted = 1) const;

  // The same for several sequences in one pass, each with its place on the pages of the memory: the logits that each
  // part of the batch wants, (batch.logits(), vocabulary), in the order of the parts. Collective; all ranks pass the
  // same batch.
  template <class Pipeline>
  DTensor<float, Shard<1>, D> forward(Pipeline& pipeline, const Batch& batch, KvMemory<D>& memory) const;

 private:
  // What the blocks know of the tokens of a pass.
  struct Pass {
    std::span<const std::int32_t> positions;
    std::span<const SequenceRows> sequences;
    KvMemory<D>& memory;
  };

  template <class Pipeline>
  DTensor<float, Shard<1>, D> pass(Pipeline& pipeline, std::span<const std::int32_t> ids,
                                   std::span<const std::int32_t> positions, std::span<const SequenceRows> sequences,
                                   std::span<const Range> wanted, KvMemory<D>& memory) const {
    const auto tokens = static_cast<std::int64_t>(ids.size());
    embedding_.check(ids);
    const auto x = pipeline.replicate(View<const std::int32_t>(ids.data(), {tokens}));
    const Pass about{positions, sequences, memory};
    const auto logits = [&] { return logits_of(pipeline, x, about, wanted); };
    if (tokens != std::ssize(sequences)) return logits();
    return graphs_.run(logits, [&] { pipeline.communication().barrier(); });
  }

  template <class Pipeline>
  DTensor<float, Shard<1>, D> logits_of(Pipeline& pipeline, const DTensor<std::int32_t, Replicate, D>& x,
                                        const Pass& about, std::span<const Range> wanted) const {
    const std::int64_t tokens = x.shape()[0];
    auto hidden = options_.sequence_parallel && tokens > 1 && tokens >= pipeline.world_size()
                      ? pipeline.run(run_blocks<Shard<0>>(pipeline, x, about), to<Replicate>)
                      : run_blocks<Replicate>(pipeline, x, about);

    auto& stream = pipeline.stream();
    std::int64_t rows = 0;
    for (const auto range : wanted) rows += range.size();
    Tensor<float, D> last(stream.device(), {rows, config_.hidden_size});
    rows = 0;
    for (const auto range : wanted) {
      copy(stream, std::as_const(hidden).local().rows(range.begin, range.end),
           last.view().rows(rows, rows + range.size()));
      rows += range.size();
    }
    DTensor<float, Replicate, D> y(std::move(last));
    const auto cap = soft_cap(config_.logit_cap);
    return lm_head_ ? pipeline.run(std::move(y), norm_, *lm_head_, cap)
                    : pipeline.run(std::move(y), norm_, embedding_.as_projection(), cap);
  }

  template <class Loader>
  DecoderBlock<D> load_block(Loader& load, const std::string& name) {
    const auto& c = config_;
    const auto hidden = c.hidden_size;
    const auto query = split_.heads.query_features(), kv = split_.heads.kv_features();
    const std::string attention = name + ".self_attn.", mlp = name + ".mlp.";
    typename Attention<D>::Norms norms;
    if (c.qk_norm) {
      norms = {load_norm_weight(load, c, attention + "q_norm.weight", c.head_dim),
               load_norm_weight(load, c, attention + "k_norm.weight", c.head_dim), c.norm_eps};
    }
    const auto norm = [&](const char* which) { return load_norm(load, c, name + which); };
    return {
        norm(".input_layernorm"),
        {split_.heads,
         load.column(attention + "q_proj", query, hidden, c.qkv_bias),
         load.column(attention + "k_proj", kv, hidden, c.qkv_bias),
         load.column(attention + "v_proj", kv, hidden, c.qkv_bias),
         load.row(attention + "o_proj", hidden, query, c.output_bias),
         rank_,
         std::move(norms),
         {c.attention_scale, c.attention_cap}},
        c.post_norms ? norm(".post_attention_layernorm") : Norm<D>(),
        norm(c.post_norms ? ".pre_feedforward_layernorm" : ".post_attention_layernorm"),
        load_mlp(load, name + ".mlp."),
        c.post_norms ? norm(".post_feedforward_layernorm") : Norm<D>(),
    };
  }

  template <class Loader>
  std::variant<GatedMlp<D>, PlainMlp<D>, Experts<D>> load_mlp(Loader& load, const std::string& name) {
    const auto& c = config_;
    const auto hidden = c.hidden_size;
    const auto gated = [&](const std::string& mlp, const Partition& inner) -> GatedMlp<D> {
      return {{load.column(mlp + "gate_proj", inner, hidden, c.mlp_bias),
               load.column(mlp + "up_proj", inner, hidden, c.mlp_bias), c.hidden_act},
              load.row(mlp + "down_proj", hidden, inner, c.mlp_bias)};
    };
    if (!c.gated_mlp) {
      return PlainMlp<D>{load.column(name + "up_proj", split_.intermediate, hidden, c.mlp_bias), c.hidden_act,
                         load.row(name + "down_proj", hidden, split_.intermediate, c.mlp_bias)};
    }
    if (!c.experts) return gated(name, split_.intermediate);
    std::vector<GatedMlp<D>> experts;
    for (std::int64_t i = 0; i < c.experts->count; ++i) {
      experts.push_back(
          gated(name + "experts." + std::to_string(i) + ".", split_.experts[static_cast<std::size_t>(i)]));
    }
    return Experts<D>(load.whole(name + "gate", c.experts->count, hidden), std::move(experts), c.experts->used,
                      c.experts->normalized);
  }

  static RotaryOptions rotary_options(const ModelConfig& config, std::int64_t context) {
    RotaryOptions options{.theta = static_cast<float>(config.rope_theta),
                          .divisors = config.rope_divisors,
                          .factor = static_cast<float>(config.rope_factor)};
    if (const auto& scaling = config.rope_scaling) {
      options.llama3 = Llama3Scaling{static_cast<float>(scaling->factor), static_cast<float>(scaling->low_freq_factor),
                                     static_cast<float>(scaling->high_freq_factor),
                                     static_cast<float>(scaling->original_max_position_embeddings)};
    }
    if (const auto& scaling = config.long_rope) {
      // By the context, not by the length of the text: keys that are in the cache stay as they were rotated.
      options.divisors =
          context > scaling->original_max_position_embeddings ? scaling->long_divisors : scaling->short_divisors;
      options.magnitude = static_cast<float>(scaling->magnitude);
    }
    return options;
  }

  // (tokens) ids -> (tokens, hidden)
  template <Placement Hidden, class Pipeline>
  DTensor<float, Hidden, D> run_blocks(Pipeline& pipeline, const DTensor<std::int32_t, Replicate, D>& ids,
                                       const Pass& pass) const {
    auto x = pipeline.run(
        ids, embedding_.checked(), scale(config_.embedding_scale),
        [&](DTensor<float, Partial, D>&& words, auto& stream) {
          // Learned positions are in the sum once, in the term of rank 0.
          if (config_.learned_positions && rank_ == 0) {
            std::int64_t first = 0;
            for (const auto& sequence : pass.sequences) {
              const auto rows = words.local().rows(first, first + sequence.tokens);
              add(stream, View<const float>(rows),
                  position_table_.view().rows(sequence.cached, sequence.cached + sequence.tokens), rows);
              first += sequence.tokens;
            }
          }
          return std::move(words);
        },
        to<Hidden>);
    const Norm<D> none;  // the last norm is for tokens whose logits are wanted
    auto state = blocks_[0].begin(pipeline, std::move(x));
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      const auto window = config_.attention_window(static_cast<std::int64_t>(i));
      const auto& rotary = window > 0 && local_rotary_ ? local_rotary_ : rotary_;
      const AttentionContext<D> context{.positions = pass.positions,
                                        .rotary = rotary ? &*rotary : nullptr,
                                        .cache = &pass.memory.layer(static_cast<int>(i)),
                                        .sequences = pass.sequences,
                                        .window = window};
      blocks_[i].forward(pipeline, state, context, i + 1 < blocks_.size() ? blocks_[i + 1].attention_norm : none);
    }
    return std::move(state.hidden);
  }

  ModelConfig config_;
  DecoderOptions options_;
  ModelSplit split_;
  int rank_;
  std::optional<RotaryTable> rotary_, local_rotary_;  // local: of the layers that slide, where they have their own
  Tensor<float, D> position_table_;                   // (max_position_embeddings, hidden), where positions are learned
  std::vector<std::int32_t> positions_;               // 0, 1, 2, ...
  VocabParallelEmbedding<D> embedding_;
  std::vector<DecoderBlock<D>> blocks_;
  Norm<D> norm_;
  std::optional<ColumnParallelLinear<D>> lm_head_;  // empty: the embedding is tied to it
  mutable GraphsOf<D> graphs_;                      // of decode steps; no result depends on them
};
template <class Pipeline>
Decoder(Pipeline&, const ModelConfig&, const Weights&, DecoderOptions = {}, LoadProgress = {})
    -> Decoder<typename Pipeline::Device>;

template <Device D>
template <class Pipeline>
Decoder<D>::Decoder(Pipeline& pipeline, const ModelConfig& config, const Weights& weights, DecoderOptions options,
                    LoadProgress progress)
    : config_(config),
      options_(options),
      split_(ModelSplit::make(config, pipeline.shares(), SplitBlocks::of(weights))),
      rank_(pipeline.rank()),
      graphs_(pipeline.device()) {
  if (!config.is_decoder()) {
    throw Error(Fault::unsupported, "a " + std::string(to_string(config.architecture)) + " model is no decoder");
  }
  if (!config.gated_mlp && config.hidden_act == Activation::silu) {
    throw Error(Fault::unsupported,
                "a decoder whose MLP has no gate and hidden_act silu is not built; there it is gelu or gelu_tanh");
  }
  const std::int64_t most = config.max_position_embeddings;
  if (options_.context == 0) options_.context = std::min<std::int64_t>(most, 4096);
  expects(options_.context >= 1 && options_.context <= most, [&] {
    return "a context of " + std::to_string(options_.context) + " tokens; this model takes 1 to " +
           std::to_string(most);
  });
  if (!config.learned_positions) {
    rotary_.emplace(options_.context, config.rotary_dim, rotary_options(config, options_.context));
    if (config.local_rope_theta) {
      local_rotary_.emplace(options_.context, config.rotary_dim,
                            RotaryOptions{.theta = static_cast<float>(*config.local_rope_theta)});
    }
  }
  positions_.resize(static_cast<std::size_t>(options_.context));
  std::iota(positions_.begin(), positions_.end(), 0);

  Loader<Pipeline> load(pipeline, weights, std::move(progress));
  const auto hidden = config.hidden_size;
  embedding_ = load.embedding("model.embed_tokens", split_.vocab, hidden, config.tie_word_embeddings);
  if (config.learned_positions) {
    position_table_ = load.matrix("model.position_embeddings.weight", config.max_position_embeddings, hidden);
  }
  for (std::int64_t i = 0; i < config.layers; ++i)
    blocks_.push_back(load_block(load, "model.layers." + std::to_string(i)));
  norm_ = load_norm(load, config, "model.norm");
  if (!config.tie_word_embeddings) lm_head_.emplace(load.column("lm_head", split_.vocab, hidden));
}

template <Device D>
template <class Pipeline>
DTensor<float, Shard<1>, D> Decoder<D>::forward(Pipeline& pipeline, std::span<const std::int32_t> ids,
                                                KvCache<D>& cache, std::int64_t wanted) const {
  expects(!ids.empty(), "a forward pass needs at least one token");
  const auto tokens = static_cast<std::int64_t>(ids.size());
  expects(wanted >= 1 && wanted <= tokens, [&] {
    return "the logits of " + std::to_string(wanted) + " tokens were asked for; valid here is 1 to " +
           std::to_string(tokens);
  });
  cache.check_room(tokens);
  const SequenceRows sequence{.tokens = tokens, .cached = cache.length()};
  const Range last{tokens - wanted, tokens};
  auto logits = pass(pipeline, ids, std::span(positions_).subspan(static_cast<std::size_t>(cache.length()), ids.size()),
                     {&sequence, 1}, {&last, 1}, cache.memory());
  cache.advance(tokens);
  return logits;
}

template <Device D>
template <class Pipeline>
DTensor<float, Shard<1>, D> Decoder<D>::forward(Pipeline& pipeline, const Batch& batch, KvMemory<D>& memory) const {
  expects(batch.tokens() > 0, "a forward pass needs at least one token");
  for (const auto& sequence : batch.sequences()) {
    expects(sequence.cached + sequence.tokens <= options_.context, [&] {
      return std::to_string(sequence.cached) + " tokens and " + std::to_string(sequence.tokens) +
             " more do not fit a context of " + std::to_string(options_.context);
    });
    for (const auto page : sequence.pages) {
      expects(page >= 0 && page < memory.pages(), [&] {
        return "page " + std::to_string(page) + " does not exist; the memory has " + std::to_string(memory.pages());
      });
    }
  }
  return pass(pipeline, batch.ids(), batch.positions(), batch.sequences(), batch.wanted(), memory);
}

// What the library troika::models has compiled. Constructor and forward() are outside of the class for its sake: of what
// is inside, a compiler makes its own.
#define TROIKA_DECODER_INSTANCES(instance)                                                                 \
  instance Decoder<HostDevice>::Decoder(HostPipeline&, const ModelConfig&, const Weights&, DecoderOptions, \
                                        LoadProgress);                                                     \
  instance DTensor<float, Shard<1>, HostDevice> Decoder<HostDevice>::forward(                              \
      HostPipeline&, std::span<const std::int32_t>, KvCache<HostDevice>&, std::int64_t) const;             \
  instance DTensor<float, Shard<1>, HostDevice> Decoder<HostDevice>::forward(HostPipeline&, const Batch&,  \
                                                                             KvMemory<HostDevice>&) const;
TROIKA_DECODER_INSTANCES(extern template)

}  // namespace troika::models
