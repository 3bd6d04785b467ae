// SPDX-License-Identifier: Apache-2.0
#pragma once

// How likely the tokens of an answer were, in the forms of Ollama and OpenAI.

#include <cstdint>
#include <vector>

#include "text_request.hpp"

namespace troika::serving {

// How many of the likeliest tokens are asked for: a member from 0 to 20, or 0.
int read_likeliest(const Fields& fields, const char* member);

// Ollama's "logprobs", and the "content" of those of chat completions.
Json logprobs_json(const std::vector<ScoredToken>& tokens);
// Of completions. `offset`: characters of the answer before these tokens; moves on behind them.
Json completion_logprobs_json(const std::vector<ScoredToken>& tokens, std::int64_t& offset);

}  // namespace troika::serving
