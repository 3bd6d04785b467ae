// SPDX-License-Identifier: Apache-2.0
#include "number_range.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "../json.hpp"

namespace troika::models {
namespace {

using Ordered = nlohmann::ordered_json;

constexpr std::int64_t most_whole = 9'999'999'999'999'999;  // 16 digits, as JsonRules has them
constexpr std::int64_t most_bound = 1'000'000'000;          // of numbers with fractions: doubles tell them apart
constexpr int fraction_digits = 6;
constexpr std::int64_t most_multiple = 100;  // a state of the automaton for each rest

// Bounds of a value, or of its magnitude. Open: the bound itself is not in it.
struct Range {
  std::int64_t low = -most_whole, high = most_whole;
  bool open_low = false, open_high = false;
};

class RangeBuilder {
 public:
  RangeBuilder(AutomatonBuilder& builder, bool whole, std::int64_t multiple)
      : b_(builder), whole_(whole), multiple_(multiple) {}

  State values(const Range& range) {
    const State begin = b_.add();
    const auto least = std::int64_t{whole_ ? 1 : 0};  // there is a 0 already
    if (range.high >= 0)
      magnitudes(begin,
                 {std::max<std::int64_t>(0, range.low), range.high, range.low >= 0 && range.open_low, range.open_high});
    if (range.low < 0 && -range.low >= least) {
      const State negative = b_.add();
      b_.bytes(begin, '-', '-', negative);
      magnitudes(negative,
                 {std::max(least, -range.high), -range.low, range.high <= 0 && range.open_high, range.open_low});
    }
    return begin;
  }

 private:
  // What is known of digits so far: how many they are, how they compare with as many of the bounds, what is left over
  // from multiples.
  struct Known {
    std::size_t count = 0;
    int low = 0, high = 0;
    std::int64_t rest = 0;
    auto operator<=>(const Known&) const = default;
  };

  void magnitudes(State from, const Range& range) {
    if (range.low == 0) {
      const State zero = b_.add();
      b_.bytes(from, '0', '0', zero);
      end(zero, range, true, range.high == 0);
    }
    if (range.high == 0) return;
    const auto low = std::to_string(std::max<std::int64_t>(1, range.low)), high = std::to_string(range.high);
    const auto sign = [](char a, char b) { return a < b ? -1 : a > b ? 1 : 0; };
    std::map<Known, State> states{{Known{}, from}};
    std::vector<Known> open{Known{}};
    while (!open.empty()) {
      const Known known = open.back();
      open.pop_back();
      const State state = states.at(known);
      const bool enough = known.count > low.size() || (known.count == low.size() && known.low >= 0);
      if (known.count > 0 && enough && known.rest == 0) {
        end(state, range, range.low > 0 && known.count == low.size() && known.low == 0,
            known.count == high.size() && known.high == 0);
      }
      if (known.count == high.size()) continue;
      for (char digit = known.count == 0 ? '1' : '0'; digit <= '9'; ++digit) {
        Known next{known.count + 1, known.low, known.high, (known.rest * 10 + (digit - '0')) % multiple_};
        if (next.count > low.size())
          next.low = 1;
        else if (known.low == 0)
          next.low = sign(digit, low[known.count]);
        if (known.high == 0) next.high = sign(digit, high[known.count]);
        if (next.count == high.size() && next.high > 0) continue;
        const auto [at, fresh] = states.try_emplace(next, State{0});
        if (fresh) at->second = b_.add(), open.push_back(next);
        b_.bytes(state, static_cast<unsigned char>(digit), static_cast<unsigned char>(digit), at->second);
      }
    }
  }

  // Behind the whole part of a magnitude, which may be that of a bound.
  void end(State state, const Range& range, bool at_low, bool at_high) {
    const bool open_low = at_low && range.open_low;
    if (!open_low && !(at_high && range.open_high)) b_.finish(state);
    if (whole_ || at_high) return;
    State zeros = b_.add(), others = zeros;
    b_.bytes(state, '.', '.', zeros);
    for (int i = 0; i < fraction_digits; ++i) {
      const State more_zeros = b_.add(), more = b_.add();
      b_.bytes(zeros, '0', '0', more_zeros);
      b_.bytes(zeros, '1', '9', more);
      if (i > 0) b_.bytes(others, '0', '9', more);
      b_.finish(more);
      if (!open_low) b_.finish(more_zeros);
      zeros = more_zeros;
      others = more;
    }
  }

  AutomatonBuilder& b_;
  const bool whole_;
  const std::int64_t multiple_;
};

}  // namespace

State number_range(AutomatonBuilder& builder, JsonRules& rules, const Ordered& schema, bool whole,
                   const std::string& where) {
  const auto fail = [&](const char* key, const std::string& why) {
    unsupported(where + ": " + in_quotes(key) + " " + why);
  };
  std::int64_t multiple = 1;
  bool bounded = false;
  if (const auto at = schema.find("multipleOf"); at != schema.end()) {
    if (!at->is_number_integer() || *at < 1 || *at > most_multiple)
      fail("multipleOf", "is supported for whole numbers from 1 to " + std::to_string(most_multiple));
    multiple = at->get<std::int64_t>();
    bounded = whole = true;  // multiples of a whole number are whole
  }
  Range range;
  for (const char* key : {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}) {
    const auto at = schema.find(key);
    if (at == schema.end()) continue;
    bounded = true;
    if (!at->is_number()) fail(key, "must be a number");
    const bool exclusive = key[0] == 'e', is_low = std::string(key).ends_with("inimum");
    const auto value = at->get<double>();
    const double most = static_cast<double>(whole ? most_whole : most_bound);
    if (!whole && (value != std::floor(value) || std::abs(value) > most))
      fail(key, "of a number is supported where it is whole, and up to " + std::to_string(most_bound));
    // Whole numbers have no use for open bounds. Beyond what can be written, a bound is none, or leaves nothing.
    std::int64_t bound = 0;
    if (std::abs(value) > most) {
      if ((value > 0) == is_low) fail(key, "leaves no number of 16 digits");
      continue;
    } else if (at->is_number_integer()) {
      bound = at->get<std::int64_t>();
    } else {
      bound = static_cast<std::int64_t>(is_low ? std::ceil(value) : std::floor(value));
    }
    const bool open = exclusive && static_cast<double>(bound) == value;
    if (whole && open) bound += is_low ? 1 : -1;
    auto& side = is_low ? range.low : range.high;
    auto& open_side = is_low ? range.open_low : range.open_high;
    const bool tighter = is_low ? bound > side : bound < side;
    if (tighter || bound == side) open_side = (open && !whole) || (!tighter && open_side);
    side = is_low ? std::max(side, bound) : std::min(side, bound);
  }
  if (!bounded) return whole ? rules.integer() : rules.number();
  if (range.low > range.high || (range.low == range.high && (range.open_low || range.open_high)))
    unsupported(where + ": no number is in its bounds");
  return RangeBuilder(builder, whole, multiple).values(range);
}

}  // namespace troika::models
