// SPDX-License-Identifier: Apache-2.0
#include "gguf_names.hpp"

#include <algorithm>
#include <utility>

namespace troika::models {
namespace {

struct Pair {
  std::string_view gguf, hugging_face;
  bool is_matrix;
};

constexpr Pair decoder_names[] = {{"token_embd", "model.embed_tokens", true},
                                  {"output_norm", "model.norm", false},
                                  {"output", "lm_head", true},
                                  {"position_embd", "model.position_embeddings", true}};
constexpr Pair decoder_layer_names[] = {{"attn_norm", "input_layernorm", false},
                                        {"attn_q", "self_attn.q_proj", true},
                                        {"attn_k", "self_attn.k_proj", true},
                                        {"attn_v", "self_attn.v_proj", true},
                                        {"attn_output", "self_attn.o_proj", true},
                                        {"attn_q_norm", "self_attn.q_norm", false},
                                        {"attn_k_norm", "self_attn.k_norm", false},
                                        {"ffn_norm", "post_attention_layernorm", false},
                                        {"ffn_gate", "mlp.gate_proj", true},
                                        {"ffn_up", "mlp.up_proj", true},
                                        {"ffn_down", "mlp.down_proj", true},
                                        {"attn_qkv", "self_attn.qkv_proj", true},
                                        {"ffn_gate_inp", "mlp.gate", true},
                                        {"ffn_gate_exps", "mlp.experts.gate_proj", false},
                                        {"ffn_up_exps", "mlp.experts.up_proj", false},
                                        {"ffn_down_exps", "mlp.experts.down_proj", false}};
// Those that differ, by architecture.
constexpr Pair gemma_layer_names[] = {{"post_attention_norm", "post_attention_layernorm", false},
                                      {"ffn_norm", "pre_feedforward_layernorm", false},
                                      {"post_ffw_norm", "post_feedforward_layernorm", false}};
constexpr Pair phi3_layer_names[] = {{"ffn_up", "mlp.gate_up_proj", true}};

constexpr Pair encoder_names[] = {{"token_embd", "embeddings.word_embeddings", true},
                                  {"position_embd", "embeddings.position_embeddings", true},
                                  {"token_types", "embeddings.token_type_embeddings", true},
                                  {"token_embd_norm", "embeddings.LayerNorm", false}};
constexpr Pair encoder_layer_names[] = {{"attn_q", "attention.self.query", true},
                                        {"attn_k", "attention.self.key", true},
                                        {"attn_v", "attention.self.value", true},
                                        {"attn_output", "attention.output.dense", true},
                                        {"attn_output_norm", "attention.output.LayerNorm", false},
                                        {"attn_qkv", "attention.self.qkv", true},
                                        {"ffn_gate", "intermediate.gate", true},
                                        {"ffn_up", "intermediate.dense", true},
                                        {"ffn_down", "output.dense", true},
                                        {"layer_output_norm", "output.LayerNorm", false}};

template <std::size_t N>
const Pair* find(const Pair (&pairs)[N], std::string_view name, std::string_view Pair::*side = &Pair::gguf) {
  for (const auto& pair : pairs) {
    if (pair.*side == name) return &pair;
  }
  return nullptr;
}

bool is_encoder(Architecture architecture) {
  return architecture == Architecture::bert || architecture == Architecture::nomic_bert;
}

const Pair* find_outside(std::string_view name, Architecture architecture, std::string_view Pair::*side = &Pair::gguf) {
  return is_encoder(architecture) ? find(encoder_names, name, side) : find(decoder_names, name, side);
}

const Pair* find_in_layer(std::string_view name, Architecture architecture,
                          std::string_view Pair::*side = &Pair::gguf) {
  const Pair* pair = nullptr;
  switch (architecture) {
    case Architecture::bert:
    case Architecture::nomic_bert: return find(encoder_layer_names, name, side);
    case Architecture::gemma2:
    case Architecture::gemma3_text: pair = find(gemma_layer_names, name, side); break;
    case Architecture::phi3: pair = find(phi3_layer_names, name, side); break;
    default: break;
  }
  return pair != nullptr ? pair : find(decoder_layer_names, name, side);
}

std::string_view layers_of(Architecture architecture) {
  return is_encoder(architecture) ? "encoder.layer." : "model.layers.";
}

}  // namespace

HuggingFaceName hugging_face_name(std::string_view gguf_name, Architecture architecture) {
  const HuggingFaceName unknown{std::string(gguf_name)};
  const auto dot = gguf_name.rfind('.');
  if (dot == std::string_view::npos) return unknown;
  const auto end = gguf_name.substr(dot);  // ".weight", ".bias"
  if (end != ".weight" && end != ".bias") return unknown;
  auto name = gguf_name.substr(0, dot);

  const Pair* pair = nullptr;
  std::string prefix;
  if (name.starts_with("blk.")) {
    name.remove_prefix(4);
    const auto layer = name.substr(0, name.find('.'));
    if (layer.empty() || layer.size() == name.size() || layer.find_first_not_of("0123456789") != layer.npos)
      return unknown;
    name.remove_prefix(layer.size() + 1);
    prefix = std::string(layers_of(architecture)) + std::string(layer) + ".";
    pair = find_in_layer(name, architecture);
  } else {
    pair = find_outside(name, architecture);
  }
  if (pair == nullptr) return unknown;

  HuggingFaceName found{prefix + std::string(pair->hugging_face) + std::string(end),
                        pair->is_matrix && end == ".weight"};
  if (architecture == Architecture::llama || architecture == Architecture::mistral) {
    if (name == "attn_q") found.rows = HuggingFaceName::query;
    if (name == "attn_k") found.rows = HuggingFaceName::key;
  }
  return found;
}

std::string gguf_name(std::string_view name, Architecture architecture) {
  const auto dot = name.rfind('.');
  if (dot == std::string_view::npos) return {};
  const auto end = std::string(name.substr(dot));
  if (end != ".weight" && end != ".bias") return {};
  name = name.substr(0, dot);
  const auto layers = layers_of(architecture);
  if (!name.starts_with(layers)) {
    const auto* pair = find_outside(name, architecture, &Pair::hugging_face);
    return pair == nullptr ? std::string() : std::string(pair->gguf) + end;
  }
  name.remove_prefix(layers.size());
  const auto layer = std::string(name.substr(0, name.find('.')));
  name.remove_prefix(std::min(name.size(), layer.size() + 1));
  const auto* pair = find_in_layer(name, architecture, &Pair::hugging_face);
  return pair == nullptr ? std::string() : "blk." + layer + "." + std::string(pair->gguf) + end;
}

}  // namespace troika::models
