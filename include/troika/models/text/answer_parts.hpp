// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <troika/models/text/chat.hpp>

namespace troika::models {

// Takes an answer apart while it comes: thoughts in <think>, calls of tools as the model writes them, and the text for
// the reader. Marks may come in pieces. What looks like a call and is none, or stops in the middle, is text.
class AnswerParts {
 public:
  struct Part {
    enum class Kind : std::uint8_t { text, thinking, call } kind = Kind::text;
    std::string text{};
    ToolCall call{};
  };
  struct Wanted {
    bool thinking = false;
    ToolStyle calls = ToolStyle::none;
  };
  AnswerParts() = default;
  explicit AnswerParts(Wanted wanted) : wanted_(wanted), state_(wanted.thinking ? State::start : State::text) {}

  std::vector<Part> add(std::string_view piece);
  std::vector<Part> finish();

 private:
  enum class State : std::uint8_t { start, thinking, text, call };

  bool step(bool last, std::vector<Part>& parts);
  void give(Part::Kind kind, std::string text, std::vector<Part>& parts);

  Wanted wanted_{};
  State state_ = State::text;
  std::string held_;
  bool skips_blanks_ = false, called_ = false;
  bool may_call_ = true;  // Llama 3: where no mark is needed, at the beginning and behind calls
};

}  // namespace troika::models
