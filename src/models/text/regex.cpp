// SPDX-License-Identifier: Apache-2.0
#include "regex.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "../json.hpp"
#include "unicode.hpp"

namespace troika::models {
namespace {

constexpr std::size_t max_pattern_bytes = 1 << 12, max_translated_bytes = 1 << 15;
// What an expression takes once it is compiled, and most of all while it is; and one match of it, beside four times the
// text. A few bytes of a pattern can ask for much more.
constexpr std::size_t max_compiled_bytes = std::size_t{512} << 10, max_match_bytes = std::size_t{256} << 10;
// Steps of one match. The known tokenizers take a handful; the limit is for expressions that backtrack without end.
constexpr std::uint32_t max_steps = 2'000'000;

// PCRE2's \s has U+180E, which lost the property White_Space in Unicode 6.3, and its \w has no marks;
// Oniguruma's \w has the superscripts and fractions of Latin-1, and no others.
constexpr std::string_view spaces = R"(\p{Z}\x{09}-\x{0d}\x{85})";
constexpr std::string_view words =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";

std::string translated(std::string_view pattern, const std::string& where) {
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (out.size() > max_translated_bytes)
      bad_file(where + ": the pattern " + in_quotes(pattern) + " has too many of \\s, \\S, \\w and \\W");
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char kind = pattern[++i];
      const bool positive = kind == 's' || kind == 'w';
      if (positive || ((kind == 'S' || kind == 'W') && !in_class)) {
        const auto set = kind == 's' || kind == 'S' ? spaces : words;
        if (in_class)
          out += set;
        else
          out += (positive ? "[" : "[^") + std::string(set) + "]";
      } else {
        out += c;
        out += kind;
      }
      continue;
    }
    if (in_class && c == '[' && pattern.substr(i).starts_with("[:")) {  // [:alpha:]
      const auto end = std::min(pattern.find(":]", i), pattern.size() - 2) + 2;
      out += pattern.substr(i, end - i);
      i = end - 1;
      continue;
    }
    out += c;
    if (!in_class && c == '[') {
      in_class = true;
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') out += pattern[++i];
    } else if (in_class && c == ']') {
      in_class = false;
    }
  }
  return out;
}

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
template <class T, auto Free>
using Owner = std::unique_ptr<T, Deleter<Free>>;

// Memory that PCRE2 may take, up to a limit: beyond it there is none.
class Budget {
 public:
  explicit Budget(std::size_t bytes) : left_(bytes), context_(pcre2_general_context_create(take, give, this)) {
    if (!context_) throw std::bad_alloc();
  }
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  pcre2_general_context* context() const { return context_.get(); }

 private:
  static constexpr std::size_t header = alignof(std::max_align_t);  // holds the size

  static void* take(std::size_t size, void* self) {
    auto& left = static_cast<Budget*>(self)->left_;
    if (size > left) return nullptr;
    auto* const p = static_cast<std::byte*>(std::malloc(header + size));
    if (p == nullptr) return nullptr;
    left -= size;
    std::memcpy(p, &size, sizeof size);
    return p + header;
  }
  static void give(void* data, void* self) {
    if (data == nullptr) return;
    auto* const p = static_cast<std::byte*>(data) - header;
    std::size_t size = 0;
    std::memcpy(&size, p, sizeof size);
    static_cast<Budget*>(self)->left_ += size;
    std::free(p);
  }

  std::size_t left_;
  Owner<pcre2_general_context, pcre2_general_context_free> context_;
};

std::string message_of(int number) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(number, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct Regex::Code {
  Budget budget{max_compiled_bytes};
  Owner<pcre2_code, pcre2_code_free> code;
};

Regex::Regex(const std::string& pattern, std::string where) : where_(std::move(where)) {
  if (pattern.empty() || pattern.size() > max_pattern_bytes) {
    bad_file(where_ + ": a pattern has 1 to " + std::to_string(max_pattern_bytes) + " bytes, not " +
             std::to_string(pattern.size()));
  }
  const auto text = translated(pattern, where_);
  auto code = std::make_shared<Code>();
  const Owner<pcre2_compile_context, pcre2_compile_context_free> context(
      pcre2_compile_context_create(code->budget.context()));
  if (!context) throw std::bad_alloc();
  int error = 0;
  std::size_t at = 0;
  code->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                 PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_UTF_CHECK, &error, &at,
                                 context.get()));
  if (!code->code) {
    bad_file(where_ + ": the pattern " + in_quotes(pattern) + " is not valid at byte " + std::to_string(at) + ": " +
             message_of(error));
  }
  // Where there is no JIT, or no memory for it, the interpreter runs the same code.
  pcre2_jit_compile(code->code.get(), PCRE2_JIT_COMPLETE);
  code_ = std::move(code);
}

Regex Regex::literal(std::string_view text, std::string where) {
  std::string pattern;
  for (const char c : text) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter && static_cast<unsigned char>(c) < 0x80) pattern += '\\';
    pattern += c;
  }
  return Regex(pattern, std::move(where));
}

std::vector<Match> Regex::find_all(std::string_view text) const {
  const auto* code = code_->code.get();
  const Budget budget(max_match_bytes + 4 * text.size());
  const Owner<pcre2_match_data, pcre2_match_data_free> data(
      pcre2_match_data_create_from_pattern(code, budget.context()));
  const Owner<pcre2_match_context, pcre2_match_context_free> context(pcre2_match_context_create(nullptr));
  if (!data || !context) throw std::bad_alloc();
  pcre2_set_match_limit(context.get(), max_steps);

  std::vector<Match> matches;
  std::size_t at = 0, last_end = unicode::npos;
  std::uint32_t options = PCRE2_NO_UTF_CHECK;
  while (at <= text.size()) {
    const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    int count = pcre2_match(code, subject, text.size(), at, options, data.get(), context.get());
    if (count == PCRE2_ERROR_JIT_STACKLIMIT) {
      options |= PCRE2_NO_JIT;
      count = pcre2_match(code, subject, text.size(), at, options, data.get(), context.get());
    }
    if (count == PCRE2_ERROR_NOMATCH) break;
    if (count < 0) bad_file(where_ + ": the pattern cannot be run on this text: " + message_of(count));
    const auto* offsets = pcre2_get_ovector_pointer(data.get());
    const Match match{offsets[0], offsets[1]};
    if (match.begin < at || match.end < match.begin) bad_file(where_ + ": the pattern matches backwards");
    if (match.begin == match.end) {
      // An empty match right behind another one is none; in any case the search goes on one character further.
      if (match.begin != last_end) matches.push_back(match);
      last_end = match.end;
      if (match.end >= text.size()) break;
      at = match.end;
      unicode::next(text, at);
    } else {
      matches.push_back(match);
      at = last_end = match.end;
    }
  }
  return matches;
}

}  // namespace troika::models
