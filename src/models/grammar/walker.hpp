// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "automaton.hpp"

namespace troika::models {

using Position = GrammarState::Position;
using Frame = GrammarState::Frame;

// The frame below all others goes back to nowhere: the end of the text, or what is not looked at.
inline constexpr State outside = ~State{0};

// Takes bytes through an automaton. Positions and frames are stacks that a caller cuts back to go another way; each
// place that it keeps can be completed within most_frames, so that no text ends up where nothing can follow.
class Walker {
 public:
  static constexpr std::size_t most_positions = 256;  // more alternatives at once are not followed

  explicit Walker(const Automaton& automaton) : automaton_(&automaton) {}

  std::vector<Frame> frames;
  std::vector<Position> positions;

  // Puts the places behind `positions` where the text may be on entering a state. True if it may be outside.
  bool enter(State state, std::uint32_t frame) {
    begin_ = positions.size();
    fresh_ = frames.size();
    return go(state, frame);
  }

  // The same for the places in [begin, end) of positions after they read the byte.
  bool step(std::size_t begin, std::size_t end, std::uint8_t byte) {
    begin_ = positions.size();
    fresh_ = frames.size();
    bool left = false;
    for (auto i = begin; i < end; ++i) {
      const Position from = positions[i];
      for (const auto& edge : automaton_->of(from.state)) {
        if (edge.kind == Edge::Kind::bytes && byte >= edge.low && byte <= edge.high)
          left |= go(edge.target, from.frame);
      }
    }
    return left;
  }

 private:
  bool go(State state, std::uint32_t frame) {
    const auto depth = frames[frame].depth;
    if (depth + automaton_->need[state] > most_frames) return false;
    if (automaton_->plain[state]) return put({state, frame}), false;
    bool left = false, reads = false;
    for (const auto& edge : automaton_->of(state)) {
      switch (edge.kind) {
        case Edge::Kind::bytes: reads = true; break;
        case Edge::Kind::finish: {
          const auto [back, parent, unused] = frames[frame];
          left |= back == outside || go(back, parent);
          break;
        }
        case Edge::Kind::call:
          if (positions.size() - begin_ < most_positions && depth + automaton_->need[edge.back] <= most_frames &&
              depth < most_frames)
            left |= go(edge.target, push({edge.back, frame, depth + 1}));
          break;
        case Edge::Kind::jump: break;
      }
    }
    if (reads) put({state, frame});
    return left;
  }

  void put(Position position) {
    if (positions.size() - begin_ == most_positions) return;
    if (std::find(positions.begin() + static_cast<std::ptrdiff_t>(begin_), positions.end(), position) ==
        positions.end())
      positions.push_back(position);
  }

  // The same call from the same place is one frame, so that alternatives that end in the same way become one again.
  std::uint32_t push(const Frame& frame) {
    for (auto i = fresh_; i < frames.size(); ++i) {
      if (frames[i].back == frame.back && frames[i].parent == frame.parent) return static_cast<std::uint32_t>(i);
    }
    frames.push_back(frame);
    return static_cast<std::uint32_t>(frames.size() - 1);
  }

  const Automaton* automaton_;
  std::size_t begin_ = 0, fresh_ = 0;
};

}  // namespace troika::models
