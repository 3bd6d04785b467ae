// SPDX-License-Identifier: Apache-2.0
// What the Python oracle of the tokenizers talks to.
//
//   tool_tokenize FOLDER
//
// Reads one request a line and answers each with one line; texts are in hex on both sides:
//   E text   ids with special tokens      P text   ids without
//   D ids    text, special tokens left out    A ids    text with them    S ids    like D, token by token
// An error is answered by "! message".

#include <cstdint>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include <troika/models/text/stream_decoder.hpp>
#include <troika/models/text/tokenizer.hpp>

namespace {

std::string to_hex(const std::string& text) {
  constexpr char digits[] = "0123456789abcdef";
  std::string hex;
  for (const char c : text) {
    hex += digits[static_cast<unsigned char>(c) >> 4];
    hex += digits[static_cast<unsigned char>(c) & 15];
  }
  return hex;
}

std::string from_hex(const std::string& hex) {
  std::string text;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    text += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return text;
}

std::string answer(const troika::models::Tokenizer& tokenizer, const std::string& line) {
  const char kind = line.empty() ? ' ' : line[0];
  const std::string rest = line.size() > 2 ? line.substr(2) : "";
  if (kind == 'E' || kind == 'P') {
    std::string out;
    for (const auto id : tokenizer.encode(from_hex(rest), kind == 'E'))
      out += (out.empty() ? "" : " ") + std::to_string(id);
    return out;
  }
  std::vector<std::int32_t> ids;
  std::istringstream in(rest);
  for (std::int32_t id = 0; in >> id;) ids.push_back(id);
  if (kind == 'D' || kind == 'A') return to_hex(tokenizer.decode(ids, kind == 'D'));
  if (kind == 'S') {
    troika::models::StreamDecoder stream(tokenizer);
    std::string text;
    for (const auto id : ids) text += stream.add(id);
    return to_hex(text + stream.finish());
  }
  return "! unknown request";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: tool_tokenize FOLDER\n";
    return 2;
  }
  try {
    const auto tokenizer = troika::models::Tokenizer::load(argv[1]);
    for (std::string line; std::getline(std::cin, line);) {
      try {
        std::cout << answer(tokenizer, line) << '\n';
      } catch (const std::exception& error) {
        std::cout << "! " << error.what() << '\n';
      }
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
