// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

// UTF-8 and the Unicode properties that tokenizers ask for. Strings are valid UTF-8 unless said otherwise.
namespace troika::models::unicode {

using CodePoint = std::uint32_t;

inline constexpr std::size_t npos = std::string_view::npos;

// Offset of the first byte that is not part of a valid character, or npos.
std::size_t find_invalid(std::string_view bytes);

// The character at `at`, which moves past it.
CodePoint next(std::string_view text, std::size_t& at);
std::size_t count(std::string_view text);
void append(std::string& text, CodePoint c);

// Any bytes as UTF-8: each longest piece that begins a character but does not complete it is one U+FFFD.
std::string to_valid(std::string_view bytes);

bool is_whitespace(CodePoint c);       // the property White_Space
bool is_control(CodePoint c);          // categories Cc, Cf, Co: not the unassigned ones
bool is_numeric(CodePoint c);          // N*
bool is_punctuation(CodePoint c);      // P* and the ASCII symbols
bool is_mark(CodePoint c);             // M*
bool is_nonspacing_mark(CodePoint c);  // Mn
bool is_word(CodePoint c);             // letters, marks, digits, connectors, joiners, letters in circles

enum class Form { nfc, nfd, nfkc, nfkd };
std::string normalize(std::string_view text, Form form);
std::string to_lower(std::string_view text);  // character by character, without context
std::string_view strip(std::string_view text, bool left, bool right);

}  // namespace troika::models::unicode
