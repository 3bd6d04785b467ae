// SPDX-License-Identifier: Apache-2.0
#include "normalizer.hpp"

#include <array>

#include "regex.hpp"
#include "unicode.hpp"

namespace troika::models {
namespace {

using unicode::CodePoint;

template <class Keep>
std::string filtered(std::string_view text, Keep keep) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto begin = at;
    if (keep(unicode::next(text, at))) out += text.substr(begin, at - begin);
  }
  return out;
}

// The characters that BERT takes for Chinese, and so for words of their own.
bool is_chinese(CodePoint c) {
  constexpr std::pair<CodePoint, CodePoint> blocks[] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df},
                                                        {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf},
                                                        {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};
  for (const auto& [first, last] : blocks) {
    if (c >= first && c <= last) return true;
  }
  return false;
}

std::string bert_clean(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto begin = at;
    const auto c = unicode::next(text, at);
    // Of the controls, only these three are spaces: U+000B, U+0085 and the like vanish, though they are White_Space.
    const bool control = c != '\t' && c != '\n' && c != '\r' && unicode::is_control(c);
    if (c == 0 || c == 0xfffd || control) continue;
    if (unicode::is_whitespace(c))
      out += ' ';
    else
      out += text.substr(begin, at - begin);
  }
  return out;
}

std::string space_chinese(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto begin = at;
    const bool chinese = is_chinese(unicode::next(text, at));
    if (chinese) out += ' ';
    out += text.substr(begin, at - begin);
    if (chinese) out += ' ';
  }
  return out;
}

std::string remove_nonspacing_marks(std::string_view text) {
  return filtered(unicode::normalize(text, unicode::Form::nfd),
                  [](CodePoint c) { return !unicode::is_nonspacing_mark(c); });
}

struct ByteCharacters {
  std::array<std::string, 256> characters;
  std::array<std::int16_t, 0x200> bytes;
};

const ByteCharacters& byte_characters() {
  static const ByteCharacters table = [] {
    ByteCharacters t;
    t.bytes.fill(-1);
    CodePoint other = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
      const CodePoint c = printable ? byte : other++;
      unicode::append(t.characters[byte], c);
      t.bytes[c] = static_cast<std::int16_t>(byte);
    }
    return t;
  }();
  return table;
}

}  // namespace

const std::string& character_of_byte(unsigned char byte) { return byte_characters().characters[byte]; }
int byte_of_character(std::uint32_t c) { return c < 0x200 ? byte_characters().bytes[c] : -1; }

std::string to_byte_characters(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char byte : bytes) out += character_of_byte(static_cast<unsigned char>(byte));
  return out;
}

Pattern::Pattern(const Fields& owner, const char* key) : where_(owner.where()) {
  const Fields pattern = owner.object(key);
  if (pattern.has("String")) {
    literal_ = pattern.string("String");
    if (literal_.empty()) pattern.fail("String", "must not be empty");
  } else if (pattern.has("Regex")) {
    regex_ = std::make_shared<const Regex>(pattern.string("Regex"), where_);
  } else {
    bad_file(pattern.where() + " must be {\"String\": ...} or {\"Regex\": ...}");
  }
}

std::vector<Match> Pattern::find_all(std::string_view text) const {
  if (regex_) return regex_->find_all(text);
  std::vector<Match> matches;
  for (auto at = text.find(literal_); at != unicode::npos; at = text.find(literal_, at + literal_.size())) {
    matches.push_back({at, at + literal_.size()});
  }
  return matches;
}

std::string Pattern::replace_all(const std::string& text, std::string_view content) const {
  const std::size_t limit = longest_result(text.size());
  std::string out;
  std::size_t done = 0;
  for (const auto& match : find_all(text)) {
    out.append(text, done, match.begin - done);
    out += content;
    done = match.end;
    if (out.size() > limit)
      bad_file(where_ + " makes a text more than " + std::to_string(max_growth) + " times longer");
  }
  out.append(text, done);
  return out;
}

Normalizer::Normalizer(const Fields& component) { add(component); }

void Normalizer::add(const Fields& component) {
  const auto type = component.string("type");
  const auto step = [&](auto f) { steps_.emplace_back(std::move(f)); };
  if (type == "Sequence") {
    for (const auto& item : component.array("normalizers")) add({item, component.where()});
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    const auto form = type == "NFC"    ? unicode::Form::nfc
                      : type == "NFD"  ? unicode::Form::nfd
                      : type == "NFKC" ? unicode::Form::nfkc
                                       : unicode::Form::nfkd;
    step([form](const std::string& text) { return unicode::normalize(text, form); });
  } else if (type == "Lowercase") {
    step([](const std::string& text) { return unicode::to_lower(text); });
  } else if (type == "StripAccents") {
    step([](const std::string& text) { return filtered(text, [](CodePoint c) { return !unicode::is_mark(c); }); });
  } else if (type == "Strip") {
    const bool left = component.boolean("strip_left", true), right = component.boolean("strip_right", true);
    step([left, right](const std::string& text) { return std::string(unicode::strip(text, left, right)); });
  } else if (type == "Prepend") {
    step([prefix = component.string("prepend")](std::string text) { return text.empty() ? text : prefix + text; });
  } else if (type == "Replace") {
    step([pattern = Pattern(component), content = component.string("content")](const std::string& text) {
      return pattern.replace_all(text, content);
    });
  } else if (type == "ByteLevel") {
    step([](const std::string& text) { return to_byte_characters(text); });
  } else if (type == "BertNormalizer") {
    const bool lowercase = component.boolean("lowercase", true);
    if (component.boolean("clean_text", true)) step([](const std::string& text) { return bert_clean(text); });
    if (component.boolean("handle_chinese_chars", true))
      step([](const std::string& text) { return space_chinese(text); });
    if (component.boolean("strip_accents", lowercase)) {
      step([](const std::string& text) { return remove_nonspacing_marks(text); });
    }
    if (lowercase) step([](const std::string& text) { return unicode::to_lower(text); });
  } else {
    unsupported(
        component.where() + ": the normalizer " + in_quotes(type) +
        " is not supported; supported are Sequence, NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Prepend, "
        "Replace, ByteLevel, BertNormalizer");
  }
}

std::string Normalizer::operator()(std::string text) const {
  const std::size_t limit = longest_result(text.size());
  for (const auto& step : steps_) {
    text = step(std::move(text));
    if (text.size() > limit)
      bad_file("the normalizer makes a text more than " + std::to_string(max_growth) + " times longer");
  }
  return text;
}

}  // namespace troika::models
