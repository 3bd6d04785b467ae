// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/core/partition.hpp>
#include <troika/layers/kv_cache.hpp>

namespace troika::models {

// The tokens of one pass over several sequences, whose keys and values share a KvMemory by pages. It keeps its memory
// from pass to pass; the pages are read where they are, so they outlive the pass. Not thread-safe.
class Batch {
 public:
  void clear() {
    ids_.clear();
    positions_.clear();
    sequences_.clear();
    wanted_.clear();
    logits_ = 0;
  }

  // One or more tokens of a sequence, after the `cached` that its pages hold. The pages hold these too, and no other
  // sequence of the batch has a page that they are written to. Logits are given for the last `wanted`: none for a
  // piece of a prompt that goes on.
  void add(std::span<const std::int32_t> ids, std::int64_t cached, std::span<const std::int32_t> pages,
           std::int64_t wanted = 1) {
    const auto tokens = static_cast<std::int64_t>(ids.size()), room = static_cast<std::int64_t>(pages.size()) * kv_page;
    expects(tokens >= 1, "a sequence needs at least one token in a pass");
    expects(wanted >= 0 && wanted <= tokens, [&] {
      return "the logits of " + std::to_string(wanted) + " tokens were asked for; valid here is 0 to " +
             std::to_string(tokens);
    });
    expects(cached >= 0 && cached <= room && tokens <= room - cached, [&] {
      return std::to_string(pages.size()) + " pages hold " + std::to_string(room) + " tokens, not " +
             std::to_string(cached) + " and " + std::to_string(tokens) + " more";
    });
    const auto first = this->tokens();
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    for (std::int64_t i = 0; i < tokens; ++i) positions_.push_back(static_cast<std::int32_t>(cached + i));
    sequences_.push_back({tokens, cached, pages});
    wanted_.push_back({first + tokens - wanted, first + tokens});
    logits_ += wanted;
  }

  std::int64_t tokens() const { return static_cast<std::int64_t>(ids_.size()); }
  std::span<const std::int32_t> ids() const { return ids_; }
  std::span<const std::int32_t> positions() const { return positions_; }
  std::span<const SequenceRows> sequences() const { return sequences_; }
  // For each sequence, the tokens of the batch whose logits are given, in the order of the rows of the result.
  std::span<const Range> wanted() const { return wanted_; }
  std::int64_t logits() const { return logits_; }  // of all sequences

 private:
  std::vector<std::int32_t> ids_, positions_;
  std::vector<SequenceRows> sequences_;
  std::vector<Range> wanted_;
  std::int64_t logits_ = 0;
};

}  // namespace troika::models
