// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "../json.hpp"

namespace troika::models {

#define TROIKA_CONTRACTIONS R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|)"
#define TROIKA_WORDS R"([^\r\n\p{L}\p{N}]?\p{L}+|)"
#define TROIKA_REST R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"

// How texts are cut before byte-level BPE, by the names that GGUF files have for it. Names that mean the same are
// beside each other, the usual one first.
struct PreTokenizerKind {
  std::string_view names;  // with spaces around each
  const char* pattern;     // of a Split before the bytes; null: that of GPT-2
  bool digits, nfc, ignore_merges, add_bos;

  // The same as the "pretokenizers" of a tokenizer.json.
  Json steps() const {
    Json steps = Json::array();
    if (digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
    if (pattern != nullptr) {
      steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}});
    }
    steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", pattern == nullptr}});
    return steps;
  }
};
inline constexpr PreTokenizerKind pre_tokenizer_kinds[] = {
    {" llama-bpe llama3 llama-v3 smaug-bpe ", TROIKA_CONTRACTIONS TROIKA_WORDS R"(\p{N}{1,3}|)" TROIKA_REST, false,
     false, true, true},
    {" qwen2 deepseek-r1-qwen ", TROIKA_CONTRACTIONS TROIKA_WORDS R"(\p{N}|)" TROIKA_REST, false, true, false, false},
    {" gpt-2 ", nullptr, false, false, false, false},
    {" smollm ", nullptr, true, false, false, false},
    {" tekken ",
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|)"
     R"( ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, false, true, true},
};
#undef TROIKA_CONTRACTIONS
#undef TROIKA_WORDS
#undef TROIKA_REST

// All names, with a space between.
inline std::string pre_tokenizer_names() {
  std::string names;
  for (const auto& known : pre_tokenizer_kinds) names += known.names.substr(1);
  return names.substr(0, names.size() - 1);
}

}  // namespace troika::models
