// SPDX-License-Identifier: Apache-2.0
// A config.json of any bytes is read, or refused with an Error; what is read keeps its promises.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include <troika/core/error.hpp>
#include <troika/models/files/config.hpp>

#include "bounded.hpp"
#include "mutate_json.hpp"

namespace {

using namespace troika;
using namespace troika::models;

void read_config(std::string_view json) {
  try {
    const auto config = ModelConfig::parse(json);
    const bool sound = config.hidden_size > 0 && config.layers > 0 && config.heads > 0 && config.kv_heads > 0 &&
                       config.heads % config.kv_heads == 0 && config.head_dim > 0 && config.vocab_size > 0 &&
                       config.intermediate_size > 0 && config.norm_eps >= 0 && config.rope_theta > 0;
    if (!sound) std::abort();
    for (std::int64_t layer = 0; layer < config.layers; ++layer) {
      if (config.attention_window(layer) < 0) std::abort();
    }
  } catch (const Error&) {
  }
}

}  // namespace

namespace troika::fuzz {
Framed framed(std::string_view input) { return {{}, input}; }
void mend(std::string&, std::string&, Random&) {}
}  // namespace troika::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::bounded(size, [&] { read_config({reinterpret_cast<const char*>(data), size}); });
}
