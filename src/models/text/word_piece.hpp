// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vocabulary.hpp"

namespace troika::models {

// BERT's model: from left to right, the longest token of the vocabulary; a word that cannot be covered is unknown as a
// whole.
class WordPiece {
 public:
  explicit WordPiece(const Fields& model);
  // Pieces that continue a word begin with "##"; words of more than 100 characters are unknown.
  WordPiece(Vocabulary vocabulary, std::int32_t unknown)
      : vocabulary_(std::move(vocabulary)), prefix_("##"), unknown_(unknown) {}

  const Vocabulary& vocabulary() const { return vocabulary_; }
  void encode(std::string_view piece, std::vector<std::int32_t>& ids) const;

 private:
  Vocabulary vocabulary_;
  std::string prefix_;
  std::size_t max_characters_ = 100;
  std::int32_t unknown_;
};

}  // namespace troika::models
