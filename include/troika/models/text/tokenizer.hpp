// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troika::models {

class GgufMetadata;
struct TokenizerParts;

// The tokens by which a model is asked for what stands between two texts.
struct GapTokens {
  std::int32_t prefix = 0, suffix = 0, middle = 0;  // before the first text, before the second, before the answer
  std::vector<std::int32_t> ends{};                 // with which answers may end, besides what ends other texts
};

// Text to token ids and back, as the `tokenizer.json` of a Hugging Face folder or the metadata of a GGUF file say:
// byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM, Tekken), SentencePiece-style BPE with byte fallback (Llama 2, Mistral)
// and WordPiece (BERT). Padding and truncation sections are not applied: how long a text may be is the model's
// business.
//
// Moves only. Const members may be called from any number of threads at once.
class Tokenizer {
 public:
  // Reads tokenizer.json in the folder, or the GGUF file. Error{bad_file} names file, field and what is wrong;
  // Error{unsupported} the kind of component that is not built, and those that are.
  static Tokenizer load(const std::filesystem::path& path);
  static Tokenizer from_gguf(const GgufMetadata& metadata);
  // The text of a tokenizer.json; `origin` stands for the file in messages.
  static Tokenizer parse(std::string_view json, const std::string& origin = "tokenizer.json");

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // `add_special` adds what the file puts around a text (BOS; [CLS] and [SEP]). Special tokens that are spelled out in
  // the text become their ids in either case. Text that is not UTF-8 is Error{invalid_argument} naming the byte.
  std::vector<std::int32_t> encode(std::string_view text, bool add_special = true) const;

  // None where the vocabulary has no such tokens.
  const std::optional<GapTokens>& gap_tokens() const;
  // Two texts with a gap between them, as a model reads them that fills it. Error{unsupported} without gap_tokens().
  std::vector<std::int32_t> encode_gap(std::string_view before, std::string_view after) const;

  // The text is always UTF-8: bytes that form no character become U+FFFD. An id that is not in the vocabulary is
  // Error{invalid_argument}.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = true) const;

  // Highest id plus one. A model may have more rows than that in its embedding, never fewer.
  std::int32_t vocab_size() const;
  std::optional<std::int32_t> id_of(std::string_view token) const;
  const std::string& token_of(std::int32_t id) const;  // as the vocabulary spells it; empty for an id with no token
  bool is_special(std::int32_t id) const;
  // What the token adds to a text that goes on: bytes, not always whole characters. Empty for a special token.
  std::string bytes_of(std::int32_t id) const;

 private:
  explicit Tokenizer(std::unique_ptr<const TokenizerParts> parts);
  std::unique_ptr<const TokenizerParts> parts_;
};

}  // namespace troika::models
