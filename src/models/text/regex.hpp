// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace troika::models {

struct Match {
  std::size_t begin = 0, end = 0;
};

// A regular expression of a tokenizer.json, over UTF-8 text. Written for Oniguruma there and run by PCRE2 here: \s, \S,
// \w and \W are rewritten to the Unicode sets that Oniguruma means. Const members may be called from several threads at
// once.
class Regex {
 public:
  // Error{bad_file} names `where` and what PCRE2 says.
  Regex(const std::string& pattern, std::string where);
  // An expression that matches this text and nothing else.
  static Regex literal(std::string_view text, std::string where);

  // All matches from left to right, none overlapping. Text is valid UTF-8. Error{bad_file} for an expression that
  // needs more steps than any sane one does.
  std::vector<Match> find_all(std::string_view text) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
  std::string where_;
};

}  // namespace troika::models
