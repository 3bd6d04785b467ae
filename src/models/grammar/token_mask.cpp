// SPDX-License-Identifier: Apache-2.0
#include <troika/models/grammar/token_mask.hpp>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "walker.hpp"

namespace troika::models {

TokenBytes::TokenBytes(const Tokenizer& tokenizer) {
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    bytes_ += tokenizer.bytes_of(id);
    first_.push_back(bytes_.size());
  }
}

TokenBytes::TokenBytes(std::span<const std::string> tokens) {
  for (const auto& token : tokens) {
    bytes_ += token;
    first_.push_back(bytes_.size());
  }
}

// The tokens as a tree of bytes, its nodes in the order in which a walk meets them: what is below a node follows it, up
// to `behind`.
struct TokenMask::Tree {
  struct Node {
    std::uint32_t behind = 0, token = 0, tokens = 0;  // its tokens, in `order`
    std::uint16_t depth = 0;
    std::uint8_t byte = 0;
  };
  // What a place allows whatever it was called from, and the nodes where its rule may have ended: below them it
  // depends.
  struct Kept {
    std::vector<std::uint64_t> bits;
    std::vector<std::uint32_t> ended;
  };
  // Of one grammar: by state and depth, since how deep calls may go is bounded.
  struct Memory {
    Grammar grammar;
    std::uint64_t used = 0;
    std::map<std::pair<State, std::uint32_t>, Kept> places{};
  };
  static constexpr std::size_t most_grammars = 8;
  static constexpr std::size_t most_kept_bytes = 4 << 20;  // of a grammar

  std::vector<Node> nodes;
  std::vector<std::uint32_t> order;  // tokens by their bytes, counted from the first of this part
  std::vector<Memory> memories;
  std::uint64_t clock = 0;
  std::vector<std::uint64_t> bits;
  struct Level {
    std::size_t begin, end, frames;
  };
  std::vector<Level> levels;

  void allow(const Node& node, std::vector<std::uint64_t>& into) const {
    for (auto i = node.token; i < node.token + node.tokens; ++i)
      into[order[i] / 64] |= std::uint64_t{1} << order[i] % 64;
  }

  // Walks the nodes [begin, end), all children of one node and what is below them, from the walker's last positions.
  // `ended` gets the nodes below which a text may go on that has left the walker's lowest frame.
  void walk(Walker& walker, std::uint32_t begin, std::uint32_t end, std::size_t first, std::vector<std::uint64_t>& into,
            std::vector<std::uint32_t>* ended) {
    if (begin == end) return;
    const auto base = nodes[begin].depth;
    levels.assign(1, {first, walker.positions.size(), walker.frames.size()});
    for (auto i = begin; i < end;) {
      const Node& node = nodes[i];
      const auto place = static_cast<std::size_t>(node.depth - base);
      levels.resize(place + 1);
      const auto [from, to, frames] = levels[place];
      walker.positions.resize(to);
      walker.frames.resize(frames);
      const bool left = walker.step(from, to, node.byte);
      if (left || walker.positions.size() > to) allow(node, into);
      if (left && ended != nullptr && node.behind > i + 1) ended->push_back(i);
      if (walker.positions.size() == to) {
        i = node.behind;
        continue;
      }
      levels.push_back({to, walker.positions.size(), walker.frames.size()});
      ++i;
    }
  }

  Memory& memory_of(const Grammar& grammar) {
    const auto same = [&](const Memory& memory) {
      return &memory.grammar.automaton() == &grammar.automaton() || memory.grammar.source() == grammar.source();
    };
    auto at = std::ranges::find_if(memories, same);
    if (at == memories.end()) {
      if (memories.size() == most_grammars) memories.erase(std::ranges::min_element(memories, {}, &Memory::used));
      at = memories.insert(memories.end(), Memory{grammar});
    }
    at->used = ++clock;
    return *at;
  }

  const Kept& kept(Memory& memory, State state, std::uint32_t depth) {
    const auto at = memory.places.find({state, depth});
    if (at != memory.places.end()) return at->second;
    if (memory.places.size() * (bits.size() * 8 + 256) > most_kept_bytes) memory.places.clear();
    Kept& made = memory.places[{state, depth}];
    made.bits.assign(bits.size(), 0);
    Walker walker(memory.grammar.automaton());
    walker.frames.push_back({outside, 0, depth});
    walker.positions.push_back({state, 0});
    walk(walker, 0, static_cast<std::uint32_t>(nodes.size()), 0, made.bits, &made.ended);
    return made;
  }
};

TokenMask::TokenMask(std::shared_ptr<const TokenBytes> tokens, std::int64_t begin, std::int64_t end)
    : tokens_(std::move(tokens)), begin_(begin), end_(end), tree_(std::make_unique<Tree>()) {
  auto& nodes = tree_->nodes;
  auto& order = tree_->order;
  const auto bytes = [&](std::uint32_t i) { return (*tokens_)[static_cast<std::int32_t>(begin_ + i)]; };
  constexpr std::size_t longest = std::numeric_limits<std::uint16_t>::max();
  for (std::int64_t id = begin; id < std::min<std::int64_t>(end, tokens_->size()); ++id) {
    const auto i = static_cast<std::uint32_t>(id - begin);
    if (!bytes(i).empty() && bytes(i).size() < longest) order.push_back(i);
  }
  std::ranges::sort(order, [&](auto a, auto b) { return std::pair(bytes(a), a) < std::pair(bytes(b), b); });
  std::vector<std::uint32_t> open;  // the nodes that lead to the last token
  const auto close = [&](std::size_t depth) {
    for (; open.size() > depth; open.pop_back()) nodes[open.back()].behind = static_cast<std::uint32_t>(nodes.size());
  };
  std::string_view last;
  for (std::uint32_t place = 0; place < order.size(); ++place) {
    const auto text = bytes(order[place]);
    close(static_cast<std::size_t>(std::ranges::mismatch(last, text).in1 - last.begin()));
    while (open.size() < text.size()) {
      const auto depth = open.size();
      open.push_back(static_cast<std::uint32_t>(nodes.size()));
      nodes.push_back(
          {.token = place, .depth = static_cast<std::uint16_t>(depth), .byte = static_cast<std::uint8_t>(text[depth])});
    }
    ++nodes[open.back()].tokens;
    last = text;
  }
  close(0);
  tree_->bits.resize(static_cast<std::size_t>(end - begin + 63) / 64);
}
TokenMask::TokenMask(TokenMask&&) noexcept = default;
TokenMask& TokenMask::operator=(TokenMask&&) noexcept = default;
TokenMask::~TokenMask() = default;

std::span<const std::uint64_t> TokenMask::allowed(const GrammarState& state) {
  auto& tree = *tree_;
  std::ranges::fill(tree.bits, 0);
  auto& memory = tree.memory_of(state.grammar());
  for (const auto& position : state.positions()) {
    const auto& frame = state.frames()[position.frame];
    const auto& kept = tree.kept(memory, position.state, frame.depth);
    for (std::size_t i = 0; i < kept.bits.size(); ++i) tree.bits[i] |= kept.bits[i];
    if (kept.ended.empty() || frame.back == outside) continue;
    Walker walker(memory.grammar.automaton());
    walker.frames = state.frames();
    walker.enter(frame.back, frame.parent);
    const auto places = walker.positions.size();
    const auto frames = walker.frames.size();
    for (const auto node : kept.ended) {
      walker.positions.resize(places);
      walker.frames.resize(frames);
      tree.walk(walker, node + 1, tree.nodes[node].behind, 0, tree.bits, nullptr);
    }
  }
  return tree.bits;
}

void TokenMask::apply(const GrammarState& state, std::span<const std::int32_t> ends, std::span<float> logits) {
  constexpr float never = -std::numeric_limits<float>::infinity();
  const auto bits = allowed(state);
  std::vector<std::pair<std::size_t, float>> ending;
  for (const auto id : ends) {
    if (id >= begin_ && id < end_) ending.emplace_back(id - begin_, logits[static_cast<std::size_t>(id - begin_)]);
  }
  for (std::size_t word = 0; word < bits.size(); ++word) {
    if (bits[word] == ~std::uint64_t{0}) continue;
    const auto end = std::min(logits.size(), (word + 1) * 64);
    for (auto i = word * 64; i < end; ++i)
      if ((bits[word] >> i % 64 & 1) == 0) logits[i] = never;
  }
  for (const auto& [i, logit] : ending) logits[i] = state.accepts() ? logit : never;
}

}  // namespace troika::models
