// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include <troika/models/text/tokenizer.hpp>

#include "added_tokens.hpp"
#include "bpe.hpp"
#include "decoder.hpp"
#include "gap_tokens.hpp"
#include "normalizer.hpp"
#include "pre_tokenizer.hpp"
#include "spm.hpp"
#include "word_piece.hpp"

namespace troika::models {

using TokenModel = std::variant<Bpe, Spm, WordPiece>;

// What a text goes through, in this order. Made from a tokenizer.json or from the metadata of a GGUF file.
struct TokenizerParts {
  Normalizer normalizer{};
  PreTokenizer pre_tokenizer{};
  TokenModel model;
  Vocabulary vocabulary;  // of the model, and the added tokens
  AddedTokens added{};
  std::vector<std::int32_t> before{}, after{};  // the ids that go around a text
  Decoder decoder{};
  std::optional<GapTokens> gap{};

  explicit TokenizerParts(TokenModel made)
      : model(std::move(made)), vocabulary(std::visit([](const auto& m) { return m.vocabulary(); }, model)) {}
  // Of a tokenizer.json.
  explicit TokenizerParts(const Fields& file);

  void check(std::int32_t id) const {
    expects(id >= 0 && id < vocabulary.size(), [&] {
      return "token id " + std::to_string(id) + " is not in the vocabulary; valid ids are 0 to " +
             std::to_string(vocabulary.size() - 1);
    });
  }
};

}  // namespace troika::models
