// SPDX-License-Identifier: Apache-2.0
#include "gap_tokens.hpp"

#include <array>

namespace troika::models {

GapTokens gap_tokens(std::int32_t prefix, std::int32_t suffix, std::int32_t middle, const Vocabulary& vocabulary) {
  GapTokens gap{prefix, suffix, middle, {prefix, suffix, middle}};
  // The end of a text, and what begins another file of a repository
  for (const char* end : {"<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|file_separator|>",
                          "<file_sep>", "<fim_pad>", "▁<EOT>"})
    if (const auto id = vocabulary.find(end)) gap.ends.push_back(*id);
  return gap;
}

std::optional<GapTokens> known_gap_tokens(const Vocabulary& vocabulary) {
  using Spelled = std::array<const char*, 3>;
  // Qwen2.5-Coder, CodeGemma; StarCoder, Granite; SantaCoder; DeepSeek-Coder; Code Llama
  for (const auto& [prefix, suffix, middle] :
       {Spelled{"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
        Spelled{"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},
        Spelled{"<fim-prefix>", "<fim-suffix>", "<fim-middle>"},
        Spelled{"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"}, Spelled{"▁<PRE>", "▁<SUF>", "▁<MID>"}}) {
    const auto first = vocabulary.find(prefix), second = vocabulary.find(suffix), third = vocabulary.find(middle);
    if (first && second && third) return gap_tokens(*first, *second, *third, vocabulary);
  }
  return std::nullopt;
}

}  // namespace troika::models
