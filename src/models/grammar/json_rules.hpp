// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "automaton.hpp"

namespace troika::models {

// The pieces of JSON that schemas are made of, as rules of one automaton: each gives the state where the rule begins.
// Texts are UTF-8, numbers of a size that every reader takes, white space is bounded.
class JsonRules {
 public:
  static constexpr std::size_t unbounded = std::numeric_limits<std::size_t>::max();

  explicit JsonRules(AutomatonBuilder& builder) : b_(builder) {}

  State any_value();
  State any_object();
  State white_space();  // nothing, a space, or a line end and up to 20 blanks
  State number();
  State integer();
  State string(std::size_t least = 0, std::size_t most = unbounded);  // in characters
  State literals(std::span<const std::string> texts);                 // one of them, as it is
  // The items of `first`, then others.
  State array(std::span<const State> first, State item, std::size_t least, std::size_t most);
  State set(std::span<const State> items, std::size_t least, std::size_t most);  // each once at most, in any order

  struct Member {
    std::string name;
    State value;
    bool required;
  };
  // `further`: the values of members under other names, if there may be any.
  State object(std::span<const Member> members, std::optional<State> further);

  State non_ascii();  // one character of two to four bytes
  State escape();     // one character, written as \n, \u00e4 or the like

 private:
  State further_member(std::span<const Member> members, State value);
  State number_of(bool whole);
  State digits(State from, int least, int most);

  AutomatonBuilder& b_;
  std::optional<State> any_value_, any_object_, white_space_, non_ascii_, escape_, string_, number_, integer_;
};

}  // namespace troika::models
