// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json of any bytes is read, or refused with an Error; what is read encodes and decodes without harm.
// The input is the file, optionally followed by a byte 0 and a text to encode.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include <troika/core/error.hpp>
#include <troika/models/text/stream_decoder.hpp>
#include <troika/models/text/tokenizer.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace troika;
  using namespace troika::models;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto end = std::min(input.find('\0'), input.size());
  const std::string_view text = end < input.size() ? input.substr(end + 1) : "a <s> Zoë 12\n天😀 ab";
  try {
    const auto tokenizer = Tokenizer::parse(input.substr(0, end));
    const auto ids = tokenizer.encode(text.substr(0, 4096));
    for (const auto id : ids) {
      if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
    }
    tokenizer.decode(ids);
    StreamDecoder stream(tokenizer);
    for (const auto id : ids) stream.add(id);
    stream.finish();
  } catch (const Error&) {
  }
  return 0;
}
