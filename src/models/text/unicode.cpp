// SPDX-License-Identifier: Apache-2.0
#include "unicode.hpp"

#include <cstdlib>
#include <memory>
#include <new>

#include <utf8proc.h>

#include <troika/core/error.hpp>

namespace troika::models::unicode {
namespace {

// Length of the character at the front of `bytes`, or 0 when there is no valid one.
std::size_t character(std::string_view bytes, CodePoint& c) {
  const auto lead = static_cast<unsigned char>(bytes.front());
  if (lead < 0x80) {
    c = lead;
    return 1;
  }
  utf8proc_int32_t value = -1;
  const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(bytes.data()),
                                       static_cast<utf8proc_ssize_t>(bytes.size()), &value);
  if (length <= 0) return 0;
  c = static_cast<CodePoint>(value);
  return static_cast<std::size_t>(length);
}

utf8proc_category_t category(CodePoint c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

// How many bytes at the front could have begun a valid character, at least 1 (the "maximal subpart" of Unicode 3.9).
std::size_t broken_length(std::string_view bytes) {
  const auto at = [&](std::size_t i) { return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0u; };
  const unsigned lead = at(0);
  unsigned low = 0x80, high = 0xbf;
  std::size_t length = 0;
  if (lead >= 0xc2 && lead <= 0xdf)
    length = 2;
  else if (lead >= 0xe0 && lead <= 0xef)
    length = 3;
  else if (lead >= 0xf0 && lead <= 0xf4)
    length = 4;
  else
    return 1;
  if (lead == 0xe0) low = 0xa0;
  if (lead == 0xed) high = 0x9f;
  if (lead == 0xf0) low = 0x90;
  if (lead == 0xf4) high = 0x8f;
  std::size_t good = 1;
  while (good < length && at(good) >= low && at(good) <= high) {
    ++good;
    low = 0x80, high = 0xbf;
  }
  return good;
}

}  // namespace

std::size_t find_invalid(std::string_view bytes) {
  CodePoint c = 0;
  for (std::size_t at = 0; at < bytes.size();) {
    const auto length = character(bytes.substr(at), c);
    if (length == 0) return at;
    at += length;
  }
  return npos;
}

CodePoint next(std::string_view text, std::size_t& at) {
  CodePoint c = 0xfffd;
  const auto length = character(text.substr(at), c);
  at += length == 0 ? 1 : length;
  return c;
}

std::size_t count(std::string_view text) {
  std::size_t total = 0;
  for (const char c : text) total += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return total;
}

void append(std::string& text, CodePoint c) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length));
}

std::string to_valid(std::string_view bytes) {
  if (find_invalid(bytes) == npos) return std::string(bytes);
  std::string text;
  CodePoint c = 0;
  for (std::size_t at = 0; at < bytes.size();) {
    if (const auto length = character(bytes.substr(at), c); length != 0) {
      text += bytes.substr(at, length);
      at += length;
    } else {
      text += "\xef\xbf\xbd";
      at += broken_length(bytes.substr(at));
    }
  }
  return text;
}

bool is_whitespace(CodePoint c) {
  return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_control(CodePoint c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CS: return true;
    default: return false;
  }
}

bool is_numeric(CodePoint c) {
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(CodePoint c) {
  if (c < 0x80) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO;
}

bool is_mark(CodePoint c) {
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_MN && kind <= UTF8PROC_CATEGORY_ME;
}

bool is_nonspacing_mark(CodePoint c) { return category(c) == UTF8PROC_CATEGORY_MN; }

bool is_word(CodePoint c) {
  const auto kind = category(c);
  return (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_NL) || kind == UTF8PROC_CATEGORY_PC ||
         c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
         (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
}

std::string normalize(std::string_view text, Form form) {
  int options = UTF8PROC_STABLE;
  options |= form == Form::nfc || form == Form::nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == Form::nfkc || form == Form::nfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* raw = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &raw, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(raw, &std::free);
  if (length == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
  if (length < 0)
    throw Error(Fault::invalid_argument, std::string("cannot normalize text: ") + utf8proc_errmsg(length));
  return {reinterpret_cast<const char*>(raw), static_cast<std::size_t>(length)};
}

std::string to_lower(std::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto c = next(text, at);
    if (c == 0x130)
      lower += "i\xcc\x87";  // the only character whose lower case is two
    else
      append(lower, static_cast<CodePoint>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  }
  return lower;
}

std::string_view strip(std::string_view text, bool left, bool right) {
  if (left) {
    for (std::size_t at = 0; !text.empty(); at = 0) {
      if (!is_whitespace(next(text, at))) break;
      text.remove_prefix(at);
    }
  }
  while (right && !text.empty()) {
    std::size_t last = text.size() - 1;
    while (last > 0 && (static_cast<unsigned char>(text[last]) & 0xc0) == 0x80) --last;
    std::size_t at = last;
    if (!is_whitespace(next(text, at))) break;
    text.remove_suffix(text.size() - last);
  }
  return text;
}

}  // namespace troika::models::unicode
