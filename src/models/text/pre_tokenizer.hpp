// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "../json.hpp"

namespace troika::models {

// A stretch of text that no token crosses. `at_start`: it begins where the whole text begins.
struct Piece {
  std::string text;
  bool at_start = false;
};

// Cuts a text into pieces: the "pre_tokenizer" of a tokenizer.json, as a list of steps.
class PreTokenizer {
 public:
  PreTokenizer() = default;
  explicit PreTokenizer(const Fields& component);

  // No piece in the result is empty. Error{bad_file} when a chain of steps lets a text explode.
  std::vector<Piece> operator()(Piece whole) const;

 private:
  using Step = std::function<void(Piece, std::vector<Piece>&)>;
  void add(const Fields& component);
  std::vector<Step> steps_;
};

}  // namespace troika::models
