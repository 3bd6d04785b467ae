// SPDX-License-Identifier: Apache-2.0
#include "json_rules.hpp"

#include <algorithm>
#include <bit>
#include <map>
#include <utility>
#include <vector>

#include "../json.hpp"

namespace troika::models {

State JsonRules::white_space() {
  if (white_space_) return *white_space_;
  constexpr int most_blanks = 20;
  const State begin = b_.add(), end = b_.add();
  State blanks = b_.add();
  b_.finish(begin);
  b_.bytes(begin, ' ', ' ', end);
  b_.bytes(begin, '\n', '\n', blanks);
  for (int i = 0; i < most_blanks; ++i) {
    const State next = b_.add();
    b_.finish(blanks);
    b_.bytes(blanks, ' ', ' ', next);
    b_.bytes(blanks, '\t', '\t', next);
    blanks = next;
  }
  b_.finish(blanks);
  b_.finish(end);
  return *(white_space_ = begin);
}

State JsonRules::non_ascii() {
  if (non_ascii_) return *non_ascii_;
  const State begin = b_.add(), one = b_.add(), two = b_.add(), three = b_.add(), end = b_.add();
  b_.finish(end);
  b_.bytes(one, 0x80, 0xbf, end);
  b_.bytes(two, 0x80, 0xbf, one);
  b_.bytes(three, 0x80, 0xbf, two);
  // The first byte says how many follow; after some of them, the second one is bounded.
  const auto bounded = [&](unsigned first, unsigned low, unsigned high, State rest) {
    const State second = b_.add();
    b_.bytes(begin, first, first, second);
    b_.bytes(second, low, high, rest);
  };
  b_.bytes(begin, 0xc2, 0xdf, one);
  bounded(0xe0, 0xa0, 0xbf, one);
  b_.bytes(begin, 0xe1, 0xec, two);
  bounded(0xed, 0x80, 0x9f, one);
  b_.bytes(begin, 0xee, 0xef, two);
  bounded(0xf0, 0x90, 0xbf, two);
  b_.bytes(begin, 0xf1, 0xf3, three);
  bounded(0xf4, 0x80, 0x8f, two);
  return *(non_ascii_ = begin);
}

State JsonRules::escape() {
  if (escape_) return *escape_;
  const State begin = b_.add(), kind = b_.add(), end = b_.add();
  b_.finish(end);
  b_.bytes(begin, '\\', '\\', kind);
  for (const char c : std::string_view("\"\\/bfnrt"))
    b_.bytes(kind, static_cast<unsigned char>(c), static_cast<unsigned char>(c), end);
  const auto hex = [&](State from, State to) {
    b_.bytes(from, '0', '9', to);
    b_.bytes(from, 'a', 'f', to);
    b_.bytes(from, 'A', 'F', to);
  };
  const State digits = b_.add(), last3 = b_.add(), last2 = b_.add(), last = b_.add(), d = b_.add();
  b_.bytes(kind, 'u', 'u', digits);
  b_.bytes(digits, '0', '9', last3);
  hex(last3, last2);
  hex(last2, last);
  hex(last, end);
  for (const char base : {'a', 'A'}) {  // d is apart: it may begin a surrogate
    const auto letter = static_cast<unsigned char>(base);
    b_.bytes(digits, letter, letter + 2u, last3);
    b_.bytes(digits, letter + 3u, letter + 3u, d);
    b_.bytes(digits, letter + 4u, letter + 5u, last3);
  }
  b_.bytes(d, '0', '7', last2);
  // A high surrogate, and then a low one
  State at = b_.add();
  b_.bytes(d, '8', '9', at);
  b_.bytes(d, 'a', 'b', at);
  b_.bytes(d, 'A', 'B', at);
  for (int i = 0; i < 2; ++i) {
    const State next = b_.add();
    hex(at, next);
    at = next;
  }
  const State slash = at, u = b_.add(), low_d = b_.add(), low_c = b_.add();
  b_.bytes(slash, '\\', '\\', u);
  b_.bytes(u, 'u', 'u', low_d);
  b_.bytes(low_d, 'd', 'd', low_c);
  b_.bytes(low_d, 'D', 'D', low_c);
  b_.bytes(low_c, 'c', 'f', last2);
  b_.bytes(low_c, 'C', 'F', last2);
  return *(escape_ = begin);
}

State JsonRules::string(std::size_t least, std::size_t most) {
  if (least > most)
    unsupported("a string of at least " + std::to_string(least) + " and at most " + std::to_string(most) +
                " characters");
  const bool any = least == 0 && most == unbounded;
  if (any && string_) return *string_;
  const State begin = b_.add(), end = b_.add();
  b_.finish(end);
  State body = b_.add();
  b_.bytes(begin, '"', '"', body);
  for (std::size_t count = 0;; ++count) {
    if (count >= least) b_.bytes(body, '"', '"', end);
    if (count == most) break;
    const bool loops = most == unbounded && count >= least;
    const State next = loops ? body : b_.add();
    b_.bytes(body, ']', 0x7f, next);  // the letters first: the likeliest
    b_.bytes(body, '#', '[', next);
    b_.bytes(body, ' ', '!', next);
    b_.call(body, non_ascii(), next);
    b_.call(body, escape(), next);
    if (loops) break;
    body = next;
  }
  if (any) string_ = begin;
  return begin;
}

// `least` to `most` digits from a state on; the state behind them, which is not reached before `least`.
State JsonRules::digits(State from, int least, int most) {
  const State end = b_.add();
  for (int i = 0; i < most; ++i) {
    if (i >= least) b_.jump(from, end);
    const State next = b_.add();
    b_.bytes(from, '0', '9', next);
    from = next;
  }
  b_.jump(from, end);
  return end;
}

// Readers take the number for a double or a 64-bit integer, so 16 digits and exponents below 100 are enough.
State JsonRules::number_of(bool whole) {
  const State begin = b_.add(), first = b_.add(), behind = b_.add();
  b_.bytes(begin, '-', '-', first);
  b_.jump(begin, first);
  b_.bytes(first, '0', '0', behind);
  const State more = b_.add();
  b_.bytes(first, '1', '9', more);
  b_.jump(digits(more, 0, 15), behind);
  b_.finish(behind);
  if (whole) return begin;
  const State point = b_.add(), exponent = b_.add(), sign = b_.add(), power = b_.add();
  b_.bytes(behind, '.', '.', point);
  const State fraction = digits(point, 1, 15);
  b_.finish(fraction);
  b_.jump(behind, exponent);
  b_.jump(fraction, exponent);
  b_.bytes(exponent, 'e', 'e', sign);
  b_.bytes(exponent, 'E', 'E', sign);
  b_.bytes(sign, '+', '+', power);
  b_.bytes(sign, '-', '-', power);
  b_.jump(sign, power);
  b_.finish(digits(power, 1, 2));
  return begin;
}

State JsonRules::number() {
  if (!number_) number_ = number_of(false);
  return *number_;
}
State JsonRules::integer() {
  if (!integer_) integer_ = number_of(true);
  return *integer_;
}

// A tree, so that what begins in the same way is one place until it differs.
State JsonRules::literals(std::span<const std::string> texts) {
  const State begin = b_.add();
  std::map<std::pair<State, char>, State> next;
  for (const auto& text : texts) {
    State at = begin;
    for (const char c : text) {
      const auto [place, fresh] = next.try_emplace({at, c}, State{0});
      if (fresh) {
        place->second = b_.add();
        b_.bytes(at, static_cast<unsigned char>(c), static_cast<unsigned char>(c), place->second);
      }
      at = place->second;
    }
    b_.finish(at);
  }
  return begin;
}

namespace {

void check_items(std::size_t least, std::size_t most) {
  if (least > most)
    unsupported("an array of at least " + std::to_string(least) + " and at most " + std::to_string(most) + " items");
}

}  // namespace

State JsonRules::array(std::span<const State> first, State item, std::size_t least, std::size_t most) {
  check_items(least, most);
  const State begin = b_.add(), open = b_.add(), close = b_.add(), end = b_.add();
  State place = b_.add();  // of an item
  b_.bytes(begin, '[', '[', open);
  b_.call(open, white_space(), place);
  b_.bytes(close, ']', ']', end);
  b_.finish(end);
  if (least == 0) b_.jump(place, close);
  for (std::size_t count = 1; count <= most; ++count) {
    const State behind = b_.add();
    b_.call(place, count <= first.size() ? first[count - 1] : item, behind);
    if (count >= least) b_.call(behind, white_space(), close);
    if (count == most) break;
    const State comma = b_.add();
    b_.bytes(behind, ',', ',', comma);
    // Once there are enough, it goes round in circles; the first place is another, as it may close the array at once.
    const bool loops = most == unbounded && count >= least && count > 1 && count > first.size();
    if (!loops) place = b_.add();
    b_.call(comma, white_space(), place);
    if (loops) break;
  }
  return begin;
}

// A place for each choice of those that were there: bits of a number.
State JsonRules::set(std::span<const State> items, std::size_t least, std::size_t most) {
  most = std::min(most, items.size());
  check_items(least, most);
  const State begin = b_.add(), open = b_.add(), close = b_.add(), end = b_.add();
  std::vector<State> place(std::size_t{1} << items.size()), behind(place.size());
  for (auto* states : {&place, &behind})
    for (auto& state : *states) state = b_.add();
  b_.bytes(begin, '[', '[', open);
  b_.call(open, white_space(), place[0]);
  b_.bytes(close, ']', ']', end);
  b_.finish(end);
  if (least == 0) b_.jump(place[0], close);
  for (std::size_t there = 0; there < place.size(); ++there) {
    const auto count = static_cast<std::size_t>(std::popcount(there));
    if (count > 0 && count >= least) b_.call(behind[there], white_space(), close);
    if (count == most) continue;
    for (std::size_t i = 0; i < items.size(); ++i)
      if (const auto bit = std::size_t{1} << i; (there & bit) == 0)
        b_.call(place[there], items[i], behind[there | bit]);
    if (count == 0) continue;
    const State comma = b_.add();
    b_.bytes(behind[there], ',', ',', comma);
    b_.call(comma, white_space(), place[there]);
  }
  return begin;
}

// "name": value, where the name is none of the members'. It is written without escapes, so that bytes tell.
State JsonRules::further_member(std::span<const Member> members, State value) {
  const State begin = b_.add(), root = b_.add(), other = b_.add(), colon = b_.add(), space = b_.add(), place = b_.add(),
              end = b_.add();
  b_.bytes(begin, '"', '"', root);
  b_.bytes(colon, ':', ':', space);
  b_.call(space, white_space(), place);
  b_.call(place, value, end);
  b_.finish(end);
  // A tree of the names. What leaves it between two characters is another name, and so is what ends inside of it.
  struct Node {
    State state;
    std::map<unsigned char, std::size_t> next{};
    bool ends = false;
  };
  std::vector<Node> nodes{{root}};
  for (const auto& member : members) {
    const auto escaped = [](char c) { return c == '"' || c == '\\' || static_cast<unsigned char>(c) < ' '; };
    if (std::ranges::any_of(member.name, escaped)) continue;  // never the same as one without escapes
    std::size_t at = 0;
    for (const char c : member.name) {
      const auto byte = static_cast<unsigned char>(c);
      if (!nodes[at].next.contains(byte)) {
        nodes[at].next[byte] = nodes.size();
        nodes.push_back({b_.add()});
      }
      at = nodes[at].next[byte];
    }
    nodes[at].ends = true;
  }
  const auto ascii_except = [&](State from, const std::map<unsigned char, std::size_t>& taken) {
    const auto free = [&](unsigned c) {
      return c != '"' && c != '\\' && !taken.contains(static_cast<unsigned char>(c));
    };
    for (unsigned low = ' '; low < 0x80; ++low) {
      if (!free(low)) continue;
      unsigned high = low;
      while (high + 1 < 0x80 && free(high + 1)) ++high;
      b_.bytes(from, low, high, other);
      low = high;
    }
  };
  for (const auto& node : nodes) {
    for (const auto& [byte, next] : node.next) b_.bytes(node.state, byte, byte, nodes[next].state);
    const auto last = node.next.empty() ? 0 : node.next.rbegin()->first;
    if (last >= 0x80 && last < 0xc0) continue;  // inside of a character, which is completed
    ascii_except(node.state, node.next);
    if (!node.ends) b_.bytes(node.state, '"', '"', colon);
    if (last < 0xc0)
      b_.call(node.state, non_ascii(), other);  // where a name goes on with such a character, no other does
  }
  ascii_except(other, {});
  b_.call(other, non_ascii(), other);
  b_.bytes(other, '"', '"', colon);
  return begin;
}

State JsonRules::object(std::span<const Member> members, std::optional<State> further) {
  const State begin = b_.add(), open = b_.add(), close = b_.add(), end = b_.add();
  b_.bytes(begin, '{', '{', open);
  b_.bytes(close, '}', '}', end);
  b_.finish(end);
  // place[i]: where a member from the i-th on comes; behind[i]: after a member, those before the i-th being done with.
  std::vector<State> place(members.size() + 1), behind(members.size() + 1);
  for (auto* states : {&place, &behind})
    for (auto& state : *states) state = b_.add();
  b_.call(open, white_space(), place[0]);
  bool may_end = true;
  for (std::size_t i = members.size() + 1; i-- > 0;) {
    if (i == members.size()) {
      if (further) b_.call(place[i], further_member(members, *further), behind[i]);
    } else {
      const auto& member = members[i];
      const State rule = b_.add(), colon = b_.add(), value = b_.add(), done = b_.add();
      b_.text(rule, Json(member.name).dump() + ":", colon);
      b_.call(colon, white_space(), value);
      b_.call(value, member.value, done);
      b_.finish(done);
      b_.call(place[i], rule, behind[i + 1]);
      if (!member.required) b_.jump(place[i], place[i + 1]);
      may_end = may_end && !member.required;
    }
    const State comma = b_.add();
    b_.bytes(behind[i], ',', ',', comma);
    b_.call(comma, white_space(), place[i]);
    if (may_end) b_.call(behind[i], white_space(), close);
  }
  if (may_end) b_.call(open, white_space(), close);
  return begin;
}

State JsonRules::any_object() {
  if (any_object_) return *any_object_;
  any_value();
  return *any_object_;
}

State JsonRules::any_value() {
  if (any_value_) return *any_value_;
  const State begin = b_.add();
  any_value_ = begin;
  any_object_ = object({}, begin);
  const std::string words[] = {"true", "false", "null"};
  for (const State rule : {string(), *any_object_, array({}, begin, 0, unbounded), number(), literals(words)})
    b_.jump(begin, rule);
  return begin;
}

}  // namespace troika::models
