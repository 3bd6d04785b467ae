// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <troika/models/grammar/grammar.hpp>

namespace troika::models {

using State = std::uint32_t;

inline constexpr std::uint32_t most_frames = 64;  // calls within calls

struct Edge {
  enum class Kind : std::uint8_t {
    bytes,   // reads one of [low, high]
    jump,    // reads nothing; none is left in an Automaton
    call,    // goes to target; what returns from there goes on in back
    finish,  // returns
  };
  Kind kind;
  std::uint8_t low = 0, high = 0;
  State target = 0, back = 0;
  auto operator<=>(const Edge&) const = default;
};

// Edges may overlap: a text is at several places at once where it is not clear yet which alternative it is.
struct Automaton {
  std::vector<Edge> edges;
  std::vector<std::uint32_t> first;  // of each state's edges, and where the last one's end
  std::vector<std::uint8_t>
      need;  // frames that the way from a state to its return takes at least; above most_frames: there is none
  std::vector<bool> plain;  // only reads
  State start = 0;
  std::string source;

  std::span<const Edge> of(State state) const {
    return std::span(edges).subspan(first[state], first[state + 1] - first[state]);
  }
};

// Error{unsupported} for automata that grow too large.
class AutomatonBuilder {
 public:
  State add();
  void bytes(State from, unsigned low, unsigned high, State to);
  void text(State from, std::string_view bytes, State to);  // in this order; 1 byte or more
  void jump(State from, State to) { put(from, {.kind = Edge::Kind::jump, .target = to}); }
  void call(State from, State rule, State back) { put(from, {.kind = Edge::Kind::call, .target = rule, .back = back}); }
  void finish(State from) { put(from, {.kind = Edge::Kind::finish}); }

  // Error{unsupported} where no text is possible.
  Automaton build(State start, std::string source) const;

 private:
  void put(State from, Edge edge);
  std::vector<std::vector<Edge>> states_;
  std::size_t edges_ = 0;
};

}  // namespace troika::models
