// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "../json.hpp"

namespace troika::models {

// A text may not grow beyond this: a chain of replacements in a hostile file doubles it with each one. Of what files
// need, NFKD takes most: U+FDFA becomes eleven times as long.
inline constexpr std::size_t max_growth = 16;
inline constexpr std::size_t longest_result(std::size_t bytes) { return bytes * max_growth + (std::size_t{1} << 12); }

// What happens to a text before it is split: the "normalizer" of a tokenizer.json, as a list of steps.
class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(const Fields& component);

  std::string operator()(std::string text) const;

 private:
  void add(const Fields& component);
  std::vector<std::function<std::string(std::string)>> steps_;
};

// The pattern of a Replace or Split, {"String": "..."} or {"Regex": "..."}, as (begin, end) of its matches in a text.
class Pattern {
 public:
  Pattern() = default;
  explicit Pattern(const Fields& owner, const char* key = "pattern");
  std::vector<struct Match> find_all(std::string_view text) const;
  // The text with each match replaced. Error{bad_file} when a chain of these lets a text explode.
  std::string replace_all(const std::string& text, std::string_view content) const;

 private:
  std::string literal_, where_;
  std::shared_ptr<const class Regex> regex_;
};

// The characters by which byte-level tokenizers spell the 256 bytes: printable ones stand for themselves.
const std::string& character_of_byte(unsigned char byte);
// -1 for a character that stands for no byte.
int byte_of_character(std::uint32_t c);
std::string to_byte_characters(std::string_view bytes);

}  // namespace troika::models
