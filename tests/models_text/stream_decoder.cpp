// SPDX-License-Identifier: Apache-2.0
#include <troika/models/text/stream_decoder.hpp>

#include <random>
#include <string>
#include <vector>

#include <support/catch.hpp>

#include "small_tokenizers.hpp"

using namespace troika::models;
using namespace troika::test;

namespace {

bool is_whole(const std::string& text) {
  // Every lead byte is followed by as many continuation bytes as it announces.
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 99;
    if (i + length > text.size()) return false;
    for (std::size_t k = 1; k < length; ++k) {
      if ((static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80) return false;
    }
    i += length;
  }
  return true;
}

}  // namespace

TEST_CASE("Streamed pieces are whole characters and add up to the decoded text") {
  for (const auto& json : {byte_level(), sentence_piece(), word_piece()}) {
    const auto tokenizer = Tokenizer::parse(json);
    for (const std::string text :
         {"hello 😀 天地 naïve", "ab ba  ab", "unhappily happi ! 天", "👩‍👩‍👧‍👦🇩🇪é", "", " "}) {
      const auto ids = tokenizer.encode(text);
      StreamDecoder stream(tokenizer);
      std::string sum;
      for (const auto id : ids) {
        const auto piece = stream.add(id);
        CHECK(is_whole(piece));
        sum += piece;
      }
      sum += stream.finish();
      CHECK(sum == tokenizer.decode(ids));
    }
  }
}

TEST_CASE("A piece is shown as soon as its character is complete") {
  const auto tokenizer = Tokenizer::parse(byte_level());
  StreamDecoder stream(tokenizer);
  const auto ids = tokenizer.encode("x😀y", false);
  REQUIRE(ids.size() == 6);
  CHECK(stream.add(ids[0]) == "x");
  for (int i = 1; i < 4; ++i) CHECK(stream.add(ids[static_cast<std::size_t>(i)]).empty());
  CHECK(stream.add(ids[4]) == "😀");
  CHECK(stream.add(ids[5]) == "y");
  CHECK(stream.finish().empty());
}

TEST_CASE("Bytes that are no text come out as replacement characters, in time that does not grow") {
  const auto tokenizer = Tokenizer::parse(byte_level());
  StreamDecoder stream(tokenizer);
  std::string sum;
  for (int i = 0; i < 20000; ++i) sum += stream.add(0xff);
  sum += stream.finish();
  CHECK(sum.size() == 3 * 20000);

  std::mt19937 random(3);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 60; ++i) ids.push_back(static_cast<std::int32_t>(random() % 260));
    StreamDecoder broken(tokenizer);
    std::string text;
    for (const auto id : ids) text += broken.add(id);
    text += broken.finish();
    CHECK(is_whole(text));
    CHECK(text == tokenizer.decode(ids));
  }
}

TEST_CASE("Special tokens leave no trace in the stream, and an unknown id does not stay in it") {
  const auto tokenizer = Tokenizer::parse(sentence_piece());
  StreamDecoder stream(tokenizer);
  CHECK(stream.add(*tokenizer.id_of("<s>")).empty());
  CHECK(stream.add(*tokenizer.id_of("▁ab")) == "ab");
  CHECK_THROWS(stream.add(100000));
  CHECK_THROWS(stream.add(-1));
  CHECK(stream.add(*tokenizer.id_of("</s>")).empty());
  CHECK(stream.add(*tokenizer.id_of("▁ab")) == " ab");
  CHECK(stream.finish().empty());
}
