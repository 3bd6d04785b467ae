// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include <troika/models/files/config.hpp>
#include <troika/models/files/gguf.hpp>

namespace troika::models {

// Of all parts of a model, as open_gguf_parts gives them.
ModelConfig gguf_config(const std::vector<GgufFile>& parts);

// What GGUF files call an architecture.
std::string_view gguf_architecture(Architecture architecture);

// What files of Gemma leave out. The scale of the scores: 1 / sqrt of this, the width of a head but for the models of
// 27B.
std::int64_t gguf_query_scalar(Architecture architecture, std::int64_t layers, std::int64_t hidden, std::int64_t heads,
                               std::int64_t head_dim);
// Every so manyth layer sees all, where the file does not say another number.
constexpr std::int64_t gguf_window_period(Architecture architecture) {
  return architecture == Architecture::gemma2 ? 2 : 6;
}

}  // namespace troika::models
