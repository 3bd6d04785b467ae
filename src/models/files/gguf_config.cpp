// SPDX-License-Identifier: Apache-2.0
#include "gguf_config.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <span>

#include "../json.hpp"

namespace troika::models {
namespace {

constexpr std::int64_t any = std::int64_t{1} << 40;  // ModelConfig has its own, narrower limits

// The metadata of one architecture: "llama.block_count" as "block_count".
class Keys {
 public:
  Keys(const GgufMetadata& metadata, std::string architecture)
      : metadata_(metadata), prefix_(std::move(architecture) + ".") {}

  std::string name(const char* key) const { return prefix_ + key; }
  bool contains(const char* key) const { return metadata_.contains(name(key)); }
  std::int64_t integer(const char* key) const { return metadata_.integer(name(key), 1, any); }
  std::int64_t integer(const char* key, std::int64_t otherwise) const {
    return metadata_.integer(name(key), 0, any, otherwise);
  }
  double number(const char* key, double low, double high, double otherwise) const {
    return metadata_.number(name(key), low, high, otherwise);
  }
  bool boolean(const char* key, bool otherwise) const { return metadata_.boolean(name(key), otherwise); }
  std::string_view string(const char* key, std::string_view otherwise) const {
    return metadata_.string(name(key), otherwise);
  }
  // One number for all layers, or a list with one for each.
  std::int64_t same_in_all_layers(const char* key, std::int64_t otherwise) const {
    if (!contains(key)) return otherwise;
    for (std::size_t i = 0; i < metadata_.size(); ++i) {
      if (metadata_[i].key != name(key) || !metadata_[i].is_array) continue;
      const auto list = metadata_.integers(name(key), 1, any);
      if (list.empty() || std::ranges::count(list, list[0]) != std::ssize(list)) {
        unsupported(metadata_.origin() + ": the key " + in_quotes(name(key)) +
                    " differs by layer, which is not supported");
      }
      return list[0];
    }
    return integer(key);
  }
  [[noreturn]] void unsupported_value(const char* key, const std::string& value, const std::string& valid) const {
    unsupported(metadata_.origin() + ": the key " + in_quotes(name(key)) + " is " + in_quotes(value) +
                "; supported are " + valid);
  }

 private:
  const GgufMetadata& metadata_;
  std::string prefix_;
};

const TensorInfo* find(const std::vector<GgufFile>& parts, std::string_view name) {
  for (const auto& part : parts) {
    if (const auto* tensor = part.find(name)) return tensor;
  }
  return nullptr;
}

std::int64_t rows_of(const std::vector<GgufFile>& parts, const char* name) {
  const auto* tensor = find(parts, name);
  if (tensor == nullptr) bad_file(parts[0].path().string() + " has no tensor " + in_quotes(name));
  return tensor->shape.dims() == 1 ? 1 : tensor->shape[0];  // one row may be written as a vector
}

void add_sizes(const Keys& keys, Json& config) {
  config["hidden_size"] = keys.integer("embedding_length");
  config["intermediate_size"] = keys.same_in_all_layers("feed_forward_length", 0);
  config["num_hidden_layers"] = keys.integer("block_count");
  config["num_attention_heads"] = keys.same_in_all_layers("attention.head_count", 0);
  config["max_position_embeddings"] = keys.integer("context_length");
}

void add_rope_scaling(const Keys& keys, Json& config) {
  const std::string scaling(keys.string("rope.scaling.type", "none"));
  const auto factor = keys.number("rope.scaling.factor", 1e-6, 1e6, keys.number("rope.scale_linear", 1e-6, 1e6, 1));
  const bool with_tensors = scaling == "longrope" && config["model_type"] == "phi3";
  if (scaling != "none" && scaling != "linear" && !with_tensors) {
    keys.unsupported_value("rope.scaling.type", scaling,
                           "none, linear, longrope (phi3), and a tensor rope_freqs.weight (Llama 3)");
  }
  if (factor != 1 && !with_tensors && (scaling == "linear" || !keys.contains("rope.scaling.type"))) {
    config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", factor}};
  }
}

void add_experts(const Keys& keys, Json& config) {
  config["num_experts"] = keys.integer("expert_count");
  config["num_experts_per_tok"] = keys.integer("expert_used_count");
  config["moe_intermediate_size"] = keys.integer("expert_feed_forward_length");
  config["norm_topk_prob"] = keys.boolean("expert_weights_norm", true);
}

void add_gemma(const Keys& keys, Json& config) {
  const auto architecture = config["model_type"] == "gemma2" ? Architecture::gemma2 : Architecture::gemma3_text;
  const bool gemma2 = architecture == Architecture::gemma2;
  const auto size = [&](const char* key) { return config[key].get<std::int64_t>(); };
  const auto layers = size("num_hidden_layers");
  config["query_pre_attn_scalar"] =
      gguf_query_scalar(architecture, layers, size("hidden_size"), size("num_attention_heads"), size("head_dim"));
  for (const char* cap : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    if (keys.contains(cap)) config[cap] = keys.number(cap, 0, 1e9, 0);
  }
  if (const auto window = keys.integer("attention.sliding_window", gemma2 ? 4096 : 0); window != 0) {
    config["sliding_window"] = window;
    const auto period = keys.integer("attention.sliding_window_pattern", gguf_window_period(architecture));
    for (std::int64_t i = 0; i < std::min<std::int64_t>(layers, 4096); ++i) {
      config["layer_types"].push_back(period == 0 || (i + 1) % period != 0 ? "sliding_attention" : "full_attention");
    }
  } else {
    config["sliding_window"] = nullptr;
  }
  config["rope_local_base_freq"] = keys.number("rope.freq_base_swa", 1e-3, 1e15, 10000);
}

void add_decoder(const Keys& keys, Json& config) {
  if (config["model_type"] == "gpt2") {
    config["layer_norm_epsilon"] = keys.number("attention.layer_norm_epsilon", 0, 1, 1e-5);
    return;
  }
  const auto heads = keys.same_in_all_layers("attention.head_count", 0);
  const auto width =
      keys.integer("attention.key_length", heads > 0 ? config["hidden_size"].get<std::int64_t>() / heads : 0);
  config["num_key_value_heads"] = keys.same_in_all_layers("attention.head_count_kv", heads);
  config["head_dim"] = width;
  config["rms_norm_eps"] = keys.number("attention.layer_norm_rms_epsilon", 0, 1, 1e-5);
  config["rope_theta"] = keys.number("rope.freq_base", 1e-3, 1e15, 10000);
  if (const auto value = keys.integer("attention.value_length", width); value != width) {
    keys.unsupported_value("attention.value_length", std::to_string(value),
                           "values as long as the keys, " + std::to_string(width));
  }
  if (const auto rotated = keys.integer("rope.dimension_count", width); rotated != width) {
    if (config["model_type"] != "phi3") {
      keys.unsupported_value("rope.dimension_count", std::to_string(rotated), "whole heads, " + std::to_string(width));
    }
    config["partial_rotary_factor"] = static_cast<double>(rotated) / static_cast<double>(width);
  }
  if (config["model_type"] == "qwen3_moe") {
    add_experts(keys, config);
  } else if (const auto experts = keys.integer("expert_count", 0); experts != 0) {
    keys.unsupported_value("expert_count", std::to_string(experts),
                           "models without experts, and the architecture qwen3moe");
  }
  add_rope_scaling(keys, config);
  if (config["model_type"] == "gemma2" || config["model_type"] == "gemma3_text") return add_gemma(keys, config);
  if (const auto window = keys.integer("attention.sliding_window", 0); window != 0) {
    config["sliding_window"] = window;
    config["use_sliding_window"] = true;
    config["max_window_layers"] = 0;
    // The architecture "llama" of GGUF files is Mistral's too, whose layers all slide.
    if (config["model_type"] == "llama") config["model_type"] = "mistral";
  } else {
    config["sliding_window"] = nullptr;
  }
}

void add_encoder(const Keys& keys, const std::vector<GgufFile>& parts, Json& config) {
  config["layer_norm_eps"] = keys.number("attention.layer_norm_epsilon", 0, 1, 1e-12);
  config["type_vocab_size"] = rows_of(parts, "token_types.weight");
  if (config["model_type"] == "nomic_bert")
    config["rotary_emb_base"] = keys.number("rope.freq_base", 1e-3, 1e15, 10000);
  if (keys.boolean("attention.causal", false)) {
    keys.unsupported_value("attention.causal", "true", "encoders, false");
  }
}

std::optional<Pooling> pooling_of(const Keys& keys) {
  switch (keys.integer("pooling_type", 0)) {
    case 0: return std::nullopt;
    case 1: return Pooling::mean;
    case 2: return Pooling::cls;
    default:
      keys.unsupported_value("pooling_type", std::to_string(keys.integer("pooling_type", 0)),
                             "0 (none), 1 (mean), 2 (cls)");
  }
}

std::optional<std::int32_t> token_id(const GgufMetadata& metadata, const char* key) {
  const auto id =
      metadata.integer(key, -1, std::numeric_limits<std::uint32_t>::max(), -1);  // 2^32 - 1 is another "none"
  if (id < 0 || id > std::numeric_limits<std::int32_t>::max()) return std::nullopt;
  return static_cast<std::int32_t>(id);
}

// What a stretching of positions does to each frequency, worked out by the program that wrote the file; empty where the
// file has no such tensor.
std::vector<float> rope_divisors(const std::vector<GgufFile>& parts, const char* name, std::int64_t rotary_dim) {
  for (const auto& part : parts) {
    const auto* tensor = part.find(name);
    if (tensor == nullptr) continue;
    const auto fail = [&](const std::string& why) {
      bad_file(part.path().string() + ": tensor " + in_quotes(name) + " " + why);
    };
    if (tensor->shape != Shape{rotary_dim / 2}) {
      fail("has shape " + tensor->shape.to_string() + "; heads of " + std::to_string(rotary_dim) + " ask for " +
           Shape{rotary_dim / 2}.to_string());
    }
    std::vector<float> divisors(static_cast<std::size_t>(rotary_dim / 2));
    part.read<float>(*tensor, divisors);
    for (const float divisor : divisors) {
      if (!(divisor > 0) || !std::isfinite(divisor))
        fail("has the element " + std::to_string(divisor) + "; valid are numbers above 0");
    }
    return divisors;
  }
  return {};
}

// Phi-3's two sets of divisors.
std::optional<LongRopeScaling> long_rope(const std::vector<GgufFile>& parts, const Keys& keys,
                                         const ModelConfig& model) {
  LongRopeScaling scaling;
  scaling.short_divisors = rope_divisors(parts, "rope_factors_short.weight", model.rotary_dim);
  scaling.long_divisors = rope_divisors(parts, "rope_factors_long.weight", model.rotary_dim);
  if (scaling.short_divisors.empty() && scaling.long_divisors.empty()) return std::nullopt;
  if (scaling.short_divisors.empty() || scaling.long_divisors.empty()) {
    bad_file(
        parts[0].path().string() +
        " has one of the tensors 'rope_factors_short.weight' and 'rope_factors_long.weight'; valid are both, or none");
  }
  scaling.original_max_position_embeddings =
      keys.integer("rope.scaling.original_context_length", model.max_position_embeddings);
  scaling.magnitude = keys.number("rope.scaling.attn_factor", 1e-6, 1e6, 1);
  return scaling;
}

struct Name {
  std::string_view gguf;
  Architecture architecture;
};
constexpr Name names[] = {{"llama", Architecture::llama},   {"qwen2", Architecture::qwen2},
                          {"qwen3", Architecture::qwen3},   {"qwen3moe", Architecture::qwen3_moe},
                          {"gemma2", Architecture::gemma2}, {"gemma3", Architecture::gemma3_text},
                          {"phi3", Architecture::phi3},     {"gpt2", Architecture::gpt2},
                          {"bert", Architecture::bert},     {"nomic-bert", Architecture::nomic_bert}};

}  // namespace

std::string_view gguf_architecture(Architecture architecture) {
  const auto* const known = std::ranges::find(names, architecture, &Name::architecture);
  return known == std::end(names) ? names[0].gguf : known->gguf;  // Mistral's is Llama's
}

std::int64_t gguf_query_scalar(Architecture architecture, std::int64_t layers, std::int64_t hidden, std::int64_t heads,
                               std::int64_t head_dim) {
  const bool largest = layers == (architecture == Architecture::gemma2 ? 46 : 62) && heads > 0;
  return largest ? hidden / heads : head_dim;
}

ModelConfig gguf_config(const std::vector<GgufFile>& parts) {
  const auto& metadata = parts[0].metadata();
  const std::string architecture(metadata.string("general.architecture"));
  const auto* const known = std::ranges::find(names, architecture, &Name::gguf);
  if (known == std::end(names)) {
    std::string supported = "llama (Mistral too)";
    for (const auto& name : std::span(names).subspan(1)) supported += ", " + std::string(name.gguf);
    unsupported(metadata.origin() + ": the architecture " + in_quotes(architecture) +
                " is not supported; supported are " + supported);
  }
  const bool encoder = known->architecture == Architecture::bert || known->architecture == Architecture::nomic_bert;
  const Keys keys(metadata, architecture);

  // The metadata become the config.json that the model had, whose sizes and their relations are checked in one place.
  Json config{{"model_type", to_string(known->architecture)}, {"vocab_size", rows_of(parts, "token_embd.weight")}};
  add_sizes(keys, config);
  if (encoder)
    add_encoder(keys, parts, config);
  else
    add_decoder(keys, config);
  auto model = ModelConfig::parse(config.dump(), metadata.origin() + ": the metadata, as a config.json");

  if (!encoder) {
    const auto has = [&](const char* name) { return find(parts, name) != nullptr; };
    model.qkv_bias = has("blk.0.attn_q.bias") || has("blk.0.attn_qkv.bias");
    model.output_bias = has("blk.0.attn_output.bias");
    model.mlp_bias = has("blk.0.ffn_up.bias");
    model.qk_norm = has("blk.0.attn_q_norm.weight");
    model.tie_word_embeddings = !has("output.weight");
    model.norm_adds_one = false;  // the converters have done it
    model.rope_divisors = rope_divisors(parts, "rope_freqs.weight", model.rotary_dim);
    if (model.architecture == Architecture::phi3) model.long_rope = long_rope(parts, keys, model);
  } else {
    model.pooling = pooling_of(keys);
  }
  model.bos_token_id = token_id(metadata, "tokenizer.ggml.bos_token_id");
  model.pad_token_id = token_id(metadata, "tokenizer.ggml.padding_token_id");
  model.eos_token_ids.clear();
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    const auto id = token_id(metadata, key);
    if (id && std::ranges::find(model.eos_token_ids, *id) == model.eos_token_ids.end())
      model.eos_token_ids.push_back(*id);
  }
  return model;
}

}  // namespace troika::models
