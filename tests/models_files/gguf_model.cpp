// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <models_files/gguf_bytes.hpp>
#include <support/catch.hpp>
#include <support/temp_folder.hpp>

#include <troika/core/error.hpp>
#include <troika/device/rotary_table.hpp>
#include <troika/models/files/config.hpp>
#include <troika/models/files/weights.hpp>

using namespace troika;
using namespace troika::models;
using namespace troika::test;
using Catch::Matchers::ContainsSubstring;

namespace {

std::string counted_floats(std::size_t count) {  // 0, 1, 2, ...
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) bytes += le(static_cast<float>(i));
  return bytes;
}

// A Llama of one layer: 2 heads of 4, 1 KV head, hidden 8, vocabulary 5.
struct Llama {
  std::uint32_t heads = 2, kv_heads = 1, embedding = 8, layers = 1, context = 16, feed_forward = 6;
  std::string architecture = "llama";

  GgufBytes bytes() const {
    GgufBytes bytes;
    const auto key = [&](const std::string& name) { return architecture + "." + name; };
    bytes.string("general.architecture", architecture)
        .u32(key("block_count"), layers)
        .u32(key("context_length"), context);
    bytes.u32(key("embedding_length"), embedding).u32(key("feed_forward_length"), feed_forward);
    bytes.u32(key("attention.head_count"), heads).u32(key("attention.head_count_kv"), kv_heads);
    bytes.f32(key("attention.layer_norm_rms_epsilon"), 1e-5f).f32(key("rope.freq_base"), 5000);
    bytes.u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .u32("tokenizer.ggml.eot_token_id", 3);
    bytes.tensor("token_embd.weight", {8, 5}, 0, counted_floats(40));
    bytes.tensor("blk.0.attn_q.weight", {8, 8}, 0, counted_floats(64))
        .tensor("blk.0.attn_q.bias", {8}, 0, counted_floats(8));
    bytes.tensor("blk.0.attn_k.weight", {8, 4}, 0, counted_floats(32))
        .tensor("blk.0.attn_v.weight", {8, 4}, 0, counted_floats(32));
    return bytes;
  }
};

std::string refused(const TempFolder& folder, const GgufBytes& bytes, Fault& fault) {
  const auto path = folder.write("m.gguf", bytes.file());
  try {
    ModelConfig::load(path);
    Weights::open(path);
    return {};
  } catch (const Error& error) {
    fault = error.fault();
    return error.what();
  }
}

}  // namespace

TEST_CASE("The metadata of a GGUF file become a configuration") {
  const TempFolder folder;
  const auto config = ModelConfig::load(folder.write("m.gguf", Llama().bytes().file()));
  CHECK(config.architecture == Architecture::llama);
  CHECK(config.vocab_size == 5);
  CHECK(config.hidden_size == 8);
  CHECK(config.intermediate_size == 6);
  CHECK(config.layers == 1);
  CHECK(config.heads == 2);
  CHECK(config.kv_heads == 1);
  CHECK(config.head_dim == 4);
  CHECK(config.max_position_embeddings == 16);
  CHECK(config.norm_eps == 1e-5f);
  CHECK(config.rope_theta == 5000);
  CHECK(config.qkv_bias);
  CHECK_FALSE(config.output_bias);
  CHECK(config.tie_word_embeddings);
  CHECK(config.rope_divisors.empty());
  CHECK(config.bos_token_id == 1);
  CHECK(config.eos_token_ids == std::vector<std::int32_t>{2, 3});

  auto sliding = Llama().bytes();
  sliding.u32("llama.attention.sliding_window", 7).tensor("output.weight", {8, 5}, 0, counted_floats(40));
  const auto mistral = ModelConfig::load(folder.write("m.gguf", sliding.file()));
  CHECK(mistral.attention_window(0) == 7);
  CHECK_FALSE(mistral.tie_word_embeddings);
}

TEST_CASE("Weights of a GGUF file have the names of Hugging Face, and their order of rows") {
  const TempFolder folder;
  const auto weights = Weights::open(folder.write("m.gguf", Llama().bytes().file()));
  CHECK(weights.names() ==
        std::vector<std::string>{"model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight",
                                 "model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.q_proj.weight",
                                 "model.layers.0.self_attn.v_proj.weight"});
  // In the file, the rows of a head of 4 are those of Hugging Face in the order 0, 2, 1, 3.
  const std::string query = "model.layers.0.self_attn.q_proj.weight";
  std::vector<float> values(24), columns(16), bias(8);
  weights.read_rows<float>(query, {3, 6}, values);
  CHECK(values[0] == 3 * 8);
  CHECK(values[8] == 4 * 8);
  CHECK(values[16] == 6 * 8);
  weights.copy_columns(query, {7, 8}, std::as_writable_bytes(std::span(columns).first(8)));
  CHECK(std::vector<float>(columns.begin(), columns.begin() + 8) == std::vector<float>{7, 23, 15, 31, 39, 55, 47, 63});
  weights.read<float>("model.layers.0.self_attn.q_proj.bias", bias);
  CHECK(bias == std::vector<float>{0, 2, 1, 3, 4, 6, 5, 7});
  weights.read_rows<float>("model.layers.0.self_attn.q_proj.bias", {5, 7}, std::span(bias).first(2));
  CHECK(bias[0] == 6);
  weights.read_rows<float>("model.layers.0.self_attn.v_proj.weight", {1, 2}, std::span(bias));
  CHECK(bias[0] == 8);
  CHECK_THROWS_WITH(weights.bytes(query), ContainsSubstring("another order"));
  CHECK(weights.bytes("model.embed_tokens.weight").size() == 160);
  CHECK_THROWS_WITH(weights.expect(query, {8, 9}), ContainsSubstring("m.gguf") && ContainsSubstring("asks for (8, 9)"));

  // Other architectures do not interleave.
  Llama qwen;
  qwen.architecture = "qwen2";
  const auto plain = Weights::open(folder.write("m.gguf", qwen.bytes().file()));
  plain.read_rows<float>(query, {1, 2}, std::span(bias));
  CHECK(bias[0] == 8);
}

TEST_CASE("Large interleaved rows are read in any part") {
  // Rows of 64 KiB: pages are given back in the middle of a head.
  const TempFolder folder;
  constexpr std::uint64_t width = 16384, rows = 128, head = 64;
  Llama model;
  model.embedding = width;
  model.heads = 2;
  model.kv_heads = 2;
  std::string data;
  for (std::uint64_t row = 0; row < rows; ++row) {
    for (std::uint64_t i = 0; i < width; ++i) data += le(static_cast<float>(row));
  }
  GgufBytes bytes = model.bytes();
  bytes.tensors.clear();
  bytes.body.clear();
  bytes.u32("llama.attention.key_length", head).u32("llama.attention.value_length", head);
  bytes.tensor("token_embd.weight", {width, 1}, 0, std::string(width * 4, '\0'))
      .tensor("blk.0.attn_q.weight", {width, rows}, 0, data);
  const auto weights = Weights::open(folder.write("m.gguf", bytes.file()));
  std::vector<float> values(width * rows);
  weights.read<float>("model.layers.0.self_attn.q_proj.weight", values);
  bool right = true;
  for (std::uint64_t row = 0; row < rows; ++row) {
    const auto in_head = row % head;
    const auto expected = row - in_head + (in_head < head / 2 ? 2 * in_head : 2 * (in_head - head / 2) + 1);
    right &= values[row * width] == static_cast<float>(expected) &&
             values[row * width + width - 1] == static_cast<float>(expected);
  }
  CHECK(right);
}

TEST_CASE("rope_freqs.weight divides the rotary frequencies") {
  const TempFolder folder;
  auto bytes = Llama().bytes();
  bytes.tensor("rope_freqs.weight", {2}, 0, le(1.0f) + le(4.0f));
  const auto config = ModelConfig::load(folder.write("m.gguf", bytes.file()));
  REQUIRE(config.rope_divisors == std::vector<float>{1, 4});
  const RotaryTable table(9, 4, {100, {}, config.rope_divisors});
  CHECK(table.cos(3)[0] == Catch::Approx(std::cos(3.0)));
  CHECK(table.sin(8)[1] == Catch::Approx(std::sin(8.0 / 10 / 4)));
  CHECK_THROWS_WITH(RotaryTable(9, 8, {100, {}, config.rope_divisors}), ContainsSubstring("takes 4 divisors, not 2"));
}

TEST_CASE("A GGUF file that is no model troika knows is refused by name") {
  const TempFolder folder;
  struct Case {
    const char* what;
    GgufBytes bytes;
    const char* message;
    Fault fault = Fault::bad_file;
  };
  const auto with = [](auto change) {
    Llama model;
    change(model);
    return model.bytes();
  };
  const auto plus = [](auto change) {
    auto bytes = Llama().bytes();
    change(bytes);
    return bytes;
  };
  const std::vector<Case> cases{
      {"no metadata", GgufBytes(), "no key 'general.architecture'"},
      {"another architecture", with([](Llama& m) { m.architecture = "mamba"; }),
       "'mamba' is not supported; supported are llama (Mistral too), qwen2", Fault::unsupported},
      {"no layers", with([](Llama& m) { m.layers = 0; }), "'llama.block_count' at byte"},
      {"no heads", with([](Llama& m) { m.heads = 0; }), "'llama.attention.head_count' at byte"},
      {"no hidden size", with([](Llama& m) { m.embedding = 0; }), "'llama.embedding_length' at byte"},
      {"no context", with([](Llama& m) { m.context = 0; }), "'llama.context_length' at byte"},
      {"no feed forward", with([](Llama& m) { m.feed_forward = 0; }), "'llama.feed_forward_length' at byte"},
      {"KV heads that do not divide", with([](Llama& m) { m.kv_heads = 3; }), "num_key_value_heads is 3"},
      {"too many layers", with([](Llama& m) { m.layers = ~0u; }), "num_hidden_layers is 4294967295"},
      {"heads of another width", with([](Llama& m) { m.heads = 4; }),
       "tensor 'blk.0.attn_k.weight' of type F32 has shape (4, 8); its rows must be 1 heads of 2"},
      {"heads that differ by layer", plus([](GgufBytes& b) {
         b.entries[5] =
             gguf_string("llama.attention.head_count") + le_u32(9) + le_u32(4) + le_u64(2) + le_u32(2) + le_u32(4);
       }),
       "differs by layer", Fault::unsupported},
      {"values of another width", plus([](GgufBytes& b) { b.u32("llama.attention.value_length", 5); }),
       "'llama.attention.value_length' is '5'", Fault::unsupported},
      {"half a head rotated", plus([](GgufBytes& b) { b.u32("llama.rope.dimension_count", 2); }),
       "'llama.rope.dimension_count' is '2'", Fault::unsupported},
      {"YaRN", plus([](GgufBytes& b) { b.string("llama.rope.scaling.type", "yarn"); }), "is 'yarn'; supported are none",
       Fault::unsupported},
      {"experts", plus([](GgufBytes& b) { b.u32("llama.expert_count", 8); }), "'llama.expert_count' is '8'",
       Fault::unsupported},
      {"NaN",
       plus([](GgufBytes& b) { b.entries[8] = gguf_string("llama.rope.freq_base") + le_u32(6) + le_u32(0x7fc00000); }),
       "'llama.rope.freq_base' at byte"},
      {"too few divisors", plus([](GgufBytes& b) { b.tensor("rope_freqs.weight", {1}, 0, le(1.0f)); }),
       "'rope_freqs.weight' has shape (1); heads of 4 ask for (2)"},
      {"a divisor of 0", plus([](GgufBytes& b) { b.tensor("rope_freqs.weight", {2}, 0, std::string(8, '\0')); }),
       "valid are numbers above 0"},
  };
  for (const auto& c : cases) {
    INFO(c.what);
    Fault fault{};
    const auto message = refused(folder, c.bytes, fault);
    CHECK_THAT(message, ContainsSubstring(c.message));
    CHECK_THAT(message, ContainsSubstring("m.gguf"));
    CHECK(fault == c.fault);
  }
  CHECK_THROWS_WITH(Weights::open(folder.path() / "absent.gguf"), ContainsSubstring("absent.gguf"));
  CHECK_THROWS_WITH(ModelConfig::load(folder.write("config.json", "{}")), ContainsSubstring("begins with 'GGUF'"));
}
