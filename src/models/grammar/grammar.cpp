// SPDX-License-Identifier: Apache-2.0
#include <troika/models/grammar/grammar.hpp>

#include <utility>

#include "walker.hpp"

namespace troika::models {

const std::string& Grammar::source() const { return automaton_->source; }

GrammarState::GrammarState(Grammar grammar) : grammar_(std::move(grammar)) {
  Walker walker(grammar_.automaton());
  walker.frames.push_back({outside, 0, 0});
  accepts_ = walker.enter(grammar_.automaton().start, 0);
  positions_ = std::move(walker.positions);
  frames_ = std::move(walker.frames);
}

bool GrammarState::advance(std::string_view bytes) {
  if (bytes.empty()) return true;
  Walker walker(grammar_.automaton());
  walker.frames = frames_;
  walker.positions = positions_;
  std::size_t begin = 0;
  bool accepts = false;
  for (const char c : bytes) {
    const auto end = walker.positions.size();
    accepts = walker.step(begin, end, static_cast<std::uint8_t>(c));
    begin = end;
    if (!accepts && walker.positions.size() == begin) return false;
  }
  // Only frames that are still in use stay.
  std::vector<std::uint32_t> moved(walker.frames.size(), ~0u);
  std::vector<bool> used(walker.frames.size());
  used[0] = true;
  for (auto i = begin; i < walker.positions.size(); ++i) used[walker.positions[i].frame] = true;
  for (auto i = walker.frames.size(); i-- > 1;)
    if (used[i]) used[walker.frames[i].parent] = true;  // parents come first
  frames_.clear();
  for (std::size_t i = 0; i < used.size(); ++i) {
    if (!used[i]) continue;
    moved[i] = static_cast<std::uint32_t>(frames_.size());
    frames_.push_back(walker.frames[i]);
    frames_.back().parent = moved[frames_.back().parent];
  }
  positions_.assign(walker.positions.begin() + static_cast<std::ptrdiff_t>(begin), walker.positions.end());
  for (auto& position : positions_) position.frame = moved[position.frame];
  accepts_ = accepts;
  return true;
}

}  // namespace troika::models
