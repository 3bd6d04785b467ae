// SPDX-License-Identifier: Apache-2.0
#include "vocabulary.hpp"

#include <algorithm>

#include "unicode.hpp"

namespace troika::models {
namespace {

// Ids may have gaps, but not so that a short file asks for much memory.
std::int64_t highest_id(std::size_t tokens) { return static_cast<std::int64_t>(tokens) * 2 + 4096; }

}  // namespace

Vocabulary::Vocabulary(const Fields& owner, const char* key) {
  const Fields vocab = owner.object(key);
  const auto& entries = owner.get(key);
  ids_.reserve(entries.size());
  tokens_.reserve(entries.size());
  const auto limit = highest_id(entries.size());
  for (const auto& [token, value] : entries.items()) {
    // The name of the field is built for a message only.
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > static_cast<std::uint64_t>(limit)) {
      to_integer(value, 0, limit, vocab.where() + ": the id of " + in_quotes(token));
    }
    insert(token, static_cast<std::int32_t>(value.get<std::int64_t>()), vocab.where());
  }
}

Vocabulary::Vocabulary(std::span<const std::string_view> tokens, const std::string& where) {
  ids_.reserve(tokens.size());
  tokens_.resize(tokens.size());
  known_.resize(tokens.size());
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    const auto token = tokens[id];
    if (token.empty()) continue;
    if (unicode::find_invalid(token) != unicode::npos) {
      bad_file(where + ": token " + std::to_string(id) + ", " + in_quotes(token) + ", is not UTF-8");
    }
    const auto [at, inserted] = ids_.try_emplace(std::string(token), static_cast<std::int32_t>(id));
    if (!inserted) {
      bad_file(where + ": the token " + in_quotes(token) + " has the ids " + std::to_string(at->second) + " and " +
               std::to_string(id));
    }
    tokens_[id] = token;
    known_[id] = true;
    longest_ = std::max(longest_, token.size());
  }
}

void Vocabulary::add(const std::string& token, std::int32_t id, const std::string& where) {
  const auto limit = highest_id(ids_.size() + 1);
  if (id < 0 || id > limit) {
    bad_file(where + ": the token " + in_quotes(token) + " has the id " + std::to_string(id) + ", far beyond the " +
             std::to_string(ids_.size() + 1) + " tokens of the file; valid are 0 to " + std::to_string(limit));
  }
  insert(token, id, where);
}

void Vocabulary::insert(const std::string& token, std::int32_t id, const std::string& where) {
  const auto [at, inserted] = ids_.try_emplace(token, id);
  if (!inserted) {
    if (at->second == id) return;
    bad_file(where + ": the token " + in_quotes(token) + " has the ids " + std::to_string(at->second) + " and " +
             std::to_string(id));
  }
  const auto index = static_cast<std::size_t>(id);
  if (index >= tokens_.size()) {
    tokens_.resize(index + 1);
    known_.resize(index + 1);
  }
  if (known_[index]) {
    bad_file(where + ": the id " + std::to_string(id) + " belongs to both " + in_quotes(tokens_[index]) + " and " +
             in_quotes(token));
  }
  known_[index] = true;
  tokens_[index] = token;
  longest_ = std::max(longest_, token.size());
}

std::optional<std::int32_t> Vocabulary::find(std::string_view token) const {
  const auto at = ids_.find(token);
  return at == ids_.end() ? std::nullopt : std::optional(at->second);
}

}  // namespace troika::models
