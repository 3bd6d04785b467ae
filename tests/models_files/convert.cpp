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

}  // namespace

TEST_CASE("a converted model has the numbers, the sizes and the tokens of its folder") {
  for (const std::string type : {"llama", "mistral", "qwen2", "qwen3"}) {
    INFO(type);
    const TempFolder folder;
    const auto tiny = TinyModel::make(type, 3);
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
      CHECK(
          std::equal(read.begin(), read.end(), values.data.begin(), [](float a, double b) { return double{a} == b; }));
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
    CHECK(after.attention_window(0) == before.attention_window(0));
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

TEST_CASE("what cannot be converted is one error, and no file is left") {
  const auto tiny = TinyModel::make("llama");
  {
    const TempFolder folder;
    write_folder(folder, TinyModel::make("bert"));
    CHECK_THAT(refusal(folder), ContainsSubstring("bert is not converted; converted are llama, mistral, qwen2, qwen3"));
  }
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
