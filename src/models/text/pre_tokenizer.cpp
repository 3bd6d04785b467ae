// SPDX-License-Identifier: Apache-2.0
#include "pre_tokenizer.hpp"

#include <algorithm>

#include "normalizer.hpp"
#include "regex.hpp"
#include "unicode.hpp"

namespace troika::models {
namespace {

using unicode::CodePoint;

// What becomes of the text that a splitter matches.
enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

Behavior behavior_of(const Fields& component, const std::string& otherwise) {
  const auto name = component.string("behavior", otherwise);
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  component.fail("behavior", "is " + in_quotes(name) +
                                 "; valid are Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

// Cuts at the matches (or, inverted, at what lies between them).
void split(Piece piece, const std::vector<Match>& matches, Behavior behavior, bool invert, std::vector<Piece>& out) {
  struct Part {
    std::size_t begin, end;
    bool matched;
  };
  std::vector<Part> parts;
  std::size_t done = 0;
  for (const auto& match : matches) {
    if (done != match.begin) parts.push_back({done, match.begin, invert});
    parts.push_back({match.begin, match.end, !invert});
    done = match.end;
  }
  if (done != piece.text.size()) parts.push_back({done, piece.text.size(), invert});

  std::vector<Part> merged;
  bool previous = false;
  switch (behavior) {
    case Behavior::removed:
      for (const auto& part : parts) {
        if (!part.matched) merged.push_back(part);
      }
      break;
    case Behavior::isolated: merged = std::move(parts); break;
    case Behavior::contiguous:
      for (const auto& part : parts) {
        if (part.matched == previous && !merged.empty())
          merged.back().end = part.end;
        else
          merged.push_back(part);
        previous = part.matched;
      }
      break;
    case Behavior::merged_with_previous:
      for (const auto& part : parts) {
        if (part.matched && !previous && !merged.empty())
          merged.back().end = part.end;
        else
          merged.push_back(part);
        previous = part.matched;
      }
      break;
    case Behavior::merged_with_next:
      for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
        if (part->matched && !previous && !merged.empty())
          merged.back().begin = part->begin;
        else
          merged.push_back(*part);
        previous = part->matched;
      }
      std::ranges::reverse(merged);
  }
  if (merged.size() == 1 && merged[0].begin == 0 && merged[0].end == piece.text.size() && !piece.text.empty()) {
    out.push_back(std::move(piece));
    return;
  }
  for (const auto& part : merged) {
    if (part.begin < part.end)
      out.push_back({piece.text.substr(part.begin, part.end - part.begin), piece.at_start && part.begin == 0});
  }
}

// Each character for which `is` holds, as a match.
template <class Is>
std::vector<Match> characters(std::string_view text, Is is) {
  std::vector<Match> matches;
  for (std::size_t at = 0; at < text.size();) {
    const auto begin = at;
    if (is(unicode::next(text, at))) matches.push_back({begin, at});
  }
  return matches;
}

constexpr const char* gpt2_pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace

PreTokenizer::PreTokenizer(const Fields& component) { add(component); }

void PreTokenizer::add(const Fields& component) {
  const auto type = component.string("type");
  const auto step = [&](auto f) { steps_.emplace_back(std::move(f)); };
  const auto split_characters = [&](auto is, Behavior behavior) {
    step([is, behavior](Piece piece, std::vector<Piece>& out) {
      const auto matches = characters(piece.text, is);
      split(std::move(piece), matches, behavior, false, out);
    });
  };
  const auto split_pattern = [&](auto pattern, Behavior behavior, bool invert) {
    step([pattern = std::move(pattern), behavior, invert](Piece piece, std::vector<Piece>& out) {
      const auto matches = pattern.find_all(piece.text);
      split(std::move(piece), matches, behavior, invert, out);
    });
  };

  if (type == "Sequence") {
    for (const auto& item : component.array("pretokenizers")) add({item, component.where()});
  } else if (type == "ByteLevel") {
    if (component.boolean("add_prefix_space", true)) {
      step([](Piece piece, std::vector<Piece>& out) {
        if (!piece.text.starts_with(' ')) piece.text.insert(0, " ");
        out.push_back(std::move(piece));
      });
    }
    if (component.boolean("use_regex", true)) {
      split_pattern(Regex(gpt2_pattern, component.where()), Behavior::isolated, false);
    }
    step([](Piece piece, std::vector<Piece>& out) { out.push_back({to_byte_characters(piece.text), piece.at_start}); });
  } else if (type == "Split") {
    split_pattern(Pattern(component), behavior_of(component, "Isolated"), component.boolean("invert", false));
  } else if (type == "Metaspace") {
    const auto mark = component.string("replacement", "\xe2\x96\x81");
    if (unicode::count(mark) != 1) component.fail("replacement", "must be one character, not " + in_quotes(mark));
    auto scheme = component.string("prepend_scheme", "always");
    if (!component.boolean("add_prefix_space", true)) scheme = "never";
    if (scheme != "always" && scheme != "first" && scheme != "never") {
      component.fail("prepend_scheme", "is " + in_quotes(scheme) + "; valid are always, first, never");
    }
    const bool always = scheme == "always", first = scheme == "first", cut = component.boolean("split", true);
    step([mark, always, first, cut](Piece piece, std::vector<Piece>& out) {
      std::string text;
      for (const char c : piece.text) {
        if (c == ' ')
          text += mark;
        else
          text += c;
      }
      if ((always || (first && piece.at_start)) && !text.starts_with(mark)) text.insert(0, mark);
      piece.text = std::move(text);
      if (!cut) {
        out.push_back(std::move(piece));
        return;
      }
      std::vector<Match> matches;
      for (auto at = piece.text.find(mark); at != unicode::npos; at = piece.text.find(mark, at + mark.size())) {
        matches.push_back({at, at + mark.size()});
      }
      split(std::move(piece), matches, Behavior::merged_with_next, false, out);
    });
  } else if (type == "BertPreTokenizer") {
    split_characters(unicode::is_whitespace, Behavior::removed);
    split_characters(unicode::is_punctuation, Behavior::isolated);
  } else if (type == "Whitespace") {
    step([](Piece piece, std::vector<Piece>& out) {
      // Runs of word characters, and runs of what is neither that nor space.
      const auto kind_of = [](CodePoint c) { return unicode::is_word(c) ? 1 : unicode::is_whitespace(c) ? 0 : 2; };
      for (std::size_t at = 0, begin = 0; at < piece.text.size(); begin = at) {
        const int kind = kind_of(unicode::next(piece.text, at));
        for (std::size_t peek = at; peek < piece.text.size() && kind_of(unicode::next(piece.text, peek)) == kind;)
          at = peek;
        if (kind != 0) out.push_back({piece.text.substr(begin, at - begin), piece.at_start && begin == 0});
      }
    });
  } else if (type == "WhitespaceSplit") {
    split_characters(unicode::is_whitespace, Behavior::removed);
  } else if (type == "Digits") {
    split_characters(unicode::is_numeric,
                     component.boolean("individual_digits", false) ? Behavior::isolated : Behavior::contiguous);
  } else if (type == "Punctuation") {
    split_characters(unicode::is_punctuation, behavior_of(component, "Isolated"));
  } else {
    unsupported(component.where() + ": the pre-tokenizer " + in_quotes(type) +
                " is not supported; supported are Sequence, ByteLevel, Split, Metaspace, BertPreTokenizer, Whitespace, "
                "WhitespaceSplit, Digits, Punctuation");
  }
}

std::vector<Piece> PreTokenizer::operator()(Piece whole) const {
  // A chain of ByteLevel in a hostile file doubles what is not ASCII with each one, and a chain of Metaspace the pieces.
  // Of what files may mean, most is a mark before each digit, and those in byte characters: 7 bytes of one.
  constexpr std::size_t growth = 8, slack = 1024;
  const auto bytes_before = whole.text.size();
  std::vector<Piece> pieces, next;
  if (!whole.text.empty()) pieces.push_back(std::move(whole));
  for (const auto& step : steps_) {
    next.clear();
    std::size_t bytes = 0, seen = 0;
    for (auto& piece : pieces) {
      step(std::move(piece), next);
      for (; seen < next.size(); ++seen) bytes += next[seen].text.size();
      if (bytes > growth * bytes_before + slack || seen > bytes_before + slack) {
        bad_file("the pre-tokenizer makes a text more than " + std::to_string(growth) +
                 " times longer, or more pieces of it than it has bytes");
      }
    }
    pieces.swap(next);
  }
  return pieces;
}

}  // namespace troika::models
