// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include <troika/models/files/config.hpp>
#include <troika/models/files/gguf.hpp>

namespace troika::models {

// Of all parts of a model, as open_gguf_parts gives them.
ModelConfig gguf_config(const std::vector<GgufFile>& parts);

}  // namespace troika::models
