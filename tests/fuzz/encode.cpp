// SPDX-License-Identifier: Apache-2.0
// Any bytes as text, for tokenizers of each kind: encoded, or refused as not UTF-8. Byte-level ones give the text back.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include <troika/core/error.hpp>
#include <troika/models/text/stream_decoder.hpp>
#include <troika/models/text/tokenizer.hpp>

#include "../models_text/small_tokenizers.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace troika;
  using namespace troika::models;
  static const Tokenizer tokenizers[] = {Tokenizer::parse(test::byte_level()), Tokenizer::parse(test::sentence_piece()),
                                         Tokenizer::parse(test::word_piece())};
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const auto& tokenizer : tokenizers) {
    try {
      const auto ids = tokenizer.encode(text, false);
      const auto decoded = tokenizer.decode(ids, false);
      if (&tokenizer == &tokenizers[0] && decoded != text) std::abort();
      StreamDecoder stream(tokenizer, false);
      std::string streamed;
      for (const auto id : ids) streamed += stream.add(id);
      streamed += stream.finish();
      if (&tokenizer != &tokenizers[1] && streamed != decoded) std::abort();
    } catch (const Error& error) {
      if (error.fault() != Fault::invalid_argument) std::abort();
    }
  }
  // And any ids.
  try {
    StreamDecoder stream(tokenizers[size % 3]);
    for (std::size_t i = 0; i < size; ++i) stream.add(data[i]);
    stream.finish();
  } catch (const Error&) {
  }
  return 0;
}
