// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "normalizer.hpp"
#include "vocabulary.hpp"

namespace troika::models {

// Tokens that are cut out of a text before the model sees it: <|end|>, [MASK], and whatever a user added.
class AddedTokens {
 public:
  AddedTokens() = default;
  // The "added_tokens" of a tokenizer.json; puts each into the vocabulary.
  AddedTokens(const Json& list, const std::string& where, const Normalizer& normalizer, Vocabulary& vocabulary);

  struct Flags {
    bool special = false, normalized = false, single_word = false, left_strip = false, right_strip = false;
  };
  // `where` names the file in messages.
  void add(const std::string& content, std::int32_t id, const Flags& flags, const Normalizer& normalizer,
           Vocabulary& vocabulary, const std::string& where);

  // A part of a text: an added token's id, or -1 and text between such tokens.
  struct Part {
    std::string_view text;
    std::int32_t id;
  };
  // Cuts out the tokens that are looked for in the text as it was written, or after normalization.
  std::vector<Part> split_raw(std::string_view text) const { return split(text, raw_); }
  std::vector<Part> split_normalized(std::string_view text) const { return split(text, normalized_); }

  // How a token reads in decoded text where that is not as the vocabulary spells it: a token that is looked for after
  // normalization reads as what was looked for. Null for all others.
  const std::string* spelling(std::int32_t id) const {
    const auto at = spellings_.find(id);
    return at == spellings_.end() ? nullptr : &at->second;
  }

  bool is_special(std::int32_t id) const {
    return static_cast<std::size_t>(id) < special_.size() && special_[static_cast<std::size_t>(id)];
  }

 private:
  struct Token {
    std::int32_t id = -1;
    bool single_word = false, left_strip = false, right_strip = false;
  };
  // A tree over bytes that finds the longest token at a position.
  struct Tree {
    struct Node {
      std::vector<std::pair<unsigned char, std::int32_t>> children;  // sorted by byte
      std::int32_t token = -1;
    };
    std::vector<Node> nodes{1};
    std::vector<Token> tokens;

    void add(std::string_view text, const Token& token);
    const Token* longest(std::string_view text, std::size_t& length) const;
  };
  static std::vector<Part> split(std::string_view text, const Tree& tree);

  Tree raw_, normalized_;
  std::vector<bool> special_;
  std::unordered_map<std::int32_t, std::string> spellings_;
};

}  // namespace troika::models
