// SPDX-License-Identifier: Apache-2.0
#include "gguf_keys.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

#include "../json.hpp"
#include "gguf_config.hpp"

namespace troika::models {
namespace {

using A = Architecture;

bool is_gemma(const ModelConfig& c) { return c.architecture == A::gemma2 || c.architecture == A::gemma3_text; }

// Every how manyth layer sees all; none where the layers that slide are others. More than there are layers: none does.
std::optional<std::int64_t> window_period(const ModelConfig& c) {
  const auto fits = [&](std::int64_t period) {
    for (std::int64_t layer = 0; layer < c.layers; ++layer) {
      if ((c.attention_window(layer) != 0) != ((layer + 1) % period != 0)) return false;
    }
    return true;
  };
  if (fits(gguf_window_period(c.architecture))) return gguf_window_period(c.architecture);
  for (std::int64_t period = 1; period <= c.layers + 1; ++period) {
    if (fits(period)) return period;
  }
  return std::nullopt;
}

// The keys "ARCHITECTURE.NAME" of one model.
class KeyWriter {
 public:
  KeyWriter(GgufWriter& writer, const ModelConfig& config) : writer_(writer), c_(config) {}

  void sizes(std::int64_t vocab_size) const {
    writer_.u32(key("vocab_size"), vocab_size);
    writer_.u32(key("block_count"), c_.layers);
    writer_.u32(key("context_length"), c_.max_position_embeddings);
    writer_.u32(key("embedding_length"), c_.hidden_size);
    writer_.u32(key("feed_forward_length"), c_.intermediate_size);
    writer_.u32(key("attention.head_count"), c_.heads);
    writer_.f32(key(c_.norm == NormKind::rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon"),
                c_.norm_eps);
  }

  // What decoders with rotary positions have.
  void heads() const {
    writer_.u32(key("attention.head_count_kv"), c_.kv_heads);
    writer_.u32(key("attention.key_length"), c_.head_dim);
    writer_.u32(key("attention.value_length"), c_.head_dim);
    writer_.u32(key("rope.dimension_count"), c_.rotary_dim);
  }

  void rope() const {
    writer_.f32(key("rope.freq_base"), c_.rope_theta);
    if (c_.local_rope_theta) writer_.f32(key("rope.freq_base_swa"), *c_.local_rope_theta);
    if (c_.rope_factor != 1) {
      writer_.string(key("rope.scaling.type"), "linear");
      writer_.f32(key("rope.scaling.factor"), c_.rope_factor);
    }
    if (c_.long_rope) writer_.f32(key("rope.scaling.attn_factor"), c_.long_rope->magnitude);
    if (c_.architecture == A::phi3) {
      writer_.u32(key("rope.scaling.original_context_length"),
                  c_.long_rope ? c_.long_rope->original_max_position_embeddings : c_.max_position_embeddings);
    }
  }

  void window() const {
    // Phi-3's files say 0 too.
    if (c_.sliding_window > 0 || c_.architecture == A::phi3)
      writer_.u32(key("attention.sliding_window"), c_.sliding_window);
    // A Gemma 2 without this key slides; where every layer sees all, no window is asked for.
    if (is_gemma(c_)) writer_.u32(key("attention.sliding_window_pattern"), window_period(c_).value());
  }

  void gemma() const {
    if (c_.attention_cap != 0) writer_.f32(key("attn_logit_softcapping"), c_.attention_cap);
    if (c_.logit_cap != 0) writer_.f32(key("final_logit_softcapping"), c_.logit_cap);
  }

  void experts(std::vector<std::string>& notes) const {
    writer_.u32(key("expert_count"), c_.experts->count);
    writer_.u32(key("expert_used_count"), c_.experts->used);
    writer_.u32(key("expert_feed_forward_length"), c_.experts->intermediate_size);
    writer_.boolean(key("expert_weights_norm"), c_.experts->normalized);
    if (c_.experts->normalized) return;
    notes.push_back("the weights of a token's experts do not add up to 1 (norm_topk_prob is false), which the key " +
                    key("expert_weights_norm") +
                    " says; programs that take no notice of it, llama.cpp is one, compute another model");
  }

  void encoder(std::vector<std::string>& notes) const {
    writer_.boolean(key("attention.causal"), false);
    if (c_.pooling) writer_.u32(key("pooling_type"), *c_.pooling == Pooling::mean ? 1 : 2);
    if (!c_.learned_positions) writer_.f32(key("rope.freq_base"), c_.rope_theta);
    writer_.u32("tokenizer.ggml.token_type_count", c_.type_vocab_size);
    if (c_.normalize_embedding)
      notes.emplace_back("embeddings are made to have the length 1, which GGUF files have no key for");
    if (c_.max_sequence && *c_.max_sequence < c_.max_position_embeddings) {
      notes.push_back("texts are meant to be cut after " + std::to_string(*c_.max_sequence) +
                      " tokens, which GGUF files have no key for");
    }
  }

 private:
  std::string key(const char* name) const { return std::string(gguf_architecture(c_.architecture)) + "." + name; }

  GgufWriter& writer_;
  const ModelConfig& c_;
};

// Llama 3's.
std::vector<float> llama3_divisors(const ModelConfig& config) {
  const auto& scaling = *config.rope_scaling;
  const auto original = static_cast<double>(scaling.original_max_position_embeddings);
  std::vector<float> divisors;
  for (std::int64_t i = 0; i < config.head_dim / 2; ++i) {
    const double wavelength =
        2 * std::numbers::pi *
        std::pow(config.rope_theta, 2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim));
    double divisor = scaling.factor;
    if (wavelength < original / scaling.high_freq_factor) {
      divisor = 1;
    } else if (wavelength <= original / scaling.low_freq_factor) {
      const double smooth =
          (original / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
      divisor = 1 / ((1 - smooth) / scaling.factor + smooth);
    }
    divisors.push_back(static_cast<float>(divisor));
  }
  return divisors;
}

}  // namespace

void check_gguf_can_say(const ModelConfig& c, const std::string& origin) {
  const std::string architecture(gguf_architecture(c.architecture));
  const auto refuse = [&](const std::string& what, const std::string& valid) {
    unsupported(origin + ": " + what + " is not converted: GGUF files of " + architecture +
                " have no way to say it; converted is " + valid);
  };
  // What files do not say at all is what it is where a config.json says nothing but its type.
  const auto type = std::string(to_string(c.architecture));
  const auto usual = ModelConfig::parse(R"({"model_type": ")" + type + R"("})", type);
  if (c.hidden_act != usual.hidden_act)
    refuse("the activation " + std::string(to_string(c.hidden_act)), std::string(to_string(usual.hidden_act)));
  if (c.is_decoder()) {
    const auto width =
        is_gemma(c) ? gguf_query_scalar(c.architecture, c.layers, c.hidden_size, c.heads, c.head_dim) : c.head_dim;
    const double scale = 1 / std::sqrt(static_cast<double>(width));
    if (std::abs(c.attention_scale / scale - 1) > 1e-6) {
      refuse(
          "a scale of the scores (query_pre_attn_scalar, scale_attn_weights) of " + std::to_string(c.attention_scale),
          "1 / sqrt(" + std::to_string(width) + ")");
    }
  }
  if (is_gemma(c)) {
    if (!window_period(c))
      refuse("an order of sliding layers (layer_types) of this kind", "every so manyth that sees all");
  } else if (c.sliding_window > 0 && std::ranges::find(c.sliding_layers, false) != c.sliding_layers.end()) {
    refuse("a window of attention in some layers only", "a window in all layers, or in none");
  }
  if (c.architecture == A::gemma2) {
    if (c.attention_cap == 0) refuse("a model without attn_logit_softcapping", "a number above 0");
    if (c.logit_cap == 0) refuse("a model without final_logit_softcapping", "a number above 0");
    if (!c.tie_word_embeddings) refuse("a model with tie_word_embeddings false", "true");
  }
  if (c.architecture == A::gemma3_text && c.attention_cap != 0) refuse("attn_logit_softcapping", "a model without it");
  if (c.rope_scaling && architecture != "llama")
    refuse("rope_scaling of the type llama3", "default or linear, and llama3 of llama and mistral");
  if (c.long_rope && c.architecture != A::phi3)
    refuse("rope_scaling of the type longrope", "default or linear, and longrope of phi3");
}

std::vector<std::string> write_model_keys(GgufWriter& writer, const ModelConfig& config, std::int64_t vocab_size) {
  std::vector<std::string> notes;
  const KeyWriter keys(writer, config);
  keys.sizes(vocab_size);
  if (!config.is_decoder()) {
    keys.encoder(notes);
  } else if (!config.learned_positions) {
    keys.heads();
    keys.rope();
    keys.window();
    keys.gemma();
  }
  if (config.experts) keys.experts(notes);
  return notes;
}

std::vector<RopeTensor> rope_tensors(const ModelConfig& config) {
  std::vector<RopeTensor> tensors;
  if (config.rope_scaling) tensors.push_back({"rope_freqs.weight", llama3_divisors(config)});
  if (config.long_rope) {
    tensors.push_back({"rope_factors_long.weight", config.long_rope->long_divisors});
    tensors.push_back({"rope_factors_short.weight", config.long_rope->short_divisors});
  }
  return tensors;
}

}  // namespace troika::models
