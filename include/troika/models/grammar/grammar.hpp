// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace troika::models {

struct Automaton;

// What a text has to be, as a pushdown automaton over its bytes. A value that is cheap to copy; const members may be
// called from any number of threads at once.
class Grammar {
 public:
  // Any JSON object.
  static Grammar json_object();

  // The JSON values that a JSON Schema allows. Properties come in the order in which the schema has them, further ones
  // last, and only where it asks for them; white space is what a pretty printer writes. So a text may be valid and
  // still not come, but none comes that is not valid. Error{unsupported} names the keyword and its place.
  static Grammar of_schema(std::string_view schema);

  // Equal texts are equal grammars.
  const std::string& source() const;
  const Automaton& automaton() const { return *automaton_; }

 private:
  explicit Grammar(std::shared_ptr<const Automaton> automaton) : automaton_(std::move(automaton)) {}
  std::shared_ptr<const Automaton> automaton_;
};

// Where in a grammar a text has come to. Memory is bounded: by nesting (64 calls deep) and by alternatives (256).
class GrammarState {
 public:
  // A byte may be read in `state`; `frame` says where it was called from.
  struct Position {
    std::uint32_t state, frame;
    bool operator==(const Position&) const = default;
  };
  struct Frame {
    std::uint32_t back, parent, depth;  // the state that goes on behind the call, and the frame of that
  };

  explicit GrammarState(Grammar grammar);

  // False where the text cannot go on with these bytes; then nothing has changed.
  bool advance(std::string_view bytes);
  bool accepts() const { return accepts_; }                         // the text may end here
  bool complete() const { return accepts_ && positions_.empty(); }  // it must

  const Grammar& grammar() const { return grammar_; }
  const std::vector<Position>& positions() const { return positions_; }
  const std::vector<Frame>& frames() const { return frames_; }

 private:
  Grammar grammar_;
  std::vector<Position> positions_;
  std::vector<Frame> frames_;
  bool accepts_ = false;
};

}  // namespace troika::models
