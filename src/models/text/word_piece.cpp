// SPDX-License-Identifier: Apache-2.0
#include "word_piece.hpp"

#include <algorithm>

#include "unicode.hpp"

namespace troika::models {

WordPiece::WordPiece(const Fields& model)
    : vocabulary_(model, "vocab"),
      prefix_(model.string("continuing_subword_prefix", "##")),
      max_characters_(static_cast<std::size_t>(model.integer("max_input_chars_per_word", 1, 1 << 20, 100))) {
  const auto name = model.string("unk_token", "[UNK]");
  const auto id = vocabulary_.find(name);
  if (!id) model.fail("unk_token", "is " + in_quotes(name) + ", which the vocabulary lacks");
  unknown_ = *id;
}

void WordPiece::encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
  if (unicode::count(piece) > max_characters_) {
    ids.push_back(unknown_);
    return;
  }
  const auto first = ids.size();
  std::string candidate;
  for (std::size_t at = 0; at < piece.size();) {
    candidate.assign(at == 0 ? "" : prefix_);
    const auto spelled = candidate.size();
    candidate += piece.substr(at, vocabulary_.longest());
    std::size_t taken = 0;
    while (candidate.size() > spelled) {
      if (const auto id = vocabulary_.find(candidate)) {
        ids.push_back(*id);
        taken = candidate.size() - spelled;
        break;
      }
      candidate.pop_back();  // never half a character: no token is one
    }
    if (taken == 0) {
      ids.resize(first);
      ids.push_back(unknown_);
      return;
    }
    at += taken;
  }
}

}  // namespace troika::models
