// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "vocabulary.hpp"

namespace troika::models {

// Byte pair encoding: a piece starts as its characters, and the pair with the lowest rank is merged until none is left.
class Bpe {
 public:
  explicit Bpe(const Fields& model);
  // Byte-level, without a token for what is unknown. Merges are two tokens with a space between them, the first first.
  Bpe(Vocabulary vocabulary, std::span<const std::string_view> merges, bool ignore_merges, const std::string& where);

  const Vocabulary& vocabulary() const { return vocabulary_; }
  // Appends the ids of one piece. O(n log n) in its length.
  void encode(std::string_view piece, std::vector<std::int32_t>& ids) const;

 private:
  struct Merge {
    std::int32_t rank, result;
  };
  struct PairHash {
    std::size_t operator()(std::uint64_t pair) const {
      pair *= 0x9e3779b97f4a7c15u;
      return static_cast<std::size_t>(pair ^ (pair >> 32));
    }
  };
  static std::uint64_t pair_of(std::int32_t a, std::int32_t b) {
    return std::uint64_t{static_cast<std::uint32_t>(a)} << 32 | static_cast<std::uint32_t>(b);
  }

  void read_merges(const Fields& model);
  void add_merge(std::string_view left, std::string_view right, std::int32_t rank, const std::string& where);
  std::vector<std::int32_t> characters(std::string_view piece) const;
  void merge(const std::vector<std::int32_t>& symbols, std::vector<std::int32_t>& ids) const;

  Vocabulary vocabulary_;
  std::unordered_map<std::uint64_t, Merge, PairHash> merges_;
  std::string prefix_, suffix_;  // of characters that continue a piece, of the one that ends it
  std::optional<std::int32_t> unknown_;
  std::array<std::optional<std::int32_t>, 256> byte_ids_;  // of <0x00> to <0xFF>
  bool fuse_unknown_ = false, byte_fallback_ = false, ignore_merges_ = false;
};

}  // namespace troika::models
