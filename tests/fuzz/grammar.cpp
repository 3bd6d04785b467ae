// SPDX-License-Identifier: Apache-2.0
// A JSON schema of any bytes becomes a grammar, or is refused with an Error; a walk through the grammar never gets
// stuck, and what it accepts is JSON that is valid under the schema. The input is the schema, a byte 0, and bytes that
// choose the way.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include <support/schema_validator.hpp>

#include <troika/core/error.hpp>
#include <troika/models/grammar/grammar.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace troika::models;
  using Json = nlohmann::json;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto end = std::min(input.find('\0'), input.size());
  const auto schema = input.substr(0, end), choices = input.substr(std::min(end + 1, input.size()));
  try {
    const auto grammar = Grammar::of_schema(schema);
    GrammarState state(grammar);
    std::string text;
    for (std::size_t i = 0; i < 256 && !state.complete(); ++i) {
      if (state.positions().size() > 256) std::abort();
      const auto wish =
          i < choices.size() ? static_cast<unsigned char>(choices[i]) : static_cast<unsigned char>("\"}]0,:e"[i % 7]);
      // The wish, or the next byte that may come.
      bool moved = false;
      for (unsigned byte = 0; byte < 256 && !moved; ++byte) {
        const char c = static_cast<char>((wish + byte) % 256);
        moved = state.advance({&c, 1});
        if (moved) text += c;
      }
      if (!moved) std::abort();  // a dead end
      if (!state.accepts()) continue;
      if (!Json::accept(text)) std::abort();
      // std::regex takes other patterns, and time without bound for some.
      const bool patterns = schema.find("pattern") != std::string_view::npos;
      if (!patterns && !troika::test::SchemaValidator(Json::parse(schema))(Json::parse(text))) std::abort();
    }
  } catch (const troika::Error&) {
  }
  return 0;
}
