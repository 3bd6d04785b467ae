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

#include "bounded.hpp"
#include "mutate_json.hpp"

namespace {

using namespace troika;
using namespace troika::models;

void use_tokenizer(std::string_view json, std::string_view text) {
  try {
    const auto tokenizer = Tokenizer::parse(json);
    const auto ids = tokenizer.encode(text);
    for (const auto id : ids) {
      if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
    }
    tokenizer.decode(ids);
    StreamDecoder stream(tokenizer);
    for (const auto id : ids) stream.add(id);
    stream.finish();
  } catch (const Error&) {
  }
}

}  // namespace

namespace troika::fuzz {
Framed framed(std::string_view input) {
  const auto json = input.substr(0, input.find('\0'));
  return {{}, json, input.substr(json.size())};
}
void mend(std::string&, std::string&, Random&) {}
}  // namespace troika::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto input = fuzz::framed({reinterpret_cast<const char*>(data), size});
  // Short: what a text may grow to is bounded by its length, and fuzz_encode has the long ones.
  const std::string_view text = input.after.empty() ? "a <s> Zoë 12\n天😀 ab" : input.after.substr(1, 256);
  return fuzz::bounded(size, [&] { use_tokenizer(input.json, text); });
}
