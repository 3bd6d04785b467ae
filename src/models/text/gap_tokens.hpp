// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include <troika/models/text/tokenizer.hpp>

#include "vocabulary.hpp"

namespace troika::models {

// With the tokens of the vocabulary that end what fills a gap.
GapTokens gap_tokens(std::int32_t prefix, std::int32_t suffix, std::int32_t middle, const Vocabulary& vocabulary);
// By their spelling, where the file does not name them.
std::optional<GapTokens> known_gap_tokens(const Vocabulary& vocabulary);

}  // namespace troika::models
