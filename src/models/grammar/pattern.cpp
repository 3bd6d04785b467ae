// SPDX-License-Identifier: Apache-2.0
#include "pattern.hpp"

#include <algorithm>
#include <bitset>
#include <charconv>
#include <initializer_list>
#include <utility>

#include "../json.hpp"

namespace troika::models {
namespace {

// Characters: printable ASCII one by one, the others all or none.
struct Class {
  std::bitset<128> ascii{};
  bool others = false;
  bool sure = true;  // that no other character belongs to it: readers differ in what \d, \w and \s are

  static Class of(std::initializer_list<std::pair<char, char>> ranges, bool sure) {
    Class c{.sure = sure};
    for (const auto& [low, high] : ranges)
      for (char i = low; i <= high; ++i) c.ascii.set(static_cast<std::size_t>(i));
    return c;
  }
  static Class printable() {
    Class all = of({{' ', '~'}}, true);
    all.others = true;
    return all;
  }
  Class operator~() const {
    Class rest = printable();
    rest.ascii &= ~ascii;
    rest.others = sure && !others;
    return rest;
  }
};

class Pattern {
 public:
  Pattern(AutomatonBuilder& builder, JsonRules& rules, std::string_view text, const std::string& where)
      : b_(builder), rules_(rules), text_(text), where_(where) {}

  State rule() {
    const bool begins = text_.starts_with('^'), ends = text_.ends_with('$') && !text_.ends_with("\\$");
    if (begins) at_ = 1;
    if (ends) text_.remove_suffix(1);
    const State open = b_.add(), begin = b_.add(), close = b_.add(), end = b_.add();
    b_.bytes(open, '"', '"', begin);
    if (!begins) put(Class::printable(), begin, begin);
    const State last = alternatives(begin, 0);
    if (at_ != text_.size()) fail("a )");
    if (alternatives_ && (begins || ends)) fail("| beside ^ or $, outside of a group,");
    b_.jump(last, close);
    if (!ends) put(Class::printable(), close, close);
    b_.bytes(close, '"', '"', end);
    b_.finish(end);
    return open;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    unsupported(where_ + ": " + what + " at byte " + std::to_string(at_) + " of the pattern is not supported");
  }
  bool more() const { return at_ < text_.size(); }
  bool take(char c) {
    if (!more() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void put(const Class& c, State from, State to) {
    State escaped = from;
    for (unsigned low = 0; low < 128; ++low) {
      if (!c.ascii[low]) continue;
      if (low == '"' || low == '\\') {
        if (escaped == from) b_.bytes(from, '\\', '\\', escaped = b_.add());
        b_.bytes(escaped, low, low, to);
        continue;
      }
      unsigned high = low;
      while (high + 1 < 128 && c.ascii[high + 1] && high + 1 != '"' && high + 1 != '\\') ++high;
      b_.bytes(from, low, high, to);
      low = high;
    }
    if (c.others) b_.call(from, rules_.non_ascii(), to);
  }

  // Each of these reads a part of the pattern, puts it behind `from`, and gives the state behind it.
  State alternatives(State from, int depth) {
    if (depth > 32) fail("a group within more than 32");
    const State end = b_.add();
    do {
      State at = b_.add();
      b_.jump(from, at);
      while (more() && text_[at_] != '|' && text_[at_] != ')') at = repeated(at, depth);
      b_.jump(at, end);
      if (depth == 0 && more() && text_[at_] == '|') alternatives_ = true;
    } while (take('|'));
    return end;
  }

  State repeated(State from, int depth) {
    const auto begin = at_;
    const auto once = [&](State state) {
      at_ = begin;
      return atom(state, depth);
    };
    const State first = b_.add();  // nothing but the part leads into it again
    b_.jump(from, first);
    const State behind = once(first);
    std::size_t least = 1, most = 1;
    if (take('?')) {
      least = 0;
    } else if (take('*')) {
      least = 0, most = JsonRules::unbounded;
    } else if (take('+')) {
      most = JsonRules::unbounded;
    } else if (take('{')) {
      least = count();
      most = least;
      if (take(',')) most = more() && text_[at_] == '}' ? JsonRules::unbounded : count();
      if (!take('}') || most < least) fail("this repetition");
    } else {
      return behind;
    }
    if (more() && (text_[at_] == '?' || text_[at_] == '*' || text_[at_] == '+' || text_[at_] == '{'))
      fail("a quantifier of a quantifier");
    const auto after = at_;
    const State end = b_.add();
    if (most == 0) {
      b_.jump(from, end);
      return end;
    }
    State at = behind;
    State loop = first;
    if (least == 0) b_.jump(first, end);
    for (std::size_t n = 1; n < least; ++n) {
      loop = b_.add();
      b_.jump(at, loop);
      at = once(loop);
    }
    if (most == JsonRules::unbounded) {
      b_.jump(at, loop);
    } else {
      for (std::size_t n = std::max<std::size_t>(least, 1); n < most; ++n) {
        b_.jump(at, end);
        const State next = b_.add();
        b_.jump(at, next);
        at = once(next);
      }
    }
    b_.jump(at, end);
    at_ = after;
    return end;
  }

  std::size_t count() {
    std::size_t n = 0;
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), n);
    if (error != std::errc() || n > 65536) fail("this repetition");
    at_ = static_cast<std::size_t>(end - text_.data());
    return n;
  }

  State atom(State from, int depth) {
    const State to = b_.add();
    const char c = text_[at_];
    if (take('(')) {
      if (take('?') && !take(':')) fail("a group of this kind");
      const State end = alternatives(from, depth + 1);
      if (!take(')')) fail("a group without its end");
      b_.jump(end, to);
    } else if (take('[')) {
      put(bracket(), from, to);
    } else if (take('.')) {
      put(Class::printable(), from, to);
    } else if (take('\\')) {
      put(escape(), from, to);
    } else if (c == '^' || c == '$' || c == '?' || c == '*' || c == '+' || c == '{' || c == '}' || c == ']') {
      fail(in_quotes(std::string(1, c)));
    } else if (const auto byte = static_cast<unsigned char>(c); byte < 0x80) {
      if (byte < ' ' || byte == 0x7f) fail("a control character");
      ++at_;
      put(Class::of({{c, c}}, true), from, to);
    } else {  // a character of several bytes
      auto end = at_ + 1;
      while (end < text_.size() && (static_cast<unsigned char>(text_[end]) & 0xc0) == 0x80) ++end;
      b_.text(from, text_.substr(at_, end - at_), to);
      at_ = end;
    }
    return to;
  }

  Class escape() {
    if (!more()) fail("a backslash");
    const char kind = text_[at_++];
    switch (kind) {
      case 'd': return digits();
      case 'D': return ~digits();
      case 'w': return letters();
      case 'W': return ~letters();
      case 's': return blanks();
      case 'S': return ~blanks();
      default: break;
    }
    if (std::string_view("\\.^$|?*+()[]{}/-\"'").find(kind) == std::string_view::npos) fail("the escape before this");
    return Class::of({{kind, kind}}, true);
  }
  static Class digits() { return Class::of({{'0', '9'}}, false); }
  static Class letters() { return Class::of({{'0', '9'}, {'a', 'z'}, {'A', 'Z'}, {'_', '_'}}, false); }
  static Class blanks() { return Class::of({{' ', ' '}}, false); }

  Class bracket_part() {
    const char c = text_[at_];
    if (c == '[' || c < ' ' || c == 0x7f) fail("this character of a class");
    ++at_;
    return c == '\\' ? escape() : Class::of({{c, c}}, true);
  }
  std::size_t one_of(const Class& c) const {
    if (c.ascii.count() != 1 || !c.sure) fail("the range before this");
    std::size_t i = 0;
    while (!c.ascii[i]) ++i;
    return i;
  }

  Class bracket() {
    Class c;
    const bool except = take('^');
    bool closed = false;
    while (more() && !(closed = take(']'))) {
      Class part = bracket_part();
      if (at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']') {
        ++at_;
        const auto low = one_of(part), high = one_of(bracket_part());
        if (low > high) fail("the range before this");
        for (auto i = low; i <= high; ++i) part.ascii.set(i);
      }
      c.ascii |= part.ascii;
      c.others = c.others || part.others;
      c.sure = c.sure && part.sure;
    }
    if (!closed) fail("a class without its end");
    return except ? ~c : c;
  }

  AutomatonBuilder& b_;
  JsonRules& rules_;
  std::string_view text_;
  const std::string& where_;
  std::size_t at_ = 0;
  bool alternatives_ = false;
};

}  // namespace

State pattern_rule(AutomatonBuilder& builder, JsonRules& rules, std::string_view pattern, const std::string& where) {
  return Pattern(builder, rules, pattern, where).rule();
}

}  // namespace troika::models
