// SPDX-License-Identifier: Apache-2.0
#include "decoder.hpp"

#include <optional>

#include "normalizer.hpp"
#include "unicode.hpp"

namespace troika::models {
namespace {

using Tokens = std::vector<std::string>;

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

std::string joined(const Tokens& tokens) {
  std::string text;
  for (const auto& token : tokens) text += token;
  return text;
}

std::string spelled_bytes(const std::string& token) {
  std::string bytes;
  for (std::size_t at = 0; at < token.size();) {
    const int byte = byte_of_character(unicode::next(token, at));
    if (byte < 0) return token;  // not spelled in byte characters: an added token
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

void byte_level(Tokens& tokens) {
  std::string bytes;
  for (const auto& token : tokens) bytes += spelled_bytes(token);
  tokens.assign(1, unicode::to_valid(bytes));
}

// The byte of a token <0x00> to <0xFF>.
std::optional<unsigned> byte_of_token(const std::string& token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  unsigned byte = 0;
  for (const char c : {token[3], token[4]}) {
    if (c >= '0' && c <= '9')
      byte = byte * 16 + static_cast<unsigned>(c - '0');
    else if (c >= 'A' && c <= 'F')
      byte = byte * 16 + static_cast<unsigned>(c - 'A' + 10);
    else if (c >= 'a' && c <= 'f')
      byte = byte * 16 + static_cast<unsigned>(c - 'a' + 10);
    else
      return std::nullopt;
  }
  return byte;
}

void byte_fallback(Tokens& tokens) {
  Tokens out;
  std::string run;
  const auto flush = [&] {
    if (run.empty()) return;
    if (unicode::find_invalid(run) == unicode::npos) {
      out.push_back(run);
    } else {
      for (std::size_t i = 0; i < run.size(); ++i) out.emplace_back("\xef\xbf\xbd");  // one for each byte
    }
    run.clear();
  };
  for (auto& token : tokens) {
    if (const auto byte = byte_of_token(token)) {
      run += static_cast<char>(*byte);
    } else {
      flush();
      out.push_back(std::move(token));
    }
  }
  flush();
  tokens = std::move(out);
}

void word_piece(Tokens& tokens, const std::string& prefix, bool cleanup) {
  constexpr std::pair<std::string_view, std::string_view> rules[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    auto& token = tokens[i];
    if (i != 0) {
      if (token.starts_with(prefix))
        token.erase(0, prefix.size());
      else
        token.insert(0, " ");
    }
    if (cleanup) {
      for (const auto& [from, to] : rules) replace_all(token, from, to);
    }
  }
}

void strip(Tokens& tokens, const std::string& content, std::size_t start, std::size_t stop) {
  for (auto& token : tokens) {
    std::size_t begin = 0, end = token.size();
    for (std::size_t i = 0; i < start && token.compare(begin, content.size(), content) == 0; ++i)
      begin += content.size();
    for (std::size_t i = 0; i < stop && end >= begin + content.size(); ++i) {
      if (token.compare(end - content.size(), content.size(), content) != 0) break;
      end -= content.size();
    }
    token = token.substr(begin, end - begin);
  }
}

}  // namespace

Decoder::Decoder(const Fields& component) { add(component); }

void Decoder::add(const Fields& component) {
  const auto type = component.string("type");
  const auto step = [&](auto f) { steps_.emplace_back(std::move(f)); };
  if (type == "Sequence") {
    for (const auto& item : component.array("decoders")) add({item, component.where()});
  } else if (type == "ByteLevel") {
    step(byte_level);
    byte_level_ = true;
  } else if (type == "ByteFallback") {
    step(byte_fallback);
    byte_fallback_ = true;
  } else if (type == "Fuse") {
    step([](Tokens& tokens) { tokens.assign(1, joined(tokens)); });
  } else if (type == "Replace") {
    step([pattern = Pattern(component), content = component.string("content")](Tokens& tokens) {
      for (auto& token : tokens) token = pattern.replace_all(token, content);
    });
  } else if (type == "Strip") {
    const auto content = component.string("content", " ");
    if (unicode::count(content) != 1) component.fail("content", "must be one character, not " + in_quotes(content));
    const auto start = static_cast<std::size_t>(component.integer("start", 0, 1 << 20, 0));
    const auto stop = static_cast<std::size_t>(component.integer("stop", 0, 1 << 20, 0));
    step([content, start, stop](Tokens& tokens) { strip(tokens, content, start, stop); });
  } else if (type == "Metaspace") {
    const auto mark = component.string("replacement", "\xe2\x96\x81");
    if (unicode::count(mark) != 1) component.fail("replacement", "must be one character, not " + in_quotes(mark));
    const bool prepended =
        component.boolean("add_prefix_space", true) && component.string("prepend_scheme", "always") != "never";
    step([mark, prepended](Tokens& tokens) {
      for (std::size_t i = 0; i < tokens.size(); ++i) replace_all(tokens[i], mark, i == 0 && prepended ? "" : " ");
    });
  } else if (type == "WordPiece") {
    step([prefix = component.string("prefix", "##"), cleanup = component.boolean("cleanup", true)](Tokens& tokens) {
      word_piece(tokens, prefix, cleanup);
    });
  } else if (type == "BPEDecoder") {
    step([suffix = component.string("suffix", "</w>")](Tokens& tokens) {
      if (suffix.empty()) return;
      for (std::size_t i = 0; i < tokens.size(); ++i) replace_all(tokens[i], suffix, i + 1 == tokens.size() ? "" : " ");
    });
  } else {
    unsupported(component.where() + ": the decoder " + in_quotes(type) +
                " is not supported; supported are Sequence, ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace, "
                "WordPiece, "
                "BPEDecoder");
  }
}

std::string Decoder::operator()(std::vector<std::string> tokens) const {
  if (steps_.empty()) {
    std::string text;
    for (const auto& token : tokens) text += (text.empty() ? "" : " ") + token;
    return text;
  }
  const auto bytes = [&] {
    std::size_t total = 0;
    for (const auto& token : tokens) total += token.size();
    return total;
  };
  const auto limit = longest_result(bytes());
  for (const auto& step : steps_) {
    step(tokens);
    if (bytes() > limit) bad_file("the decoder makes a text more than " + std::to_string(max_growth) + " times longer");
  }
  return joined(tokens);
}

std::string Decoder::bytes_of(const std::string& token) const {
  if (byte_level_) return spelled_bytes(token);
  if (const auto byte = byte_of_token(token); byte && byte_fallback_) return {static_cast<char>(*byte)};
  // Between two others, so that nothing is done to it that is done to the beginning or the end of a text.
  const std::string edge = "a";
  const auto text = (*this)({edge, token, edge});
  return text.size() > 2 ? text.substr(1, text.size() - 2) : std::string();
}

}  // namespace troika::models
