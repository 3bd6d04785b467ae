// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "../json.hpp"

namespace troika::models {

// Lookup by string_view without making a string.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

// Tokens and their ids, a one-to-one relation.
class Vocabulary {
 public:
  Vocabulary() = default;
  // {"token": id, ...}. Error{bad_file} for ids that are not, appear twice, or leave a file of this size far behind.
  Vocabulary(const Fields& owner, const char* key);

  // Tokens in the order of their ids. An empty one is none: its id belongs to no token. Error{bad_file} for tokens that
  // are not UTF-8, or appear twice.
  Vocabulary(std::span<const std::string_view> tokens, const std::string& where);

  // Also accepts a pair that is already there. Error{bad_file} when token or id belongs to another, or the id leaves the
  // tokens so far behind.
  void add(const std::string& token, std::int32_t id, const std::string& where);

  std::optional<std::int32_t> find(std::string_view token) const;
  // Empty when no token has the id.
  const std::string& token(std::int32_t id) const { return tokens_[static_cast<std::size_t>(id)]; }
  bool has(std::int32_t id) const {
    return id >= 0 && static_cast<std::size_t>(id) < tokens_.size() && known_[static_cast<std::size_t>(id)];
  }
  std::int32_t size() const { return static_cast<std::int32_t>(tokens_.size()); }  // highest id plus one
  std::size_t longest() const { return longest_; }                                 // bytes

 private:
  void insert(const std::string& token, std::int32_t id, const std::string& where);

  std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>> ids_;
  std::vector<std::string> tokens_;
  std::vector<bool> known_;
  std::size_t longest_ = 0;
};

}  // namespace troika::models
