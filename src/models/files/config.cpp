// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/config.hpp>

#include <algorithm>
#include <array>
#include <limits>

#include "../json.hpp"
#include "gguf_config.hpp"

namespace troika::models {
namespace {

constexpr std::size_t max_config_bytes = std::size_t{16} << 20;

// Limits keep every product of sizes far inside of 64 bits; no model comes near them.
constexpr std::int64_t max_width = std::int64_t{1} << 24, max_layers = 4096, max_heads = 1 << 16,
                       max_vocab = std::int64_t{1} << 28, max_positions = std::int64_t{1} << 30,
                       max_id = std::numeric_limits<std::int32_t>::max();

// What transformers takes where config.json is silent.
struct Defaults {
  std::int64_t vocab_size, hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, max_position_embeddings;
  std::int64_t sliding_window, max_window_layers;
};

Defaults defaults_of(Architecture architecture) {  // 0: derived from the others
  switch (architecture) {
    case Architecture::mistral: return {32000, 4096, 14336, 32, 32, 8, 0, 131072, 4096, 0};
    case Architecture::qwen2: return {151936, 4096, 22016, 32, 32, 0, 0, 32768, 4096, 28};
    case Architecture::qwen3: return {151936, 4096, 22016, 32, 32, 0, 128, 32768, 4096, 28};
    case Architecture::bert: return {30522, 768, 3072, 12, 12, 0, 0, 512, 0, 0};
    case Architecture::llama: break;
  }
  return {32000, 4096, 11008, 32, 32, 0, 0, 2048, 0, 0};
}

Architecture architecture_of(const Fields& config) {
  if (!config.has("model_type")) {
    bad_file(config.where() + " has no field 'model_type'; supported are llama, mistral, qwen2, qwen3, bert");
  }
  const auto name = config.string("model_type");
  for (const auto architecture :
       {Architecture::llama, Architecture::mistral, Architecture::qwen2, Architecture::qwen3, Architecture::bert}) {
    if (name == to_string(architecture)) return architecture;
  }
  unsupported(config.where() + ": the model type " + in_quotes(name) +
              " is not supported; supported are llama, mistral, qwen2, qwen3, bert");
}

Activation activation_of(const Fields& config, const std::string& otherwise) {
  const auto name = config.string("hidden_act", otherwise);
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
  unsupported(config.where() + ": the hidden_act " + in_quotes(name) +
              " is not supported; supported are silu, gelu, gelu_new, gelu_pytorch_tanh");
}

std::optional<DType> dtype_of_weights(const Fields& config) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    const Json* value = config.find(key);
    if (value == nullptr || !value->is_string()) continue;
    const auto& name = value->get_ref<const std::string&>();
    if (name == "float32") return DType::f32;
    if (name == "float16") return DType::f16;
    if (name == "bfloat16") return DType::bf16;
  }
  return std::nullopt;
}

// rope_scaling of older files, rope_parameters of transformers 5; the latter carries rope_theta too.
void read_rope(const Fields& config, ModelConfig& model) {
  model.rope_theta = config.number("rope_theta", 1e-3, 1e15, 10000);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!config.has(key)) continue;
    const Fields rope = config.object(key);
    for (const auto& [name, value] : config.get(key).items()) {
      if (value.is_object()) unsupported(rope.where() + " differs by layer type (" + in_quotes(name) + "), which is not supported");
    }
    model.rope_theta = rope.number("rope_theta", 1e-3, 1e15, model.rope_theta);
    const auto type = rope.string("rope_type", rope.string("type", "default"));
    if (type == "llama3") {
      Llama3RopeScaling scaling;
      scaling.factor = rope.number("factor", 1, 1e6);
      scaling.low_freq_factor = rope.number("low_freq_factor", 1e-6, 1e6);
      scaling.high_freq_factor = rope.number("high_freq_factor", 1e-6, 1e6);
      scaling.original_max_position_embeddings = rope.integer("original_max_position_embeddings", 1, max_positions);
      if (scaling.high_freq_factor <= scaling.low_freq_factor) rope.fail("high_freq_factor", "must be greater than low_freq_factor");
      model.rope_scaling = scaling;
    } else if (type != "default") {
      unsupported(rope.where() + ": the rope type " + in_quotes(type) + " is not supported; supported are default, llama3");
    }
    if (rope.number("partial_rotary_factor", 0, 1, 1) != 1) {
      unsupported(rope.where() + ": a partial_rotary_factor other than 1 is not supported");
    }
  }
  if (config.number("partial_rotary_factor", 0, 1, 1) != 1) {
    unsupported(config.where() + ": a partial_rotary_factor other than 1 is not supported");
  }
}

void read_sliding_window(const Fields& config, const Defaults& defaults, ModelConfig& model) {
  const bool qwen = model.architecture == Architecture::qwen2 || model.architecture == Architecture::qwen3;
  if (!qwen && model.architecture != Architecture::mistral) return;
  if (qwen && !config.boolean("use_sliding_window", false)) return;
  // "sliding_window": null means none; a file without the field has the default.
  const bool absent = !config.contains("sliding_window");
  if (!absent && !config.has("sliding_window")) return;
  model.sliding_window = config.integer("sliding_window", 1, max_positions, defaults.sliding_window);
  if (config.has("layer_types")) {
    for (const auto& type : config.array("layer_types")) {
      if (type != "full_attention" && type != "sliding_attention") {
        unsupported(config.where() + ": the layer type " + shown(type) +
                    " is not supported; supported are full_attention, sliding_attention");
      }
      model.sliding_layers.push_back(type == "sliding_attention");
    }
    if (static_cast<std::int64_t>(model.sliding_layers.size()) != model.layers) {
      config.fail("layer_types", "has " + std::to_string(model.sliding_layers.size()) + " entries for " +
                                     std::to_string(model.layers) + " layers");
    }
  } else if (qwen) {
    const auto first = config.integer("max_window_layers", 0, max_layers, defaults.max_window_layers);
    for (std::int64_t layer = 0; layer < model.layers; ++layer) model.sliding_layers.push_back(layer >= first);
  }
}

std::vector<std::int32_t> token_ids(const Fields& config, const char* key) {
  std::vector<std::int32_t> ids;
  const Json* value = config.find(key);
  if (value == nullptr) return ids;
  const auto add = [&](const Json& id) {
    // Some files spell "none" as -1.
    const auto number = to_integer(id, -1, max_id, config.where() + ": " + key);
    if (number >= 0) ids.push_back(static_cast<std::int32_t>(number));
  };
  if (value->is_array()) std::ranges::for_each(*value, add);
  else add(*value);
  return ids;
}

std::optional<std::int32_t> token_id(const Fields& config, const char* key) {
  const auto ids = token_ids(config, key);
  return ids.empty() ? std::nullopt : std::optional(ids.front());
}

void read_decoder(const Fields& config, const Defaults& defaults, ModelConfig& model) {
  model.norm_eps = static_cast<float>(config.number("rms_norm_eps", 0, 1, 1e-6));
  read_rope(config, model);
  read_sliding_window(config, defaults, model);
  model.tie_word_embeddings = config.boolean("tie_word_embeddings", false);
  const bool bias = config.boolean("attention_bias", false);
  switch (model.architecture) {
    case Architecture::llama:
      model.qkv_bias = model.output_bias = bias;
      model.mlp_bias = config.boolean("mlp_bias", false);
      break;
    case Architecture::qwen2: model.qkv_bias = true; break;
    case Architecture::qwen3:
      model.qkv_bias = model.output_bias = bias;
      model.qk_norm = true;
      break;
    case Architecture::mistral:
    case Architecture::bert: break;
  }
  if (model.head_dim % 2 != 0) config.fail("head_dim", "is " + std::to_string(model.head_dim) + "; rotary embedding needs an even one");
}

void read_encoder(const Fields& config, ModelConfig& model) {
  model.norm_eps = static_cast<float>(config.number("layer_norm_eps", 0, 1, 1e-12));
  model.type_vocab_size = config.integer("type_vocab_size", 1, max_vocab, 2);
  model.qkv_bias = model.output_bias = model.mlp_bias = true;
  model.tie_word_embeddings = config.boolean("tie_word_embeddings", true);
  if (const auto kind = config.string("position_embedding_type", "absolute"); kind != "absolute") {
    unsupported(config.where() + ": the position_embedding_type " + in_quotes(kind) + " is not supported; supported is absolute");
  }
  if (config.boolean("is_decoder", false)) unsupported(config.where() + ": a BERT with is_decoder is not supported");
}

ModelConfig parse_config(const Fields& config) {
  ModelConfig model;
  model.architecture = architecture_of(config);
  const auto defaults = defaults_of(model.architecture);
  const bool bert = model.architecture == Architecture::bert;

  model.vocab_size = config.integer("vocab_size", 1, max_vocab, defaults.vocab_size);
  model.hidden_size = config.integer("hidden_size", 1, max_width, defaults.hidden_size);
  model.intermediate_size = config.integer("intermediate_size", 1, max_width, defaults.intermediate_size);
  model.layers = config.integer("num_hidden_layers", 1, max_layers, defaults.layers);
  model.heads = config.integer("num_attention_heads", 1, max_heads, defaults.heads);
  model.max_position_embeddings = config.integer("max_position_embeddings", 1, max_positions, defaults.max_position_embeddings);
  model.hidden_act = activation_of(config, bert ? "gelu" : "silu");

  // An explicit null means "as many as heads"; a file without the field has the default of its model type.
  const bool silent = !config.contains("num_key_value_heads") && defaults.kv_heads != 0;
  model.kv_heads = bert ? model.heads : config.integer("num_key_value_heads", 1, max_heads, silent ? defaults.kv_heads : model.heads);
  if (model.heads % model.kv_heads != 0) {
    config.fail("num_key_value_heads", "is " + std::to_string(model.kv_heads) + ", which does not divide the " +
                                           std::to_string(model.heads) + " heads");
  }
  const bool head_dim_known = config.has("head_dim") || (defaults.head_dim != 0 && !config.contains("head_dim"));
  if (head_dim_known && !bert) {
    model.head_dim = config.integer("head_dim", 1, max_width, defaults.head_dim);
  } else {
    if (model.hidden_size % model.heads != 0) {
      config.fail("hidden_size", "is " + std::to_string(model.hidden_size) + ", which is not a multiple of the " +
                                     std::to_string(model.heads) + " heads");
    }
    model.head_dim = model.hidden_size / model.heads;
  }
  if (model.head_dim * model.heads > max_width) config.fail("head_dim", "times num_attention_heads is too large");

  if (bert) read_encoder(config, model);
  else read_decoder(config, defaults, model);

  model.bos_token_id = token_id(config, "bos_token_id");
  model.pad_token_id = token_id(config, "pad_token_id");
  model.eos_token_ids = token_ids(config, "eos_token_id");
  if (!bert && model.architecture != Architecture::qwen2 && model.architecture != Architecture::qwen3) {
    if (!config.contains("bos_token_id")) model.bos_token_id = 1;
    if (!config.contains("eos_token_id")) model.eos_token_ids = {2};
  }
  model.dtype = dtype_of_weights(config);
  return model;
}

Pooling pooling_of(const Fields& config) {
  std::vector<std::string> chosen;
  if (config.has("pooling_mode")) {
    chosen.push_back(config.string("pooling_mode"));
  } else {
    for (const char* mode : {"cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"}) {
      if (config.boolean((std::string("pooling_mode_") + mode).c_str(), false)) chosen.emplace_back(mode);
    }
  }
  if (chosen.size() == 1 && (chosen[0] == "mean_tokens" || chosen[0] == "mean")) return Pooling::mean;
  if (chosen.size() == 1 && (chosen[0] == "cls_token" || chosen[0] == "cls")) return Pooling::cls;
  std::string names;
  for (const auto& name : chosen) names += (names.empty() ? "" : " + ") + name;
  unsupported(config.where() + ": the pooling " + in_quotes(names) + " is not supported; supported are cls_token, mean_tokens");
}

// The files that sentence-transformers puts beside a BERT.
void read_sentence_transformers(const std::filesystem::path& folder, ModelConfig& model) {
  const auto list = folder / "modules.json";
  auto pooling = folder / "1_Pooling" / "config.json";
  if (is_there(list)) {
    const Json modules = read_json(list, max_config_bytes);
    if (!modules.is_array()) bad_file(list.string() + " must be a list, not " + shown(modules));
    for (const auto& entry : modules) {
      const Fields module(entry, list.string());
      const auto type = module.string("type");
      const auto kind = type.substr(type.rfind('.') + 1);
      if (kind == "Normalize") {
        model.normalize_embedding = true;
      } else if (kind == "Pooling") {
        const auto name = module.string("path");
        if (name.empty() || name == "." || name == ".." || name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos) {
          module.fail("path", "is " + in_quotes(name) + "; valid are names of folders in the same folder");
        }
        pooling = folder / name / "config.json";
      } else if (kind != "Transformer") {
        unsupported(list.string() + ": the module " + in_quotes(type) + " is not supported; supported are Transformer, Pooling, Normalize");
      }
    }
  }
  if (is_there(pooling)) {
    const Json document = read_json(pooling, max_config_bytes);
    model.pooling = pooling_of(Fields(document, pooling.string()));
  }
  if (const auto path = folder / "sentence_bert_config.json"; is_there(path)) {
    const Json document = read_json(path, max_config_bytes);
    const Fields config(document, path.string());
    if (config.has("max_seq_length")) {
      model.max_sequence = std::min(config.integer("max_seq_length", 1, max_positions), model.max_position_embeddings);
    }
  }
}

}  // namespace

ModelConfig ModelConfig::parse(std::string_view json, const std::string& origin) {
  const Json document = parse_json(json, origin);
  return parse_config(Fields(document, origin));
}

ModelConfig ModelConfig::load(const std::filesystem::path& folder) {
  if (is_gguf_path(folder)) return gguf_config(open_gguf_parts(folder));
  const auto path = folder / "config.json";
  if (!is_there(path)) {
    bad_file((is_there(folder) ? folder.string() + " is not a model folder: it has no config.json"
                             : "there is no folder " + folder.string() + " (config.json was looked for in it)"));
  }
  const Json document = read_json(path, max_config_bytes);
  ModelConfig model = parse_config(Fields(document, path.string()));
  if (const auto generation = folder / "generation_config.json"; is_there(generation)) {
    const Json extra = read_json(generation, max_config_bytes);
    const Fields config(extra, generation.string());
    if (config.has("bos_token_id")) model.bos_token_id = token_id(config, "bos_token_id");
    if (config.has("pad_token_id")) model.pad_token_id = token_id(config, "pad_token_id");
    if (config.has("eos_token_id")) model.eos_token_ids = token_ids(config, "eos_token_id");
  }
  if (model.architecture == Architecture::bert) read_sentence_transformers(folder, model);
  return model;
}

}  // namespace troika::models
