// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <device/quantised.hpp>
#include <models_files/gguf_bytes.hpp>
#include <support/catch.hpp>
#include <support/temp_folder.hpp>

#include <troika/core/error.hpp>
#include <troika/models/files/config.hpp>
#include <troika/models/files/weights.hpp>

using namespace troika;
using namespace troika::models;
using namespace troika::test;
using Catch::Matchers::ContainsSubstring;

namespace {

// 0, 1, 2, ... as the elements of the tensors, one tensor after the other.
struct Folder {
  Folder(const std::string& config, const std::vector<std::pair<std::string, std::vector<std::int64_t>>>& tensors) {
    folder.write("config.json", config);
    std::string header = "{", body;
    for (const auto& [name, shape] : tensors) {
      std::int64_t count = 1;
      std::string text;
      for (const auto extent : shape) {
        count *= extent;
        text += (text.empty() ? "" : ",") + std::to_string(extent);
      }
      const auto begin = body.size();
      for (std::int64_t i = 0; i < count; ++i) body += le(static_cast<float>(next++));
      header += (header.size() > 1 ? ",\"" : "\"") + name + "\":{\"dtype\":\"F32\",\"shape\":[" + text +
                "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(body.size()) + "]}";
    }
    header += "}";
    folder.write("model.safetensors", le_u64(header.size()) + header + body);
  }
  Weights open() const { return Weights::open(folder.path()); }

  TempFolder folder;
  int next = 0;
};

std::vector<float> read(const Weights& weights, const std::string& name) {
  std::vector<float> values(static_cast<std::size_t>(weights.info(name).shape.count()));
  weights.read<float>(name, values);
  return values;
}

std::vector<float> counting(float begin, std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = begin + static_cast<float>(i);
  return values;
}

}  // namespace

TEST_CASE("q, k and v, and gate and up, are found one by one in the tensors that hold them together") {
  const Folder folder(
      R"({"model_type":"phi3","hidden_size":8,"num_attention_heads":4,"num_key_value_heads":2,"intermediate_size":3})",
      {{"model.layers.0.self_attn.qkv_proj.weight", {16, 8}}, {"model.layers.0.mlp.gate_up_proj.weight", {6, 8}}});
  const auto weights = folder.open();
  const std::string attention = "model.layers.0.self_attn.", mlp = "model.layers.0.mlp.";
  CHECK(weights.names() == std::vector<std::string>{mlp + "gate_proj.weight", mlp + "up_proj.weight",
                                                    attention + "k_proj.weight", attention + "q_proj.weight",
                                                    attention + "v_proj.weight"});
  CHECK(read(weights, attention + "q_proj.weight") == counting(0, 64));
  CHECK(read(weights, attention + "k_proj.weight") == counting(64, 32));
  CHECK(read(weights, attention + "v_proj.weight") == counting(96, 32));
  CHECK(read(weights, mlp + "gate_proj.weight") == counting(128, 24));
  CHECK(read(weights, mlp + "up_proj.weight") == counting(152, 24));
  CHECK(weights.total_bytes() == 22 * 8 * 4);
  std::vector<float> rows(16), columns(6);
  weights.read_rows<float>(attention + "k_proj.weight", {1, 3}, rows);
  CHECK(rows == counting(72, 16));
  weights.read_columns<float>(mlp + "up_proj.weight", {6, 8}, columns);
  CHECK(columns == std::vector<float>{158, 159, 166, 167, 174, 175});
}

TEST_CASE("matrices of GPT-2, which its folders have as (in, out), are read as (out, in)") {
  const std::string layer = "transformer.h.1.";
  const Folder folder(R"({"model_type":"gpt2","n_embd":4,"n_head":2,"n_inner":3})",
                      {{"transformer.wte.weight", {5, 4}},
                       {layer + "attn.c_attn.weight", {4, 12}},
                       {layer + "attn.c_attn.bias", {12}},
                       {layer + "mlp.c_fc.weight", {4, 3}},
                       {layer + "ln_1.weight", {4}},
                       {layer + "attn.bias", {1, 1, 2, 2}}});
  const auto weights = folder.open();
  CHECK(read(weights, "model.embed_tokens.weight") == counting(0, 20));
  CHECK(read(weights, "model.layers.1.input_layernorm.weight") == counting(92, 4));
  const std::string key = "model.layers.1.self_attn.k_proj";
  // In the file, row i of the input has q (4), k (4), v (4).
  std::vector<float> expected;
  for (int out = 0; out < 4; ++out)
    for (int in = 0; in < 4; ++in) expected.push_back(static_cast<float>(20 + in * 12 + 4 + out));
  CHECK(weights.info(key + ".weight").shape == Shape{4, 4});
  CHECK(read(weights, key + ".weight") == expected);
  CHECK(read(weights, key + ".bias") == counting(72, 4));
  std::vector<float> rows(8), columns(12), none;
  weights.read_rows<float>(key + ".weight", {1, 3}, rows);
  CHECK(rows == std::vector<float>(expected.begin() + 4, expected.begin() + 12));
  weights.read_columns<float>(key + ".weight", {1, 4}, columns);
  for (std::size_t i = 0; i < 12; ++i) CHECK(columns[i] == expected[i / 3 * 4 + 1 + i % 3]);
  weights.read_rows<float>(key + ".weight", {2, 2}, none);
  std::vector<std::byte> bytes(16);
  weights.copy_rows(key + ".weight", {3, 4}, bytes);
  float last = 0;
  std::memcpy(&last, bytes.data() + 12, 4);
  CHECK(last == expected[15]);
  std::vector<bf16> rounded(16);
  weights.read<bf16>(key + ".weight", rounded);
  CHECK(static_cast<float>(rounded[1]) == expected[1]);

  CHECK_THROWS_WITH(weights.bytes(key + ".weight"), ContainsSubstring("another order"));
  CHECK_THROWS_AS(weights.read_rows<float>(key + ".weight", {1, 5}, rows), Error);
  CHECK_THROWS_AS(weights.read_columns<float>(key + ".weight", {0, 3}, rows), Error);
  std::vector<std::int32_t> integers(16);
  CHECK_THROWS_AS(weights.read<std::int32_t>(key + ".weight", integers), Error);
}

TEST_CASE("a Gemma 3 that sees pictures too is read as its model of text") {
  const std::string config = R"({"model_type":"gemma3","eos_token_id":[1,106],"vision_config":{"hidden_size":7},
                                 "text_config":{"model_type":"gemma3_text","hidden_size":8,"num_hidden_layers":2}})";
  for (const std::string root : {"language_model.model.", "model.language_model."}) {
    const Folder folder(config, {{root + "embed_tokens.weight", {5, 8}},
                                 {"vision_tower.weight", {2}},
                                 {root + "layers.1.mlp.up_proj.weight", {3, 8}}});
    const auto weights = folder.open();
    CHECK(weights.names() == std::vector<std::string>{"model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight",
                                                      "vision_tower.weight"});
    CHECK(read(weights, "model.layers.1.mlp.up_proj.weight") == counting(42, 24));
    const auto model = ModelConfig::load(folder.folder.path());
    CHECK(model.architecture == Architecture::gemma3_text);
    CHECK(model.layers == 2);
    CHECK(model.eos_token_ids == std::vector<std::int32_t>{1, 106});
  }
}

TEST_CASE("a tensor whose parts do not add up names the rows that the configuration asks for") {
  const auto refused = [](const std::string& config, const std::string& name,
                          std::vector<std::int64_t> shape) -> std::string {
    const Folder folder(config, {{name, std::move(shape)}});
    try {
      folder.open();
    } catch (const Error& error) {
      CHECK(error.fault() == Fault::bad_file);
      return error.what();
    }
    return "";
  };
  const std::string phi3 = R"({"model_type":"phi3","hidden_size":8,"num_attention_heads":4,"intermediate_size":3})";
  CHECK_THAT(refused(phi3, "model.layers.0.self_attn.qkv_proj.weight", {23, 8}),
             ContainsSubstring("(23, 8)") && ContainsSubstring("24 rows"));
  CHECK_THAT(refused(phi3, "model.layers.0.mlp.gate_up_proj.weight", {2, 3, 8}), ContainsSubstring("6 rows"));
}

TEST_CASE("experts that a GGUF file stacks are found one by one, their blocks as they are") {
  constexpr std::uint64_t experts = 3, inner = 64, hidden = 32;
  const auto gate = random_blocks(WeightType::q8_0, experts * inner * hidden, 1),
             down = random_blocks(WeightType::q8_0, experts * hidden * inner, 2);
  const auto text = [](const std::vector<std::byte>& blocks) {
    return std::string(reinterpret_cast<const char*>(blocks.data()), blocks.size());
  };
  const auto file = [&](std::uint32_t count) {
    GgufBytes bytes;
    bytes.string("general.architecture", "qwen3moe");
    for (const auto& [key, value] : {std::pair("block_count", 1u),
                                     {"context_length", 8u},
                                     {"embedding_length", 32u},
                                     {"feed_forward_length", 64u},
                                     {"attention.head_count", 2u},
                                     {"expert_count", count},
                                     {"expert_used_count", 2u},
                                     {"expert_feed_forward_length", 64u}}) {
      bytes.u32(std::string("qwen3moe.") + key, value);
    }
    bytes.f32("qwen3moe.attention.layer_norm_rms_epsilon", 1e-5f);
    bytes.tensor("token_embd.weight", {32, 5}, 0, std::string(640, '\0'));
    bytes.tensor("blk.0.ffn_gate_exps.weight", {hidden, inner, experts}, 8, text(gate));
    bytes.tensor("blk.0.ffn_down_exps.weight", {inner, hidden, experts}, 8, text(down));
    bytes.tensor("blk.0.ffn_gate_inp.weight", {32, 3}, 0, std::string(384, '\0'));
    return bytes.file();
  };
  const TempFolder folder;
  const auto weights = Weights::open(folder.write("m.gguf", file(3)));
  const std::string root = "model.layers.0.mlp.experts.";
  CHECK(weights.contains("model.layers.0.mlp.gate.weight"));
  CHECK_FALSE(weights.contains(root + "gate_proj.weight"));
  const std::size_t each = gate.size() / experts;
  for (std::size_t e = 0; e < experts; ++e) {
    const auto name = root + std::to_string(e) + ".";
    CHECK(weights.info(name + "gate_proj.weight").shape == Shape{64, 32});
    CHECK(weights.info(name + "down_proj.weight").shape == Shape{32, 64});
    const auto bytes = weights.bytes(name + "gate_proj.weight");
    CHECK(std::vector<std::byte>(bytes.begin(), bytes.end()) ==
          std::vector<std::byte>(gate.begin() + static_cast<std::ptrdiff_t>(e * each),
                                 gate.begin() + static_cast<std::ptrdiff_t>((e + 1) * each)));
    std::vector<std::byte> columns(32 * 34);  // the second of two blocks of each row
    weights.copy_columns(name + "down_proj.weight", {32, 64}, columns);
    for (std::size_t row = 0; row < 32; ++row) {
      CHECK(std::memcmp(columns.data() + row * 34, down.data() + e * each + row * 68 + 34, 34) == 0);
    }
  }
  CHECK_THROWS_WITH(Weights::open(folder.write("m.gguf", file(4))),
                    ContainsSubstring("(3, 32, 64)") && ContainsSubstring("asks for (4, 32, 64)"));
}
