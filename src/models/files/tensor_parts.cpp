// SPDX-License-Identifier: Apache-2.0
#include "tensor_parts.hpp"

#include <utility>

#include "../json.hpp"

namespace troika::models {
namespace {

struct Pair {
  std::string_view theirs, ours;
  bool transposed = false;
};

constexpr Pair gpt2_names[] = {{"wte", "model.embed_tokens"},
                               {"wpe", "model.position_embeddings"},
                               {"ln_f", "model.norm"},
                               {"lm_head", "lm_head"}};
constexpr Pair gpt2_layer_names[] = {{"ln_1", "input_layernorm"},
                                     {"attn.c_attn", "self_attn.qkv_proj", true},
                                     {"attn.c_proj", "self_attn.o_proj", true},
                                     {"ln_2", "post_attention_layernorm"},
                                     {"mlp.c_fc", "mlp.up_proj", true},
                                     {"mlp.c_proj", "mlp.down_proj", true}};

constexpr Pair nomic_names[] = {{"embeddings.word_embeddings", "embeddings.word_embeddings"},
                                {"embeddings.token_type_embeddings", "embeddings.token_type_embeddings"},
                                {"emb_ln", "embeddings.LayerNorm"},
                                {"embeddings.LayerNorm", "embeddings.LayerNorm"}};
constexpr Pair nomic_layer_names[] = {{"attn.Wqkv", "attention.self.qkv"},
                                      {"attn.out_proj", "attention.output.dense"},
                                      {"norm1", "attention.output.LayerNorm"},
                                      {"mlp.fc11", "intermediate.dense"},
                                      {"mlp.fc12", "intermediate.gate"},
                                      {"mlp.fc2", "output.dense"},
                                      {"norm2", "output.LayerNorm"},
                                      // those of transformers 5
                                      {"self_attn.q_proj", "attention.self.query"},
                                      {"self_attn.k_proj", "attention.self.key"},
                                      {"self_attn.v_proj", "attention.self.value"},
                                      {"self_attn.o_proj", "attention.output.dense"},
                                      {"post_attention_layernorm", "attention.output.LayerNorm"},
                                      {"mlp.up_proj", "intermediate.dense"},
                                      {"mlp.gate_proj", "intermediate.gate"},
                                      {"mlp.down_proj", "output.dense"},
                                      {"post_mlp_layernorm", "output.LayerNorm"}};

template <std::size_t N>
const Pair* find(const Pair (&pairs)[N], std::string_view name) {
  for (const auto& pair : pairs) {
    if (pair.theirs == name) return &pair;
  }
  return nullptr;
}

// Takes `prefix` off where the name has it.
bool strip(std::string_view& name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return false;
  name.remove_prefix(prefix.size());
  return true;
}

// {name of the stem, its ending}: ".weight", ".bias", or nothing.
std::pair<std::string_view, std::string_view> split_ending(std::string_view name) {
  for (const std::string_view ending : {".weight", ".bias"}) {
    if (name.ends_with(ending)) return {name.substr(0, name.size() - ending.size()), ending};
  }
  return {name, {}};
}

}  // namespace

FolderName folder_name(std::string_view name, Architecture architecture) {
  if (architecture == Architecture::gemma3_text) {  // beside a model of pictures, which nobody asks for
    if (strip(name, "model.language_model.")) return {"model." + std::string(name)};
    strip(name, "language_model.");
    return {std::string(name)};
  }
  const bool gpt2 = architecture == Architecture::gpt2;
  if (!gpt2 && architecture != Architecture::nomic_bert) return {std::string(name)};
  auto [stem, ending] = split_ending(name);
  std::string prefix;
  const Pair* pair = nullptr;
  if (gpt2)
    strip(stem, "transformer.");
  else
    (void)(strip(stem, "nomic_bert.") || strip(stem, "bert.") || strip(stem, "model."));
  if (gpt2 ? strip(stem, "h.") : strip(stem, "encoder.layers.") || strip(stem, "layers.")) {
    const auto layer = stem.substr(0, stem.find('.'));
    stem.remove_prefix(std::min(stem.size(), layer.size() + 1));
    prefix = (gpt2 ? "model.layers." : "encoder.layer.") + std::string(layer) + ".";
    pair = gpt2 ? find(gpt2_layer_names, stem) : find(nomic_layer_names, stem);
  } else {
    pair = gpt2 ? find(gpt2_names, stem) : find(nomic_names, stem);
  }
  if (pair == nullptr || ending.empty()) return {std::string(name)};
  return {prefix + std::string(pair->ours) + std::string(ending), pair->transposed && ending == ".weight"};
}

bool is_folder_name(std::string_view name) {
  const auto stem = split_ending(name).first;
  if (stem.starts_with("language_model.") || stem.starts_with("model.language_model.")) return true;
  for (const std::string_view end :
       {"self_attn.qkv_proj", "mlp.gate_up_proj", "attn.c_attn", "attn.Wqkv", "post_mlp_layernorm"}) {
    if (stem.ends_with(end)) return true;
  }
  return false;
}

std::vector<TensorPart> parts_of(std::string_view name, const Shape& shape, const ModelConfig& config,
                                 const std::string& origin) {
  const auto split = split_ending(name);  // clang 14 captures no bindings
  const auto stem = split.first, ending = split.second;
  const auto before = [&](std::string_view end) { return std::string(stem.substr(0, stem.size() - end.size())); };
  std::vector<TensorPart> parts;
  const auto add = [&](std::string called, std::int64_t rows) {
    const auto begin = parts.empty() ? 0 : parts.back().begin + parts.back().shape[0];
    const auto part = shape.dims() == 1 ? Shape{rows} : Shape{rows, shape[shape.dims() - 1]};
    parts.push_back({std::move(called) + std::string(ending), part, begin});
  };
  const auto query = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
  if (stem.ends_with(".self_attn.qkv_proj")) {
    const auto root = before("qkv_proj");
    add(root + "q_proj", query);
    add(root + "k_proj", kv);
    add(root + "v_proj", kv);
  } else if (stem.ends_with(".attention.self.qkv")) {
    const auto root = before("qkv");
    for (const char* which : {"query", "key", "value"}) add(root + which, query);
  } else if (stem.ends_with(".mlp.gate_up_proj")) {
    const auto root = before("gate_up_proj");
    add(root + "gate_proj", config.intermediate_size);
    add(root + "up_proj", config.intermediate_size);
  } else if (config.experts && stem.find(".mlp.experts.") != stem.npos && shape.dims() == 3) {
    // (experts, out, in)
    const auto at = stem.rfind('.');
    const auto which = std::string(stem.substr(at));
    // A file of many parts that hold next to nothing would take memory for their names.
    constexpr std::int64_t least_elements = 1024;
    const auto inner = config.experts->intermediate_size, hidden = config.hidden_size;
    const Shape wanted = which == ".down_proj" ? Shape{config.experts->count, hidden, inner}
                                               : Shape{config.experts->count, inner, hidden};
    if (shape != wanted || inner * hidden < least_elements) {
      bad_file(origin + ": tensor " + in_quotes(name) + " has shape " + shape.to_string() +
               "; the configuration of the model asks for " + wanted.to_string() + ", and an expert has at least " +
               std::to_string(least_elements) + " elements");
    }
    for (std::int64_t i = 0; i < shape[0]; ++i)
      add(std::string(stem.substr(0, at + 1)) + std::to_string(i) + which, shape[1]);
    return parts;
  }
  if (parts.empty()) return parts;
  const auto rows = parts.back().begin + parts.back().shape[0];
  if (shape.dims() < 1 || shape.dims() > 2 || shape[0] != rows) {
    bad_file(origin + ": tensor " + in_quotes(name) + " has shape " + shape.to_string() +
             "; the configuration of the model asks for " + std::to_string(rows) + " rows");
  }
  return parts;
}

PartOf part_of(std::string_view name, const ModelConfig& config) {
  const auto [stem, ending] = split_ending(name);
  constexpr std::string_view experts = ".mlp.experts.";
  if (const auto at = stem.find(experts); config.experts && at != stem.npos) {
    const auto number = stem.substr(at + experts.size(), stem.substr(at + experts.size()).find('.'));
    if (number.empty() || number.size() > 6 || number.find_first_not_of("0123456789") != number.npos)
      return {std::string(name)};
    const auto which = stem.substr(at + experts.size() + number.size());
    return {std::string(stem.substr(0, at + experts.size() - 1)) + std::string(which) + std::string(ending),
            std::stoll(std::string(number)), config.experts->count};
  }
  struct Joined {
    std::string_view part, whole;
    std::int64_t place, count;
    bool with_gate = false;
  };
  constexpr Joined joined[] = {
      {".self_attn.q_proj", ".self_attn.qkv_proj", 0, 3},   {".self_attn.k_proj", ".self_attn.qkv_proj", 1, 3},
      {".self_attn.v_proj", ".self_attn.qkv_proj", 2, 3},   {".attention.self.query", ".attention.self.qkv", 0, 3},
      {".attention.self.key", ".attention.self.qkv", 1, 3}, {".attention.self.value", ".attention.self.qkv", 2, 3},
      {".mlp.gate_proj", ".mlp.gate_up_proj", 0, 2, true},  {".mlp.up_proj", ".mlp.gate_up_proj", 1, 2, true}};
  using A = Architecture;
  const auto a = config.architecture;
  if (a != A::phi3 && a != A::gpt2 && a != A::nomic_bert) return {std::string(name)};
  for (const auto& each : joined) {
    if (!stem.ends_with(each.part) || (each.with_gate && !config.gated_mlp)) continue;
    const auto root = stem.substr(0, stem.size() - each.part.size());
    return {std::string(root) + std::string(each.whole) + std::string(ending), each.place, each.count};
  }
  return {std::string(name)};
}

}  // namespace troika::models
