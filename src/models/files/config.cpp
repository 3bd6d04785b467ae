// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/config.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "../json.hpp"
#include "gguf_config.hpp"
#include "rope_config.hpp"

namespace troika::models {
namespace {

constexpr std::size_t max_config_bytes = std::size_t{16} << 20;

// Limits keep every product of sizes far inside of 64 bits; no model comes near them.
constexpr std::int64_t max_width = std::int64_t{1} << 24, max_layers = 4096, max_heads = 1 << 16, max_experts = 1024,
                       max_vocab = std::int64_t{1} << 28, max_positions = std::int64_t{1} << 30,
                       max_id = std::numeric_limits<std::int32_t>::max();

// What transformers takes where config.json is silent.
struct Defaults {
  std::int64_t vocab_size, hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, max_position_embeddings;
  std::int64_t sliding_window, max_window_layers;
};

Defaults defaults_of(Architecture architecture) {  // 0: derived from the others, or absent
  switch (architecture) {
    case Architecture::mistral: return {32000, 4096, 14336, 32, 32, 8, 0, 131072, 4096, 0};
    case Architecture::qwen2: return {151936, 4096, 22016, 32, 32, 0, 0, 32768, 4096, 28};
    case Architecture::qwen3: return {151936, 4096, 22016, 32, 32, 0, 128, 32768, 4096, 28};
    case Architecture::qwen3_moe: return {151936, 2048, 6144, 24, 32, 4, 0, 32768, 4096, 28};
    case Architecture::gemma2: return {256000, 2304, 9216, 26, 8, 4, 256, 8192, 4096, 0};
    case Architecture::gemma3_text: return {262208, 2304, 9216, 26, 8, 4, 256, 131072, 4096, 0};
    case Architecture::phi3: return {32064, 3072, 8192, 32, 32, 0, 0, 4096, 0, 0};
    case Architecture::gpt2: return {50257, 768, 0, 12, 12, 0, 0, 1024, 0, 0};
    case Architecture::bert: return {30522, 768, 3072, 12, 12, 0, 0, 512, 0, 0};
    case Architecture::nomic_bert: return {30528, 768, 3072, 12, 12, 0, 0, 2048, 0, 0};
    case Architecture::llama: break;
  }
  return {32000, 4096, 11008, 32, 32, 0, 0, 2048, 0, 0};
}

bool is_gemma(Architecture architecture) {
  return architecture == Architecture::gemma2 || architecture == Architecture::gemma3_text;
}

Architecture architecture_of(const Fields& config) {
  std::string known;
  for (const auto name : architecture_names) known += (known.empty() ? "" : ", ") + std::string(name);
  if (!config.has("model_type")) bad_file(config.where() + " has no field 'model_type'; supported are " + known);
  const auto name = config.string("model_type");
  const auto at = std::ranges::find(architecture_names, name);
  if (at == std::end(architecture_names)) {
    unsupported(config.where() + ": the model type " + in_quotes(name) + " is not supported; supported are " + known);
  }
  return static_cast<Architecture>(at - std::begin(architecture_names));
}

// Models spell some fields in their own way.
const char* spelled(const Fields& config, const char* usual, const char* other) {
  return config.contains(other) ? other : usual;
}

Activation activation_of(const Fields& config, const char* key, const std::string& otherwise) {
  const auto name = config.string(key, otherwise);
  if (name == "silu" || name == "swish" || name == "swiglu") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
  unsupported(config.where() + ": the " + key + " " + in_quotes(name) +
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

void read_sliding_window(const Fields& config, const Defaults& defaults, ModelConfig& model) {
  const auto architecture = model.architecture;
  const bool qwen = architecture == Architecture::qwen2 || architecture == Architecture::qwen3;
  // Qwen3-MoE's layers all slide where they do.
  const bool asked = qwen || architecture == Architecture::qwen3_moe;
  if (!asked && !is_gemma(architecture) && architecture != Architecture::mistral && architecture != Architecture::phi3)
    return;
  if (asked && !config.boolean("use_sliding_window", false)) return;
  // "sliding_window": null means none; a file without the field has the default.
  const bool absent = !config.contains("sliding_window");
  if (!config.has("sliding_window") && (!absent || defaults.sliding_window == 0)) return;
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
  } else if (is_gemma(architecture)) {  // every so manyth layer sees all
    const auto period =
        architecture == Architecture::gemma2 ? 2 : config.integer("sliding_window_pattern", 1, max_layers, 6);
    for (std::int64_t layer = 0; layer < model.layers; ++layer)
      model.sliding_layers.push_back((layer + 1) % period != 0);
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
  if (value->is_array())
    std::ranges::for_each(*value, add);
  else
    add(*value);
  return ids;
}

std::optional<std::int32_t> token_id(const Fields& config, const char* key) {
  const auto ids = token_ids(config, key);
  return ids.empty() ? std::nullopt : std::optional(ids.front());
}

// What the norms of Gemma have besides, its caps and its scales.
void read_gemma(const Fields& config, ModelConfig& model) {
  const bool gemma2 = model.architecture == Architecture::gemma2;
  model.norm_adds_one = model.post_norms = true;
  model.qk_norm = !gemma2;
  model.embedding_scale = std::sqrt(static_cast<float>(model.hidden_size));
  model.attention_scale = static_cast<float>(1 / std::sqrt(config.number("query_pre_attn_scalar", 1e-6, 1e9, 256)));
  const auto cap = [&](const char* key, double otherwise) {  // null: none
    if (config.contains(key) && !config.has(key)) return 0.0f;
    return static_cast<float>(config.number(key, 0, 1e9, otherwise));
  };
  model.attention_cap = cap("attn_logit_softcapping", gemma2 ? 50 : 0);
  model.logit_cap = cap("final_logit_softcapping", gemma2 ? 30 : 0);
  if (config.boolean("use_bidirectional_attention", false)) {
    unsupported(config.where() + ": use_bidirectional_attention is not supported; supported is false");
  }
}

void read_experts(const Fields& config, ModelConfig& model) {
  ExpertsConfig experts;
  experts.count = config.integer(spelled(config, "num_experts", "num_local_experts"), 1, max_experts, 128);
  experts.used = config.integer("num_experts_per_tok", 1, experts.count, std::min<std::int64_t>(8, experts.count));
  experts.intermediate_size = config.integer("moe_intermediate_size", 1, max_width, 768);
  experts.normalized = config.boolean("norm_topk_prob", false);
  if (config.integer("decoder_sparse_step", 0, max_layers, 1) != 1) {
    unsupported(config.where() + ": a decoder_sparse_step other than 1 is not supported");
  }
  if (config.has("mlp_only_layers") && !config.array("mlp_only_layers").empty()) {
    unsupported(config.where() + ": mlp_only_layers are not supported; supported are experts in every layer, []");
  }
  model.experts = experts;
}

void read_gpt2(const Fields& config, ModelConfig& model) {
  model.norm = NormKind::layer;
  model.norm_eps =
      static_cast<float>(config.number(spelled(config, "layer_norm_eps", "layer_norm_epsilon"), 0, 1, 1e-5));
  model.learned_positions = true;
  model.gated_mlp = false;
  model.qkv_bias = model.output_bias = model.mlp_bias = true;
  if (!config.boolean("scale_attn_weights", true)) model.attention_scale = 1;
  if (config.boolean("scale_attn_by_inverse_layer_idx", false)) {
    unsupported(config.where() + ": scale_attn_by_inverse_layer_idx is not supported; supported is false");
  }
}

void read_decoder(const Fields& config, const Defaults& defaults, ModelConfig& model) {
  const auto architecture = model.architecture;
  model.attention_scale = static_cast<float>(1 / std::sqrt(static_cast<double>(model.head_dim)));
  const bool tied = is_gemma(architecture) || architecture == Architecture::gpt2;
  model.tie_word_embeddings = config.boolean("tie_word_embeddings", tied);
  if (architecture == Architecture::gpt2) return read_gpt2(config, model);

  model.norm_eps =
      static_cast<float>(config.number("rms_norm_eps", 0, 1, architecture == Architecture::phi3 ? 1e-5 : 1e-6));
  read_rope(config, architecture == Architecture::gemma3_text ? 1e6 : 1e4, model);
  read_sliding_window(config, defaults, model);
  const bool bias = config.boolean("attention_bias", false);
  if (is_gemma(architecture)) read_gemma(config, model);
  if (architecture == Architecture::llama) model.mlp_bias = config.boolean("mlp_bias", false);
  if (architecture == Architecture::qwen2) model.qkv_bias = true;
  if (architecture == Architecture::qwen3 || architecture == Architecture::qwen3_moe) model.qk_norm = true;
  if (architecture == Architecture::qwen3_moe) read_experts(config, model);
  if (architecture != Architecture::qwen2 && architecture != Architecture::mistral &&
      architecture != Architecture::phi3) {
    model.qkv_bias = model.output_bias = bias;
  }
}

void read_encoder(const Fields& config, ModelConfig& model) {
  model.norm = NormKind::layer;
  model.norm_eps =
      static_cast<float>(config.number(spelled(config, "layer_norm_eps", "layer_norm_epsilon"), 0, 1, 1e-12));
  model.type_vocab_size = config.integer("type_vocab_size", 1, max_vocab, 2);
  model.tie_word_embeddings = config.boolean("tie_word_embeddings", true);
  if (config.boolean("is_decoder", false)) unsupported(config.where() + ": a BERT with is_decoder is not supported");
  model.gated_mlp = model.architecture == Architecture::nomic_bert;
  model.learned_positions = model.qkv_bias = model.output_bias = model.mlp_bias = !model.gated_mlp;
  if (model.architecture == Architecture::nomic_bert) {
    read_rope(config, config.number("rotary_emb_base", 1e-3, 1e15, 1000), model);
    if (model.rope_scaling || model.long_rope || model.rope_factor != 1) {
      unsupported(config.where() + ": a nomic_bert whose rotary positions are scaled is not supported");
    }
    for (const char* key : {"qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias", "prenorm", "rotary_emb_interleaved"}) {
      if (config.boolean(key, false))
        unsupported(config.where() + ": " + key + " is not supported; supported is false");
    }
    if (config.number("rotary_emb_fraction", 0, 1, 1) != 1 ||
        config.integer("moe_every_n_layers", 0, max_layers, 0) != 0) {
      unsupported(config.where() + ": a rotary_emb_fraction other than 1, and experts, are not supported");
    }
  } else if (const auto kind = config.string("position_embedding_type", "absolute"); kind != "absolute") {
    unsupported(config.where() + ": the position_embedding_type " + in_quotes(kind) +
                " is not supported; supported is absolute");
  }
}

const char* default_activation(Architecture architecture) {
  if (is_gemma(architecture)) return "gelu_pytorch_tanh";
  if (architecture == Architecture::gpt2) return "gelu_new";
  return architecture == Architecture::bert ? "gelu" : "silu";
}

ModelConfig parse_config(const Fields& config) {
  // A Gemma 3 that sees pictures too has the model of text in it.
  const Json* const type = config.find("model_type");
  if (type != nullptr && *type == "gemma3" && config.has("text_config")) {
    auto model = parse_config(config.object("text_config"));
    if (model.architecture != Architecture::gemma3_text) config.fail("text_config", "is no gemma3_text");
    if (config.has("eos_token_id")) model.eos_token_ids = token_ids(config, "eos_token_id");
    return model;
  }
  ModelConfig model;
  model.architecture = architecture_of(config);
  const auto defaults = defaults_of(model.architecture);

  model.vocab_size = config.integer("vocab_size", 1, max_vocab, defaults.vocab_size);
  model.hidden_size = config.integer(spelled(config, "hidden_size", "n_embd"), 1, max_width, defaults.hidden_size);
  const auto wide = defaults.intermediate_size != 0 ? defaults.intermediate_size : 4 * model.hidden_size;
  model.intermediate_size = config.integer(spelled(config, "intermediate_size", "n_inner"), 1, max_width, wide);
  model.layers = config.integer(spelled(config, "num_hidden_layers", "n_layer"), 1, max_layers, defaults.layers);
  const char* const heads_key = spelled(config, "num_attention_heads", "n_head");
  model.heads = config.integer(heads_key, 1, max_heads, defaults.heads);
  model.max_position_embeddings = config.integer(spelled(config, "max_position_embeddings", "n_positions"), 1,
                                                 max_positions, defaults.max_position_embeddings);
  // Gemma's older hidden_act is not what its models compute.
  const char* const act_key =
      is_gemma(model.architecture) ? "hidden_activation" : spelled(config, "hidden_act", "activation_function");
  model.hidden_act = activation_of(config, act_key, default_activation(model.architecture));

  // An explicit null means "as many as heads"; a file without the field has the default of its model type.
  const bool grouped = model.is_decoder() && model.architecture != Architecture::gpt2;
  const bool silent = !config.contains("num_key_value_heads") && defaults.kv_heads != 0;
  model.kv_heads = grouped
                       ? config.integer("num_key_value_heads", 1, max_heads, silent ? defaults.kv_heads : model.heads)
                       : model.heads;
  if (model.heads % model.kv_heads != 0) {
    config.fail("num_key_value_heads", "is " + std::to_string(model.kv_heads) + ", which does not divide the " +
                                           std::to_string(model.heads) + " heads");
  }
  const bool head_dim_known = config.has("head_dim") || (defaults.head_dim != 0 && !config.contains("head_dim"));
  if (head_dim_known && grouped) {
    model.head_dim = config.integer("head_dim", 1, max_width, defaults.head_dim);
  } else {
    if (model.hidden_size % model.heads != 0) {
      config.fail("hidden_size", "is " + std::to_string(model.hidden_size) + ", which is not a multiple of the " +
                                     std::to_string(model.heads) + " heads");
    }
    model.head_dim = model.hidden_size / model.heads;
  }
  if (model.head_dim * model.heads > max_width)
    config.fail("head_dim", std::string("times ") + heads_key + " is too large");

  if (model.is_decoder())
    read_decoder(config, defaults, model);
  else
    read_encoder(config, model);

  model.bos_token_id = token_id(config, "bos_token_id");
  model.pad_token_id = token_id(config, "pad_token_id");
  model.eos_token_ids = token_ids(config, "eos_token_id");
  const auto ends = [&](std::int32_t bos, std::int32_t eos) {  // where the file says nothing
    if (!config.contains("bos_token_id")) model.bos_token_id = bos;
    if (!config.contains("eos_token_id")) model.eos_token_ids = {eos};
  };
  switch (model.architecture) {
    case Architecture::llama:
    case Architecture::mistral: ends(1, 2); break;
    case Architecture::gemma2:
    case Architecture::gemma3_text: ends(2, 1); break;
    case Architecture::phi3: ends(1, 32000); break;
    case Architecture::gpt2: ends(50256, 50256); break;
    default: break;
  }
  model.dtype = dtype_of_weights(config);
  return model;
}

Pooling pooling_of(const Fields& config) {
  std::vector<std::string> chosen;
  if (config.has("pooling_mode")) {
    chosen.push_back(config.string("pooling_mode"));
  } else {
    for (const char* mode :
         {"cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"}) {
      if (config.boolean((std::string("pooling_mode_") + mode).c_str(), false)) chosen.emplace_back(mode);
    }
  }
  if (chosen.size() == 1 && (chosen[0] == "mean_tokens" || chosen[0] == "mean")) return Pooling::mean;
  if (chosen.size() == 1 && (chosen[0] == "cls_token" || chosen[0] == "cls")) return Pooling::cls;
  std::string names;
  for (const auto& name : chosen) names += (names.empty() ? "" : " + ") + name;
  unsupported(config.where() + ": the pooling " + in_quotes(names) +
              " is not supported; supported are cls_token, mean_tokens");
}

// The files that sentence-transformers puts beside a BERT.
void read_sentence_transformers(const std::filesystem::path& folder, ModelConfig& model) {
  const auto list = folder / "modules.json";
  auto pooling = folder / "1_Pooling" / "config.json";
  if (is_there(list)) {
    const Json modules = read_json(list, max_config_bytes, JsonMemory::bounded);
    if (!modules.is_array()) bad_file(list.string() + " must be a list, not " + shown(modules));
    for (const auto& entry : modules) {
      const Fields module(entry, list.string());
      const auto type = module.string("type");
      const auto kind = type.substr(type.rfind('.') + 1);
      if (kind == "Normalize") {
        model.normalize_embedding = true;
      } else if (kind == "Pooling") {
        const auto name = module.string("path");
        if (name.empty() || name == "." || name == ".." ||
            name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos) {
          module.fail("path", "is " + in_quotes(name) + "; valid are names of folders in the same folder");
        }
        pooling = folder / name / "config.json";
      } else if (kind != "Transformer") {
        unsupported(list.string() + ": the module " + in_quotes(type) +
                    " is not supported; supported are Transformer, Pooling, Normalize");
      }
    }
  }
  if (is_there(pooling)) {
    const Json document = read_json(pooling, max_config_bytes, JsonMemory::bounded);
    model.pooling = pooling_of(Fields(document, pooling.string()));
  }
  if (const auto path = folder / "sentence_bert_config.json"; is_there(path)) {
    const Json document = read_json(path, max_config_bytes, JsonMemory::bounded);
    const Fields config(document, path.string());
    if (config.has("max_seq_length")) {
      model.max_sequence = std::min(config.integer("max_seq_length", 1, max_positions), model.max_position_embeddings);
    }
  }
}

}  // namespace

ModelConfig ModelConfig::parse(std::string_view json, const std::string& origin) {
  const Json document = parse_json(json, origin, JsonMemory::bounded);
  return parse_config(Fields(document, origin));
}

ModelConfig ModelConfig::load(const std::filesystem::path& folder) {
  if (is_gguf_path(folder)) return gguf_config(open_gguf_parts(folder));
  const auto path = folder / "config.json";
  if (!is_there(path)) {
    bad_file((is_there(folder) ? folder.string() + " is not a model folder: it has no config.json"
                               : "there is no folder " + folder.string() + " (config.json was looked for in it)"));
  }
  const Json document = read_json(path, max_config_bytes, JsonMemory::bounded);
  ModelConfig model = parse_config(Fields(document, path.string()));
  if (const auto generation = folder / "generation_config.json"; is_there(generation)) {
    const Json extra = read_json(generation, max_config_bytes, JsonMemory::bounded);
    const Fields config(extra, generation.string());
    if (config.has("bos_token_id")) model.bos_token_id = token_id(config, "bos_token_id");
    if (config.has("pad_token_id")) model.pad_token_id = token_id(config, "pad_token_id");
    if (config.has("eos_token_id")) model.eos_token_ids = token_ids(config, "eos_token_id");
  }
  if (!model.is_decoder()) read_sentence_transformers(folder, model);
  return model;
}

}  // namespace troika::models
