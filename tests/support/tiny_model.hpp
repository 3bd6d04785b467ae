// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <troika/core/dtype.hpp>
#include <troika/core/shape.hpp>

// A small model with random weights, written as a Hugging Face folder and kept as numbers for the reference.
struct TinyModel {
  struct Values {
    troika::Shape shape;
    std::vector<double> data;  // as stored: rounded to the file's type
    double operator()(std::int64_t row, std::int64_t column) const {
      return data[static_cast<std::size_t>(row * shape[1] + column)];
    }
    double operator[](std::int64_t i) const { return data[static_cast<std::size_t>(i)]; }
  };

  std::string type;  // model_type
  std::int64_t hidden = 48, intermediate = 80, layers = 2, heads = 6, kv_heads = 2, head_dim = 8, vocab = 101,
               positions = 64;
  bool qkv_bias = false, qk_norm = false, tied = false, llama3 = false;
  std::int64_t window = 0;  // gemma2: of every second layer
  bool gemma = false;       // norms of 1 + w, after attention and MLP too, caps, GeGLU
  double attention_cap = 2, logit_cap = 1.5, query_scalar = 12;  // of gemma
  std::int64_t experts = 0, used_experts = 2;
  troika::DType dtype = troika::DType::f32;
  std::map<std::string, Values> tensors{};

  bool encoder() const { return type == "bert"; }

  static TinyModel make(std::string type, std::uint32_t seed = 1, troika::DType dtype = troika::DType::f32,
                        std::int64_t vocab = 101) {
    TinyModel model;
    model.type = std::move(type);
    model.vocab = vocab;
    model.dtype = dtype;
    if (model.type == "llama") model.llama3 = model.tied = true;
    if (model.type == "mistral") model.window = 5;
    if (model.type == "qwen2") model.qkv_bias = true;
    if (model.type == "qwen3") {
      model.qk_norm = model.tied = true;
      model.head_dim = 16;
    }
    if (model.type == "qwen3_moe") {
      model.qk_norm = true;
      model.experts = 5;
    }
    if (model.type == "gemma2") {
      model.gemma = model.tied = true;
      model.window = 5;
    }
    if (model.type == "bert") model.kv_heads = model.heads;
    std::mt19937 random(seed);
    model.encoder() ? model.fill_encoder(random) : model.fill_decoder(random);
    return model;
  }

  void write(const std::filesystem::path& folder) const {
    std::ofstream(folder / "config.json") << config();
    std::string header = "{", body;
    for (const auto& [name, values] : tensors) {
      const auto begin = body.size();
      for (const double value : values.data) append(body, value);
      header += (header.size() > 1 ? ",\"" : "\"") + name + "\":{\"dtype\":\"" + dtype_name() + "\",\"shape\":[";
      for (int d = 0; d < values.shape.dims(); ++d) header += (d ? "," : "") + std::to_string(values.shape[d]);
      header += "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(body.size()) + "]}";
    }
    header += "}";
    const std::uint64_t size = header.size();
    std::ofstream file(folder / "model.safetensors", std::ios::binary);
    file.write(reinterpret_cast<const char*>(&size), 8);
    file << header << body;
  }

  std::string config() const {
    const auto field = [](const std::string& name, auto value) { return ",\"" + name + "\":" + std::to_string(value); };
    std::string text = "{\"model_type\":\"" + type + "\"";
    text += field("hidden_size", hidden) + field("intermediate_size", intermediate) +
            field("num_hidden_layers", layers) + field("num_attention_heads", heads) + field("vocab_size", vocab) +
            field("max_position_embeddings", positions);
    if (encoder()) {
      text += field("type_vocab_size", 2) + ",\"hidden_act\":\"gelu\",\"layer_norm_eps\":1e-12";
    } else {
      text += field("num_key_value_heads", kv_heads) + field("head_dim", head_dim) + field("rope_theta", 10000.0) +
              ",\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"bos_token_id\":1,\"eos_token_id\":[2]" +
              ",\"tie_word_embeddings\":" + (tied ? "true" : "false");
      if (experts) {
        text += field("num_experts", experts) + field("num_experts_per_tok", used_experts) +
                field("moe_intermediate_size", intermediate) + ",\"norm_topk_prob\":true";
      }
      if (gemma) {
        text += field("query_pre_attn_scalar", query_scalar) + field("attn_logit_softcapping", attention_cap) +
                field("final_logit_softcapping", logit_cap) + ",\"hidden_activation\":\"gelu_pytorch_tanh\"";
      }
      if (window) text += field("sliding_window", window);
      if (llama3) {
        text +=
            ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4."
            "0,"
            "\"original_max_position_embeddings\":32}";
      }
    }
    return text + "}\n";
  }

 private:
  void add(std::mt19937& random, const std::string& name, troika::Shape shape, double scale, double offset = 0) {
    std::normal_distribution<double> normal(offset, scale);
    Values values{shape, std::vector<double>(static_cast<std::size_t>(shape.count()))};
    for (auto& value : values.data) value = rounded(normal(random));
    tensors.emplace(name, std::move(values));
  }

  void fill_decoder(std::mt19937& random) {
    const double scale = 0.15;
    const auto query = heads * head_dim, kv = kv_heads * head_dim;
    add(random, "model.embed_tokens.weight", {vocab, hidden}, 1);
    const double one = gemma ? 0 : 1;  // what norms multiply by is 1 + w there
    add(random, "model.norm.weight", {hidden}, 0.1, one);
    if (!tied) add(random, "lm_head.weight", {vocab, hidden}, scale);
    for (std::int64_t i = 0; i < layers; ++i) {
      const std::string layer = "model.layers." + std::to_string(i), attention = layer + ".self_attn.";
      add(random, layer + ".input_layernorm.weight", {hidden}, 0.1, one);
      add(random, layer + ".post_attention_layernorm.weight", {hidden}, 0.1, one);
      if (gemma) {
        add(random, layer + ".pre_feedforward_layernorm.weight", {hidden}, 0.1, one);
        add(random, layer + ".post_feedforward_layernorm.weight", {hidden}, 0.1, one);
      }
      add(random, attention + "q_proj.weight", {query, hidden}, scale);
      add(random, attention + "k_proj.weight", {kv, hidden}, scale);
      add(random, attention + "v_proj.weight", {kv, hidden}, scale);
      add(random, attention + "o_proj.weight", {hidden, query}, scale);
      if (qkv_bias) {
        add(random, attention + "q_proj.bias", {query}, scale);
        add(random, attention + "k_proj.bias", {kv}, scale);
        add(random, attention + "v_proj.bias", {kv}, scale);
      }
      if (qk_norm) {
        add(random, attention + "q_norm.weight", {head_dim}, 0.1, 1);
        add(random, attention + "k_norm.weight", {head_dim}, 0.1, 1);
      }
      if (experts) add(random, layer + ".mlp.gate.weight", {experts, hidden}, scale);
      for (std::int64_t e = 0; e < std::max<std::int64_t>(experts, 1); ++e) {
        const auto mlp = layer + ".mlp." + (experts ? "experts." + std::to_string(e) + "." : "");
        add(random, mlp + "gate_proj.weight", {intermediate, hidden}, scale);
        add(random, mlp + "up_proj.weight", {intermediate, hidden}, scale);
        add(random, mlp + "down_proj.weight", {hidden, intermediate}, scale);
      }
    }
  }

  void fill_encoder(std::mt19937& random) {
    const double scale = 0.15;
    const auto features = heads * (hidden / heads);
    add(random, "embeddings.word_embeddings.weight", {vocab, hidden}, 1);
    add(random, "embeddings.position_embeddings.weight", {positions, hidden}, 0.3);
    add(random, "embeddings.token_type_embeddings.weight", {2, hidden}, 0.3);
    add_norm(random, "embeddings.LayerNorm");
    for (std::int64_t i = 0; i < layers; ++i) {
      const std::string layer = "encoder.layer." + std::to_string(i);
      for (const std::string name : {"query", "key", "value"}) {
        add(random, layer + ".attention.self." + name + ".weight", {features, hidden}, scale);
        add(random, layer + ".attention.self." + name + ".bias", {features}, scale);
      }
      add(random, layer + ".attention.output.dense.weight", {hidden, features}, scale);
      add(random, layer + ".attention.output.dense.bias", {hidden}, scale);
      add_norm(random, layer + ".attention.output.LayerNorm");
      add(random, layer + ".intermediate.dense.weight", {intermediate, hidden}, scale);
      add(random, layer + ".intermediate.dense.bias", {intermediate}, scale);
      add(random, layer + ".output.dense.weight", {hidden, intermediate}, scale);
      add(random, layer + ".output.dense.bias", {hidden}, scale);
      add_norm(random, layer + ".output.LayerNorm");
    }
  }
  void add_norm(std::mt19937& random, const std::string& name) {
    add(random, name + ".weight", {hidden}, 0.1, 1);
    add(random, name + ".bias", {hidden}, 0.1);
  }

  std::string dtype_name() const {
    return dtype == troika::DType::f32 ? "F32" : dtype == troika::DType::f16 ? "F16" : "BF16";
  }
  double rounded(double value) const {
    const auto narrow = static_cast<float>(value);
    if (dtype == troika::DType::f16) return static_cast<float>(troika::f16(narrow));
    if (dtype == troika::DType::bf16) return static_cast<float>(troika::bf16(narrow));
    return narrow;
  }
  void append(std::string& body, double value) const {
    const auto narrow = static_cast<float>(value);
    if (dtype == troika::DType::f32) {
      body.append(reinterpret_cast<const char*>(&narrow), 4);
    } else {
      const auto bits = dtype == troika::DType::f16 ? troika::f16(narrow).bits : troika::bf16(narrow).bits;
      body.append(reinterpret_cast<const char*>(&bits), 2);
    }
  }
};
