// SPDX-License-Identifier: Apache-2.0
#include "added_tokens.hpp"

#include <algorithm>
#include <limits>

#include "unicode.hpp"

namespace troika::models {
namespace {

constexpr std::size_t max_token_bytes = 1024;

bool ends_with_word(std::string_view text) {
  std::size_t last = text.size();
  while (last > 0 && (static_cast<unsigned char>(text[--last]) & 0xc0) == 0x80) {
  }
  return !text.empty() && unicode::is_word(unicode::next(text, last));
}

bool starts_with_word(std::string_view text) {
  std::size_t at = 0;
  return !text.empty() && unicode::is_word(unicode::next(text, at));
}

}  // namespace

AddedTokens::AddedTokens(const Json& list, const std::string& where, const Normalizer& normalizer,
                         Vocabulary& vocabulary) {
  if (!list.is_array()) bad_file(where + " must be a list, not " + shown(list));
  for (const auto& item : list) {
    const Fields fields(item, where);
    const auto content = fields.string("content");
    const auto id = static_cast<std::int32_t>(fields.integer("id", 0, std::numeric_limits<std::int32_t>::max()));
    const bool special = fields.boolean("special", false);
    add(content, id,
        {special, fields.boolean("normalized", !special), fields.boolean("single_word", false),
         fields.boolean("lstrip", false), fields.boolean("rstrip", false)},
        normalizer, vocabulary, where);
  }
}

void AddedTokens::add(const std::string& content, std::int32_t id, const Flags& flags, const Normalizer& normalizer,
                      Vocabulary& vocabulary, const std::string& where) {
  if (content.empty()) bad_file(where + ": content must not be empty");
  if (content.size() > max_token_bytes) {
    bad_file(where + ": content " + in_quotes(content) + " is longer than " + std::to_string(max_token_bytes) +
             " bytes");
  }
  vocabulary.add(content, id, where);
  if (flags.special) {
    special_.resize(std::max(special_.size(), static_cast<std::size_t>(id) + 1));
    special_[static_cast<std::size_t>(id)] = true;
  }
  const Token token{id, flags.single_word, flags.left_strip, flags.right_strip};
  if (flags.normalized) {
    const auto text = normalizer(content);
    if (!text.empty()) normalized_.add(text, token);
    if (text != content) spellings_[id] = text;
  } else {
    raw_.add(content, token);
  }
}

void AddedTokens::Tree::add(std::string_view text, const Token& token) {
  std::size_t at = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    auto& children = nodes[at].children;
    const auto place = std::ranges::lower_bound(children, byte, {}, [](const auto& child) { return child.first; });
    if (place != children.end() && place->first == byte) {
      at = static_cast<std::size_t>(place->second);
    } else {
      const auto created = nodes.size();
      children.insert(place, {byte, static_cast<std::int32_t>(created)});
      nodes.emplace_back();
      at = created;
    }
  }
  nodes[at].token = static_cast<std::int32_t>(tokens.size());
  tokens.push_back(token);
}

const AddedTokens::Token* AddedTokens::Tree::longest(std::string_view text, std::size_t& length) const {
  const Token* found = nullptr;
  std::size_t at = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto& children = nodes[at].children;
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto place = std::ranges::lower_bound(children, byte, {}, [](const auto& child) { return child.first; });
    if (place == children.end() || place->first != byte) break;
    at = static_cast<std::size_t>(place->second);
    if (nodes[at].token >= 0) {
      found = &tokens[static_cast<std::size_t>(nodes[at].token)];
      length = i + 1;
    }
  }
  return found;
}

std::vector<AddedTokens::Part> AddedTokens::split(std::string_view text, const Tree& tree) {
  std::vector<Part> parts;
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size() && !tree.tokens.empty();) {
    std::size_t length = 0;
    const auto* token = tree.longest(text.substr(at), length);
    if (token == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at, end = at + length;
    at = end;
    if (token->single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) continue;
    // Stripped spaces belong to the token, except those that the token before it has already taken.
    if (token->left_strip) begin = std::max(done, unicode::strip(text.substr(0, begin), false, true).size());
    if (token->right_strip) end = text.size() - unicode::strip(text.substr(end), true, false).size();
    if (done < begin) parts.push_back({text.substr(done, begin - done), -1});
    parts.push_back({text.substr(begin, end - begin), token->id});
    done = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), -1});
  return parts;
}

}  // namespace troika::models
