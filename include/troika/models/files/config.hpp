// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <troika/core/activation.hpp>
#include <troika/core/dtype.hpp>

namespace troika::models {

// Spelled as the model_type of a config.json.
enum class Architecture : std::uint8_t {
  llama,
  mistral,
  qwen2,
  qwen3,
  qwen3_moe,
  gemma2,
  gemma3_text,
  phi3,
  gpt2,
  bert,
  nomic_bert
};
using troika::Activation, troika::to_string;
enum class NormKind : std::uint8_t { rms, layer };
enum class Pooling : std::uint8_t { mean, cls };

inline constexpr std::string_view architecture_names[] = {
    "llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3_text", "phi3", "gpt2", "bert", "nomic_bert"};
constexpr std::string_view to_string(Architecture architecture) {
  return architecture_names[static_cast<std::size_t>(architecture)];
}
constexpr std::string_view to_string(Pooling pooling) { return pooling == Pooling::mean ? "mean" : "cls"; }

// Llama 3's stretching of rotary frequencies for contexts longer than those of the first training.
struct Llama3RopeScaling {
  double factor = 1, low_freq_factor = 1, high_freq_factor = 4;
  std::int64_t original_max_position_embeddings = 8192;
  bool operator==(const Llama3RopeScaling&) const = default;
};

// Phi-3's: other divisors of the frequencies once the context is longer than that of the first training.
struct LongRopeScaling {
  std::vector<float> short_divisors, long_divisors;  // (rotary_dim / 2)
  std::int64_t original_max_position_embeddings = 4096;
  double magnitude = 1;  // cos and sin are multiplied by it
};

// The MLP of a mixture of experts: each token takes the `used` experts that its router gives the most.
struct ExpertsConfig {
  std::int64_t count = 0, used = 0, intermediate_size = 0;
  bool normalized = false;  // the weights of a token's experts are made to add up to 1
};

// What a Hugging Face folder or a GGUF file says about its model, checked: sizes are positive and bounded, heads divide
// as they must. Where a file leaves a value out, it is the one that transformers takes for that model type.
struct ModelConfig {
  Architecture architecture = Architecture::llama;

  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t max_position_embeddings = 0;
  Activation hidden_act = Activation::silu;
  bool gated_mlp = true;   // act(gate) * up, rather than act(up)
  float norm_eps = 1e-6f;  // rms_norm_eps, or layer_norm_eps
  NormKind norm = NormKind::rms;
  bool norm_adds_one = false;  // the file has w where the norm multiplies by 1 + w (Gemma; GGUF files have 1 + w)

  // Rotary positions
  bool learned_positions = false;  // a table is added to the embedding, and nothing is rotated
  std::int64_t rotary_dim = 0;     // the first so many features of each head are rotated
  double rope_theta = 10000;
  double rope_factor = 1;                  // positions are divided by it ("linear")
  std::optional<double> local_rope_theta;  // of the layers that slide, which have no factor then (Gemma 3)
  std::optional<Llama3RopeScaling> rope_scaling;
  std::optional<LongRopeScaling> long_rope;
  std::vector<float>
      rope_divisors;  // (rotary_dim / 2), of the rotary frequencies; empty: all 1. GGUF files have these instead

  // Decoders
  float embedding_scale = 1;
  float attention_scale = 0;  // of the scores; 1 / sqrt(head_dim) in most models
  float attention_cap = 0;    // scores become cap * tanh(score / cap); 0: no cap
  float logit_cap = 0;        // likewise
  bool post_norms = false;    // norms after attention and MLP too, before they are added
  std::optional<ExpertsConfig> experts;
  bool qkv_bias = false;     // q_proj, k_proj, v_proj carry a bias
  bool output_bias = false;  // o_proj does
  bool mlp_bias = false;
  bool qk_norm = false;  // RMSNorm over each head of q and k, before rotation
  bool tie_word_embeddings = false;

  // Encoders
  std::int64_t type_vocab_size = 0;
  std::optional<Pooling> pooling;            // from the sentence-transformers files, when the folder has them
  bool normalize_embedding = false;          // likewise
  std::optional<std::int64_t> max_sequence;  // likewise; no more than max_position_embeddings

  std::optional<std::int32_t> bos_token_id, pad_token_id;
  std::vector<std::int32_t> eos_token_ids;  // any of them ends the text; generation_config.json wins over config.json
  std::optional<DType> dtype;               // of the weights, as the file claims; the safetensors header decides

  // Positions that a token of this layer sees, itself included; 0 when it sees all before it.
  std::int64_t attention_window(std::int64_t layer) const {
    const bool slides = sliding_layers.empty() || sliding_layers[static_cast<std::size_t>(layer)];
    return slides ? sliding_window : 0;
  }
  std::int64_t sliding_window = 0;   // 0: none
  std::vector<bool> sliding_layers;  // empty: all layers

  bool is_decoder() const { return architecture != Architecture::bert && architecture != Architecture::nomic_bert; }

  // Of a folder: config.json and, where present, generation_config.json, modules.json and the pooling config. Of a GGUF
  // file: its metadata. Error{bad_file} or Error{unsupported} names the file, the field, its value and what would be
  // valid.
  static ModelConfig load(const std::filesystem::path& path);
  // The text of a config.json alone; `origin` stands for the file in messages.
  static ModelConfig parse(std::string_view json, const std::string& origin = "config.json");
};

}  // namespace troika::models
