// SPDX-License-Identifier: Apache-2.0
#include "gguf_config.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

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

void add_decoder(const Keys& keys, Json& config) {
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
    keys.unsupported_value("rope.dimension_count", std::to_string(rotated), "whole heads, " + std::to_string(width));
  }
  if (const auto experts = keys.integer("expert_count", 0); experts != 0) {
    keys.unsupported_value("expert_count", std::to_string(experts), "models without experts");
  }
  if (const std::string scaling(keys.string("rope.scaling.type", "none")); scaling != "none") {
    keys.unsupported_value("rope.scaling.type", scaling, "none, and a tensor rope_freqs.weight (Llama 3)");
  }
  if (const auto scale = keys.number("rope.scale_linear", 0, 1e6, 1); scale != 1) {
    keys.unsupported_value("rope.scale_linear", std::to_string(scale), "1");
  }
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
  if (parts[0].metadata().boolean(keys.name("attention.causal"), false)) {
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

// What Llama 3's stretching does to each frequency, worked out by the program that wrote the file.
std::vector<float> rope_divisors(const std::vector<GgufFile>& parts, std::int64_t head_dim) {
  for (const auto& part : parts) {
    const auto* tensor = part.find("rope_freqs.weight");
    if (tensor == nullptr) continue;
    const auto fail = [&](const std::string& why) {
      bad_file(part.path().string() + ": tensor 'rope_freqs.weight' " + why);
    };
    if (tensor->shape != Shape{head_dim / 2}) {
      fail("has shape " + tensor->shape.to_string() + "; heads of " + std::to_string(head_dim) + " ask for " +
           Shape{head_dim / 2}.to_string());
    }
    std::vector<float> divisors(static_cast<std::size_t>(head_dim / 2));
    part.read<float>(*tensor, divisors);
    for (const float divisor : divisors) {
      if (!(divisor > 0) || !std::isfinite(divisor))
        fail("has the element " + std::to_string(divisor) + "; valid are numbers above 0");
    }
    return divisors;
  }
  return {};
}

}  // namespace

ModelConfig gguf_config(const std::vector<GgufFile>& parts) {
  const auto& metadata = parts[0].metadata();
  const std::string architecture(metadata.string("general.architecture"));
  if (architecture != "llama" && architecture != "qwen2" && architecture != "qwen3" && architecture != "bert") {
    unsupported(metadata.origin() + ": the architecture " + in_quotes(architecture) +
                " is not supported; supported are llama (Mistral too), qwen2, qwen3, bert");
  }
  const bool encoder = architecture == "bert";
  const Keys keys(metadata, architecture);

  // The metadata become the config.json that the model had, whose sizes and their relations are checked in one place.
  Json config{{"model_type", architecture}, {"vocab_size", rows_of(parts, "token_embd.weight")}};
  add_sizes(keys, config);
  if (encoder)
    add_encoder(keys, parts, config);
  else
    add_decoder(keys, config);
  auto model = ModelConfig::parse(config.dump(), metadata.origin() + ": the metadata, as a config.json");

  if (!encoder) {
    model.qkv_bias = find(parts, "blk.0.attn_q.bias") != nullptr;
    model.output_bias = find(parts, "blk.0.attn_output.bias") != nullptr;
    model.mlp_bias = find(parts, "blk.0.ffn_gate.bias") != nullptr;
    model.qk_norm = find(parts, "blk.0.attn_q_norm.weight") != nullptr;
    model.tie_word_embeddings = find(parts, "output.weight") == nullptr;
    model.rope_divisors = rope_divisors(parts, model.head_dim);
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
