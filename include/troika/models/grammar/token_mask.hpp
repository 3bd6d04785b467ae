// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <troika/models/grammar/grammar.hpp>
#include <troika/models/text/tokenizer.hpp>

namespace troika::models {

// The bytes that each token adds to a text; none for special tokens and ids without a token.
class TokenBytes {
 public:
  explicit TokenBytes(const Tokenizer& tokenizer);
  explicit TokenBytes(std::span<const std::string> tokens);

  std::string_view operator[](std::int32_t id) const {
    const auto i = static_cast<std::size_t>(id);
    return std::string_view(bytes_).substr(first_[i], first_[i + 1] - first_[i]);
  }
  std::int32_t size() const { return static_cast<std::int32_t>(first_.size()) - 1; }

 private:
  std::string bytes_;
  std::vector<std::size_t> first_{0};
};

// What keeps an answer to a grammar: the grammar, and how the model's tokens are spelled.
struct Constraint {
  Grammar grammar;
  std::shared_ptr<const TokenBytes> tokens;
};

// Says which tokens of a part of the vocabulary may come next, so that each rank masks its own logits before the
// sampler reduces candidates. The tokens are walked as a tree of bytes. What a state allows whatever it was called from
// is kept, up to a bound. For one thread at a time.
class TokenMask {
 public:
  // The tokens [begin, end); those that `tokens` does not have are never allowed.
  TokenMask(std::shared_ptr<const TokenBytes> tokens, std::int64_t begin, std::int64_t end);
  TokenMask(TokenMask&&) noexcept;
  TokenMask& operator=(TokenMask&&) noexcept;
  ~TokenMask();

  // One bit a token, valid until the next call.
  std::span<const std::uint64_t> allowed(const GrammarState& state);
  // Puts the logits of this part to -infinity where the token may not come. Tokens that end the text may come where the
  // grammar accepts, whatever their bytes are.
  void apply(const GrammarState& state, std::span<const std::int32_t> ends, std::span<float> logits);

  const std::shared_ptr<const TokenBytes>& tokens() const { return tokens_; }

 private:
  struct Tree;
  std::shared_ptr<const TokenBytes> tokens_;
  std::int64_t begin_, end_;
  std::unique_ptr<Tree> tree_;
};

}  // namespace troika::models
