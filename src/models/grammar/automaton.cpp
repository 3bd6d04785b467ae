// SPDX-License-Identifier: Apache-2.0
#include "automaton.hpp"

#include <algorithm>

#include "../json.hpp"

namespace troika::models {
namespace {

constexpr std::size_t most_states = 1 << 16, most_edges = 1 << 18;

[[noreturn]] void too_large() {
  unsupported("the grammar is too large: its lengths, counts and alternatives come to more than " +
              std::to_string(most_states) + " states");
}

// How deep calls must at least go from each state to its return, by Knuth's generalisation of Dijkstra's algorithm: the
// states that need 0 frames first, then those that need 1, and so on.
std::vector<std::uint8_t> needs(const Automaton& automaton) {
  const auto count = automaton.first.size() - 1;
  constexpr std::uint8_t never = most_frames + 1;
  std::vector<std::uint8_t> need(count, never);
  std::vector<std::vector<std::pair<State, std::uint32_t>>> from(count);  // states and edges that lead here
  std::vector<std::vector<State>> level(most_frames + 1);
  for (State state = 0; state < count; ++state) {
    for (auto i = automaton.first[state]; i < automaton.first[state + 1]; ++i) {
      const auto& edge = automaton.edges[i];
      if (edge.kind == Edge::Kind::finish) level[0].push_back(state);
      if (edge.kind == Edge::Kind::bytes || edge.kind == Edge::Kind::call) from[edge.target].emplace_back(state, i);
      if (edge.kind == Edge::Kind::call) from[edge.back].emplace_back(state, i);
    }
  }
  for (std::uint8_t depth = 0; depth <= most_frames; ++depth) {
    for (std::size_t next = 0; next < level[depth].size(); ++next) {
      const State state = level[depth][next];
      if (need[state] != never) continue;
      need[state] = depth;
      for (const auto& [before, i] : from[state]) {
        const auto& edge = automaton.edges[i];
        unsigned wanted = depth;
        if (edge.kind == Edge::Kind::call) {
          if (need[edge.target] == never || need[edge.back] == never) continue;
          wanted = std::max(need[edge.target] + 1u, unsigned{need[edge.back]});
        }
        if (wanted <= most_frames) level[wanted].push_back(before);
      }
    }
  }
  return need;
}

}  // namespace

State AutomatonBuilder::add() {
  if (states_.size() == most_states) too_large();
  states_.emplace_back();
  return static_cast<State>(states_.size() - 1);
}

void AutomatonBuilder::put(State from, Edge edge) {
  if (++edges_ > most_edges) too_large();
  states_[from].push_back(edge);
}

void AutomatonBuilder::bytes(State from, unsigned low, unsigned high, State to) {
  put(from, {.kind = Edge::Kind::bytes,
             .low = static_cast<std::uint8_t>(low),
             .high = static_cast<std::uint8_t>(high),
             .target = to});
}

void AutomatonBuilder::text(State from, std::string_view bytes, State to) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const State next = i + 1 < bytes.size() ? add() : to;
    const auto byte = static_cast<unsigned char>(bytes[i]);
    this->bytes(from, byte, byte, next);
    from = next;
  }
}

Automaton AutomatonBuilder::build(State start, std::string source) const {
  Automaton automaton;
  automaton.source = std::move(source);
  automaton.start = start;
  std::vector<State> seen(states_.size(), ~State{0}), reached;
  for (State state = 0; state < states_.size(); ++state) {
    // Jumps are taken now: a state has the edges of all that it jumps to.
    const auto begin = automaton.edges.size();
    automaton.first.push_back(static_cast<std::uint32_t>(begin));
    reached.assign(1, state);
    seen[state] = state;
    bool plain = true;
    for (std::size_t next = 0; next < reached.size(); ++next) {
      for (const auto& edge : states_[reached[next]]) {
        if (edge.kind == Edge::Kind::jump) {
          if (seen[edge.target] != state) reached.push_back(edge.target);
          seen[edge.target] = state;
          continue;
        }
        plain = plain && edge.kind == Edge::Kind::bytes;
        if (automaton.edges.size() == most_edges) too_large();
        automaton.edges.push_back(edge);
      }
    }
    // The same edge by two ways is one.
    if (reached.size() > 1) {
      std::sort(automaton.edges.begin() + static_cast<std::ptrdiff_t>(begin), automaton.edges.end());
      automaton.edges.erase(
          std::unique(automaton.edges.begin() + static_cast<std::ptrdiff_t>(begin), automaton.edges.end()),
          automaton.edges.end());
    }
    automaton.plain.push_back(plain);
  }
  automaton.first.push_back(static_cast<std::uint32_t>(automaton.edges.size()));
  automaton.need = needs(automaton);
  if (automaton.need[start] > most_frames) unsupported("the schema allows no value, or only values that never end");
  return automaton;
}

}  // namespace troika::models
