// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <support/catch.hpp>
#include <support/temp_folder.hpp>
#include <support/tiny_model.hpp>

#include <troika/models/files/config.hpp>
#include <troika/models/files/convert.hpp>
#include <troika/models/files/gguf.hpp>
#include <troika/models/files/weights.hpp>
#include <troika/models/text/tokenizer.hpp>

// Bytes, types and keys are compared with the package `gguf`, and models with transformers, in
// tests/oracles/convert_oracle.py.
using namespace troika::models;
using Catch::Matchers::ContainsSubstring;
using troika::test::TempFolder;

namespace {

constexpr const char* small_tokenizer =
    R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3}, "merges": ["a b"]},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "decoder": {"type": "ByteLevel"},
        "added_tokens": [{"id": 4, "content": "<|end|>", "special": true}, {"id": 5, "content": "<tool>", "special": false}]})";

void write_folder(const TempFolder& folder, const TinyModel& model, const std::string& tokenizer = small_tokenizer) {
  model.write(folder.path());
  folder.write("tokenizer.json", tokenizer);
}

// With nothing that GGUF files have no key for.
TinyModel sayable(const std::string& type, std::uint32_t seed = 1) {
  auto model = TinyModel::make(type, seed);
  model.query_scalar = static_cast<double>(model.head_dim);
  return model;
}

std::string refusal(const TempFolder& folder, const ConvertOptions& options = {.type = "F32"}) {
  const auto out = folder.path() / "out.gguf";
  try {
    (void)convert_to_gguf(folder.path(), out, options);
  } catch (const troika::Error& error) {
    // Nothing is left behind.
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
      if (entry.path().filename().string().starts_with("out.gguf")) return "left " + entry.path().string();
    }
    return error.what();
  }
  return "no error";
}

// That of a model whose config.json has these fields instead.
std::string refusal(const TinyModel& model, const std::string& fields) {
  const TempFolder folder;
  write_folder(folder, model);
  auto config = model.config();
  for (const std::string key : {"hidden_act", "hidden_activation", "query_pre_attn_scalar", "attn_logit_softcapping",
                                "tie_word_embeddings", "sliding_window"}) {
    const auto at = config.find(",\"" + key + "\":");
    if (at == std::string::npos || fields.find("\"" + key + "\"") == std::string::npos) continue;
    config.erase(at, config.find_first_of(",}", at + 1) - at);
  }
  config.erase(config.rfind('}'));
  folder.write("config.json", config + "," + fields + "}");
  return refusal(folder);
}

}  // namespace

TEST_CASE("a converted model has the numbers, the sizes and the tokens of its folder") {
  for (const std::string type : {"llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "bert"}) {
    INFO(type);
    const TempFolder folder;
    const auto tiny = sayable(type, 3);
    write_folder(folder, tiny);
    const auto out = folder.path() / "model.gguf";
    std::uint64_t done = 0, all = 0;
    const auto result =
        convert_to_gguf(folder.path(), out, {.type = "F32"}, [&](std::uint64_t some, std::uint64_t total) {
          done += some;
          all = total;
        });
    CHECK(result.notes.empty());
    CHECK(result.bytes == std::filesystem::file_size(out));
    CHECK(done == all);

    const auto weights = Weights::open(out);
    for (const auto& [name, values] : tiny.tensors) {
      INFO(name);
      REQUIRE(weights.expect(name, values.shape).type == troika::WeightType::f32);
      std::vector<float> read(values.data.size());
      weights.read<float>(name, read);
      // Norms of Gemma are written as what they multiply by.
      const float more = tiny.gemma && name.ends_with("norm.weight") ? 1 : 0;
      CHECK(std::equal(read.begin(), read.end(), values.data.begin(),
                       [&](float a, double b) { return a == static_cast<float>(b) + more; }));
    }
    const auto before = ModelConfig::load(folder.path()), after = ModelConfig::load(out);
    CHECK(after.architecture == before.architecture);
    CHECK(after.layers == before.layers);
    CHECK(after.heads == before.heads);
    CHECK(after.kv_heads == before.kv_heads);
    CHECK(after.head_dim == before.head_dim);
    CHECK(after.vocab_size == before.vocab_size);
    CHECK(after.max_position_embeddings == before.max_position_embeddings);
    CHECK(after.norm_eps == before.norm_eps);
    CHECK(after.tie_word_embeddings == before.tie_word_embeddings);
    for (std::int64_t layer = 0; layer < before.layers; ++layer)
      CHECK(after.attention_window(layer) == before.attention_window(layer));
    CHECK(after.attention_scale == before.attention_scale);
    CHECK(after.attention_cap == before.attention_cap);
    CHECK(after.logit_cap == before.logit_cap);
    CHECK(after.type_vocab_size == before.type_vocab_size);
    CHECK(after.experts.has_value() == before.experts.has_value());
    if (before.experts) CHECK(after.experts->used == before.experts->used);
    CHECK(after.eos_token_ids == before.eos_token_ids);
    CHECK(after.bos_token_id == before.bos_token_id);

    const auto tokenizer = Tokenizer::load(out);
    CHECK(tokenizer.encode("abc<|end|>ba<tool>") == std::vector<std::int32_t>{3, 2, 4, 1, 0, 5});
    CHECK(tokenizer.is_special(4));
    CHECK_FALSE(tokenizer.is_special(5));
  }
}

TEST_CASE("matrices whose rows do not fit a type get one that fits, and it is said") {
  const TempFolder folder;
  write_folder(folder, TinyModel::make("llama"));  // rows of 48 and 80: no blocks of 32
  const auto result = convert_to_gguf(folder.path(), folder.path() / "model.gguf", {.type = "Q4_K"});
  CHECK_THAT(result.notes.at(0), ContainsSubstring("are F16: rows of 48 are not whole blocks of 256, which Q4_K has"));
  const auto weights = Weights::open(folder.path() / "model.gguf");
  CHECK(weights.info("model.embed_tokens.weight").type == troika::WeightType::f16);
  CHECK(weights.info("model.norm.weight").type == troika::WeightType::f32);
}

TEST_CASE("what GGUF files have no key for is refused by name, with what is converted") {
  const struct {
    std::string type, fields, what, valid;
  } cases[] = {
      {"llama", R"("hidden_act": "gelu")", "the activation gelu is not converted", "converted is silu"},
      {"bert", R"("hidden_act": "gelu_new")", "the activation gelu_tanh is not converted", "converted is gelu"},
      {"gemma2", R"("query_pre_attn_scalar": 24)", "a scale of the scores (query_pre_attn_scalar", "1 / sqrt(8)"},
      {"gemma2", R"("attn_logit_softcapping": null)", "without attn_logit_softcapping", "above 0"},
      {"gemma2", R"("tie_word_embeddings": false)", "tie_word_embeddings false", "true"},
      {"gemma2", R"("layer_types": ["full_attention", "sliding_attention"])", "layer_types", "every so manyth"},
      {"qwen2", R"("use_sliding_window": true, "sliding_window": 5, "max_window_layers": 1)", "some layers only",
       "none"},
      {"qwen3_moe", R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                       "high_freq_factor": 4.0, "original_max_position_embeddings": 32})",
       "type llama3", "default or linear"},
      {"llama",
       R"("rope_scaling": {"rope_type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1, 1]})",
       "type longrope", "longrope of phi3"},
  };
  for (const auto& c : cases) {
    INFO(c.type << ": " << c.fields);
    auto model = sayable(c.type);
    model.llama3 = false;
    const auto said = refusal(model, c.fields);
    CHECK_THAT(said, ContainsSubstring(c.what));
    CHECK_THAT(said, ContainsSubstring(c.valid));
  }
}

TEST_CASE("experts of which one is missing are one error") {
  auto tiny = TinyModel::make("qwen3_moe");
  tiny.tensors.erase("model.layers.1.mlp.experts.2.up_proj.weight");
  const TempFolder folder;
  write_folder(folder, tiny);
  CHECK_THAT(refusal(folder), ContainsSubstring("'model.layers.1.mlp.experts.up_proj.weight'"));
  CHECK_THAT(refusal(folder), ContainsSubstring("made of 5 tensors, of which 4 are there"));
}

TEST_CASE("routers and tables of positions stay f32, and experts lie in one tensor") {
  for (const std::string type : {"qwen3_moe", "bert"}) {
    const TempFolder folder;
    write_folder(folder, sayable(type));
    (void)convert_to_gguf(folder.path(), folder.path() / "model.gguf", {.type = "F16"});
    const auto file = GgufFile::open(folder.path() / "model.gguf");
    for (const std::string name : {"position_embd.weight", "token_types.weight", "blk.0.ffn_gate_inp.weight"}) {
      const auto* tensor = file.find(name);
      if (tensor != nullptr) CHECK(tensor->type == troika::WeightType::f32);
    }
    CHECK((file.find("blk.0.ffn_gate_inp.weight") != nullptr) == (type == "qwen3_moe"));
    if (type == "qwen3_moe") {
      const auto* experts = file.find("blk.1.ffn_down_exps.weight");
      REQUIRE(experts != nullptr);
      CHECK(experts->shape == troika::Shape{5, 48, 80});
      CHECK(experts->type == troika::WeightType::f16);
    }
  }
}

TEST_CASE("what an encoder's folder says besides is a note") {
  const TempFolder folder;
  write_folder(folder, TinyModel::make("bert"));
  folder.write("modules.json", R"([{"type": "sentence_transformers.models.Normalize"}])");
  folder.write("sentence_bert_config.json", R"({"max_seq_length": 16})");
  const auto notes = convert_to_gguf(folder.path(), folder.path() / "model.gguf", {.type = "F32"}).notes;
  REQUIRE(notes.size() == 2);
  CHECK_THAT(notes[0], ContainsSubstring("have the length 1"));
  CHECK_THAT(notes[1], ContainsSubstring("cut after 16 tokens"));
}

TEST_CASE("a WordPiece that GGUF files cannot say is one error") {
  const std::string vocab = R"("vocab": {"[UNK]": 0, "a": 1, "##b": 2})";
  const std::string ends = R"("normalizer": {"type": "BertNormalizer"}, "pre_tokenizer": {"type": "BertPreTokenizer"})";
  const auto said = [&](const std::string& model, const std::string& rest) {
    const TempFolder folder;
    write_folder(folder, TinyModel::make("bert"),
                 R"({"model": {"type": "WordPiece", "unk_token": "[UNK]", )" + model + "}, " + rest + "}");
    return refusal(folder);
  };
  CHECK(said(vocab, ends) == "no error");
  CHECK_THAT(said(vocab + R"(, "max_input_chars_per_word": 12)", ends), ContainsSubstring("than 100"));
  CHECK_THAT(said(vocab + R"(, "continuing_subword_prefix": "@@")", ends), ContainsSubstring("than ##"));
  CHECK_THAT(said(R"("vocab": {"[UNK]": 0, "##": 1})", ends), ContainsSubstring("the token '##' has no spelling"));
  CHECK_THAT(said(vocab, R"("normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "BertPreTokenizer"})"),
             ContainsSubstring("converted is BertNormalizer"));
  CHECK_THAT(said(vocab, R"("normalizer": {"type": "BertNormalizer"}, "pre_tokenizer": {"type": "Whitespace"})"),
             ContainsSubstring("with BertPreTokenizer"));
}

TEST_CASE("what cannot be converted is one error, and no file is left") {
  const auto tiny = TinyModel::make("llama");
  {
    const TempFolder folder;
    write_folder(folder, tiny);
    CHECK_THAT(refusal(folder, {.type = "Q3_K"}), ContainsSubstring("valid are F32, F16"));
    std::filesystem::remove(folder.path() / "tokenizer.json");
    CHECK_THAT(refusal(folder), ContainsSubstring("no tokenizer.json"));
    for (const char* text :
         {"{}", "[]", "{\"model\": 3}", "{\"model\": {\"type\": \"Unigram\"}}",
          "{\"model\": {\"type\": \"WordPiece\", \"vocab\": {\"[UNK]\": 0}, \"unk_token\": \"[UNK]\"}}",
          "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 101}, \"merges\": []}}",
          "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}}",
          "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}, \"pre_tokenizer\": {\"type\": "
          "\"Whitespace\"}}"}) {
      folder.write("tokenizer.json", text);
      INFO(text);
      CHECK_THAT(refusal(folder), ContainsSubstring("tokenizer.json"));
    }
  }
  {
    const TempFolder folder;
    write_folder(folder, tiny);
    folder.write("generation_config.json", R"({"eos_token_id": [2, 100000]})");
    CHECK_THAT(refusal(folder), ContainsSubstring("100000"));
  }
  {
    const TempFolder folder;
    auto broken = tiny;
    broken.tensors.at("model.layers.1.mlp.up_proj.weight").data[5] = NAN;
    broken.hidden = 48;
    write_folder(folder, broken);
    CHECK(refusal(folder) == "no error");  // f32 keeps what is there
  }
}
