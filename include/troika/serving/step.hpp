// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <troika/layers/sampler.hpp>
#include <troika/models/batch.hpp>
#include <troika/models/grammar/token_mask.hpp>
#include <troika/serving/step_planner.hpp>

namespace troika::serving {

// A step as the ranks read it: a copy, so that a rank that was given up reads nothing that belongs to requests. It
// keeps its memory from step to step. Not thread-safe.
class Step {
 public:
  // Where an answer that is kept to a grammar has come to.
  struct Constrained {
    models::GrammarState state;
    std::shared_ptr<const models::TokenBytes> tokens;
    std::vector<std::int32_t> ends;
  };
  struct Draw {
    SamplingOptions sampling{};
    std::vector<std::int32_t> seen{};  // the end of the text, as far back as penalties look
    std::uint64_t drawn = 0;           // tokens of the answer so far
    std::optional<Constrained> constrained{};
    std::optional<int> logprobs{};
  };

  void assign(std::span<const Piece> pieces) {
    batch_.clear();
    draws_ = 0;
    if (pages_.size() < pieces.size()) pages_.resize(pieces.size()), storage_.resize(pieces.size());
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const auto& [sequence, count, draws] = pieces[i];
      pages_[i].assign(sequence->pages.begin(), sequence->pages.end());
      const std::span<const std::int32_t> text = sequence->tokens;
      batch_.add(text.subspan(static_cast<std::size_t>(sequence->cached), static_cast<std::size_t>(count)),
                 sequence->cached, pages_[i], draws ? 1 : 0);
      if (!draws) continue;
      auto& draw = storage_[draws_++];
      draw.sampling = sequence->request.sampling;
      draw.drawn = static_cast<std::uint64_t>(sequence->drawn());
      const auto last = draw.sampling.repeat_last_n;
      const auto seen = text.last(last < 0 ? text.size() : std::min(text.size(), static_cast<std::size_t>(last)));
      draw.seen.assign(seen.begin(), seen.end());
      draw.logprobs = sequence->request.logprobs;
      draw.constrained.reset();
      if (sequence->grammar) {
        const auto& request = sequence->request;
        draw.constrained.emplace(Constrained{*sequence->grammar, request.constraint->tokens, request.ends});
      }
    }
  }

  bool empty() const { return batch_.tokens() == 0; }
  const models::Batch& batch() const { return batch_; }
  std::span<const Draw> draws() const { return std::span(storage_).first(draws_); }  // a row of logits each

 private:
  models::Batch batch_;
  std::vector<std::vector<std::int32_t>> pages_;  // of each piece; the batch reads them here
  std::vector<Draw> storage_;
  std::size_t draws_ = 0;
};

}  // namespace troika::serving
