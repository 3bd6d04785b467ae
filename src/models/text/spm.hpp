// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "vocabulary.hpp"

namespace troika::models {

inline constexpr std::string_view space_mark = "\xe2\x96\x81";  // U+2581 stands for a space in SentencePiece's tokens

// What a token of a GGUF vocabulary is. The numbers are those of the file.
enum class TokenKind : std::uint8_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

// BPE as SentencePiece does it: of the neighbouring pieces that together are a token, the two whose token has the
// highest score are merged, the leftmost of equals, until none is left. Characters that no token has become bytes.
class Spm {
 public:
  // One score and one kind for each id of the vocabulary. Without all 256 byte tokens, runs of characters without a
  // token become `unknown` (or vanish). Error{bad_file} for byte tokens that are not <0x00> to <0xFF>.
  Spm(Vocabulary vocabulary, std::vector<float> scores, std::vector<TokenKind> kinds,
      std::optional<std::int32_t> unknown, const std::string& where);

  const Vocabulary& vocabulary() const { return vocabulary_; }
  // Appends the ids of one piece. O(n log n) in its length.
  void encode(std::string_view piece, std::vector<std::int32_t>& ids) const;

 private:
  // The token that this text is, if it is one that texts are made of: control tokens and bytes are not.
  std::optional<std::int32_t> find(std::string_view text) const;
  TokenKind kind(std::int32_t id) const { return kinds_[static_cast<std::size_t>(id)]; }
  // Where a token that must not be used was put together, so that it can be taken apart again: {id, bytes of its left
  // part}.
  using Seams = std::unordered_map<std::int32_t, std::size_t>;
  void emit(std::string_view text, const Seams& seams, bool& after_unknown, std::vector<std::int32_t>& ids) const;

  Vocabulary vocabulary_;
  std::vector<float> scores_;
  std::vector<TokenKind> kinds_;
  std::optional<std::int32_t> unknown_;
  std::optional<std::array<std::int32_t, 256>> bytes_;
};

}  // namespace troika::models
