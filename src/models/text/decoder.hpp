// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "../json.hpp"

namespace troika::models {

// Tokens back to text: the "decoder" of a tokenizer.json, as a list of steps over the tokens.
class Decoder {
 public:
  Decoder() = default;  // tokens with spaces between them
  explicit Decoder(const Fields& component);

  std::string operator()(std::vector<std::string> tokens) const;
  // What a token adds to a text that goes on behind it.
  std::string bytes_of(const std::string& token) const;

 private:
  using Tokens = std::vector<std::string>;
  void add(const Fields& component);
  std::vector<std::function<void(Tokens&)>> steps_;
  bool byte_level_ = false, byte_fallback_ = false;
};

}  // namespace troika::models
