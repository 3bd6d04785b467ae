// SPDX-License-Identifier: Apache-2.0
#include <troika/models/text/answer_parts.hpp>

#include <algorithm>
#include <utility>

#include "call_reader.hpp"

namespace troika::models {
namespace {

constexpr std::string_view think = "<think>", think_end = "</think>";

// How much of the mark is at the end of the text, with the blanks before it.
std::size_t open_end(std::string_view text, std::string_view mark) {
  std::size_t length = std::min(mark.size() - 1, text.size());
  while (length > 0 && !text.ends_with(mark.substr(0, length))) --length;
  const auto before = text.substr(0, text.size() - length).find_last_not_of(blanks);
  return text.size() - (before == std::string_view::npos ? 0 : before + 1);
}

}  // namespace

void AnswerParts::give(Part::Kind kind, std::string text, std::vector<Part>& parts) {
  if (skips_blanks_) text.erase(0, std::min(text.find_first_not_of(blanks), text.size()));
  if (text.empty()) return;
  skips_blanks_ = false;
  may_call_ = may_call_ && kind != Part::Kind::text;
  parts.push_back({kind, std::move(text), {}});
}

// Moves on as far as what is held allows; true where there is more to do.
bool AnswerParts::step(bool last, std::vector<Part>& parts) {
  switch (state_) {
    case State::start: {
      const auto begin = std::min(held_.find_first_not_of(blanks), held_.size());
      const std::string_view rest = std::string_view(held_).substr(begin);
      if (rest.starts_with(think)) {
        held_.erase(0, begin + think.size());
        state_ = State::thinking;
        skips_blanks_ = true;
        return true;
      }
      if (!last && think.starts_with(rest)) return false;
      state_ = State::text;
      return true;
    }
    case State::thinking: {
      const auto end = held_.find(think_end);
      const auto whole = end != std::string::npos;
      auto shown = whole ? end : held_.size() - (last ? 0 : open_end(held_, think_end));
      if (whole) shown = std::min(held_.find_last_not_of(blanks, shown == 0 ? 0 : shown - 1) + 1, shown);
      give(Part::Kind::thinking, held_.substr(0, shown), parts);
      if (!whole) return held_.erase(0, shown), false;
      held_.erase(0, end + think_end.size());
      state_ = State::text;
      skips_blanks_ = true;
      return true;
    }
    case State::text: {
      if (wanted_.calls == ToolStyle::none) return give(Part::Kind::text, std::exchange(held_, {}), parts), false;
      const auto mark = call_mark(wanted_.calls);
      const bool unmarked = wanted_.calls == ToolStyle::llama3 && may_call_;
      // Several calls may have these between them
      if (unmarked && called_) held_.erase(0, std::min(held_.find_first_not_of(" \t\r\n;,"), held_.size()));
      const auto first = std::min(held_.find_first_not_of(blanks), held_.size());
      const bool open = unmarked && mark.starts_with(std::string_view(held_).substr(first));  // it may become a call
      const auto begin = unmarked && held_.substr(first, 1) == "{" ? first : held_.find(mark);
      const auto whole = begin != std::string::npos;
      auto shown = whole ? begin : open ? 0 : held_.size() - open_end(held_, mark);
      if (whole) shown = shown == 0 ? 0 : std::min(held_.find_last_not_of(blanks, shown - 1) + 1, shown);
      if (last && !whole && !(called_ && held_.find_first_not_of(blanks) == std::string::npos)) shown = held_.size();
      give(Part::Kind::text, held_.substr(0, shown), parts);
      held_.erase(0, shown);
      if (whole) state_ = State::call;
      return whole;
    }
    case State::call: {  // held: blanks, the mark and what came behind it
      const auto begin = held_.find_first_not_of(blanks);
      auto read = read_calls(wanted_.calls, std::string_view(held_).substr(begin));
      if (read.size == std::string::npos) {
        if (last) give(Part::Kind::text, std::exchange(held_, {}), parts);
        return false;
      }
      if (read.calls.empty()) give(Part::Kind::text, held_.substr(0, begin + read.size), parts);
      for (auto& call : read.calls) parts.push_back({Part::Kind::call, {}, std::move(call)});
      if (!read.calls.empty()) called_ = skips_blanks_ = may_call_ = true;
      held_.erase(0, begin + read.size);
      state_ = State::text;
      return true;
    }
  }
  return false;
}

std::vector<AnswerParts::Part> AnswerParts::add(std::string_view piece) {
  std::vector<Part> parts;
  held_ += piece;
  while (step(false, parts)) {
  }
  return parts;
}

std::vector<AnswerParts::Part> AnswerParts::finish() {
  std::vector<Part> parts;
  while (step(true, parts)) {
  }
  return parts;
}

}  // namespace troika::models
