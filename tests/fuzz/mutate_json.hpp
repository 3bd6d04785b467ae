// SPDX-License-Identifier: Apache-2.0
// Mutations that keep JSON valid, so that inputs come past the parser: values are exchanged, lent from other inputs,
// dropped, made extreme. A fuzzer that includes this gets them beside those of libFuzzer, which most executions have.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "mutators.hpp"

namespace troika::fuzz {

// A value in a text, and its key where it has one: text[key, end) is `"key": value`.
struct Span {
  std::size_t key, begin, end;
};

// All values, in order of their beginnings. Text that is no JSON gives something, too.
inline std::vector<Span> spans_of(std::string_view text) {
  constexpr auto none = std::string_view::npos;
  std::vector<Span> spans;
  std::vector<std::size_t> open;
  std::size_t key = none;
  const auto add = [&](std::size_t begin, std::size_t end) {
    spans.push_back({key == none ? begin : key, begin, end});
    key = none;
  };
  for (std::size_t at = 0; at < text.size();) {
    const auto begin = at;
    const char c = text[at++];
    if (c == '"') {
      while (at < text.size() && text[at] != '"') at += text[at] == '\\' ? 2 : 1;
      at = std::min(at + 1, text.size());
      const auto next = text.find_first_not_of(" \n\r\t", at);
      if (next != none && text[next] == ':') {
        key = begin;
        at = next + 1;
      } else {
        add(begin, at);
      }
    } else if (c == '{' || c == '[') {
      open.push_back(spans.size());
      add(begin, text.size());
    } else if (c == '}' || c == ']') {
      if (open.empty()) continue;
      spans[open.back()].end = at;
      open.pop_back();
    } else if (c != ',' && c != ':' && c != ' ' && c != '\n' && c != '\r' && c != '\t') {
      at = std::min(text.find_first_of(",]}: \n\r\t", at), text.size());
      add(begin, at);
    }
  }
  return spans;
}

inline std::string changed(std::string_view value, Random& random) {
  constexpr std::string_view extremes[] = {"0",
                                           "1",
                                           "-1",
                                           "2",
                                           "63",
                                           "64",
                                           "255",
                                           "4096",
                                           "4097",
                                           "1e9",
                                           "65536",
                                           "16777217",
                                           "2147483648",
                                           "4611686018427387904",
                                           "18446744073709551615",
                                           "0.5",
                                           "-0.0",
                                           "1e300",
                                           "1e-300",
                                           "2048.0",
                                           "null",
                                           "true",
                                           "false",
                                           "\"\"",
                                           "\"a\"",
                                           "\" \"",
                                           "\"a b\"",
                                           "\"\\u2581\"",
                                           "\"\\ud83d\\ude00\"",
                                           "[]",
                                           "{}",
                                           "[[]]"};
  const auto digits = value.substr(value.starts_with('-') ? 1 : 0);
  const bool integer = !digits.empty() && digits.size() < 18 && digits.find_first_not_of("0123456789") == digits.npos;
  if (integer && random() % 2 == 0) {
    const auto number = std::stoll(std::string(value));
    const std::int64_t near[] = {number + 1, number - 1, number * 2, number / 2, -number};
    return std::to_string(near[below(random, std::size(near))]);
  }
  if (value.size() >= 2 && value[0] == '"' && random() % 4 != 0)
    return '"' + mutated_bytes(value.substr(1, value.size() - 2)) + '"';
  return std::string(extremes[below(random, std::size(extremes))]);
}

// `text` with one change, for which `lender` may lend a part.
inline std::string mutated_json(std::string_view text, std::string_view lender, Random& random) {
  const auto spans = spans_of(text), lent = spans_of(lender);
  if (spans.empty() || lent.empty()) return std::string(text);
  const auto at = spans[below(random, spans.size())], from = lent[below(random, lent.size())];
  const auto value = text.substr(at.begin, at.end - at.begin), part = lender.substr(from.begin, from.end - from.begin);
  const auto with = [&](std::size_t begin, std::size_t end, std::string_view instead) {
    return std::string(text.substr(0, begin)).append(instead).append(text.substr(end));
  };
  switch (random() % 8) {
    case 0:
    case 1: return with(at.begin, at.end, changed(value, random));
    case 2: return with(at.begin, at.end, part);
    case 3:  // one more, with its key where others have one
      return with(at.key, at.key,
                  std::string(lender.substr(at.key == at.begin ? from.begin : from.key,
                                            from.end - (at.key == at.begin ? from.begin : from.key))) +
                      ",");
    case 4: {  // one fewer
      if (const auto next = text.find_first_not_of(" \n\r\t", at.end); next != text.npos && text[next] == ',')
        return with(at.key, next + 1, {});
      const auto before = text.substr(0, at.key).find_last_not_of(" \n\r\t");
      return with(before != text.npos && text[before] == ',' ? before : at.key, at.end, {});
    }
    case 5: return with(at.begin, at.end, '[' + std::string(value) + ']');
    case 6:  // the value of the same field of the other
      for (const auto& span : lent) {
        if (lender.substr(span.key, span.begin - span.key) != text.substr(at.key, at.begin - at.key)) continue;
        return with(at.begin, at.end, lender.substr(span.begin, span.end - span.begin));
      }
      return with(at.begin, at.end, part);
    default: {  // another name
      const auto end = text.substr(0, at.begin).rfind('"');
      if (at.key == at.begin || end == text.npos || end <= at.key) return with(at.begin, at.end, part);
      return with(at.key + 1, end, mutated_bytes(text.substr(at.key + 1, end - at.key - 1)));
    }
  }
}

// An input that has JSON in it, and bytes around that.
struct Framed {
  std::string before;
  std::string_view json;
  std::string_view after{};
};
// Each fuzzer says how its inputs are made, and may make whole again what a mutation left inconsistent.
Framed framed(std::string_view input);
void mend(std::string& json, std::string& before, Random& random);

inline std::size_t mutated_input(std::string_view input, std::string_view lender, std::uint8_t* out,
                                 std::size_t max_size, Random& random) {
  auto parts = framed(input);
  auto json = mutated_json(parts.json, framed(lender).json, random);
  mend(json, parts.before, random);
  const auto result = parts.before + json + std::string(parts.after);
  if (result.size() > max_size) return 0;
  std::memcpy(out, result.data(), result.size());
  return result.size();
}

}  // namespace troika::fuzz
