// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <troika/models/files/safetensors.hpp>

namespace troika::models {

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // sorted by name
  std::map<std::string, std::string> metadata;
};

// Reads the JSON of a header and checks it against the number of bytes that follow it: every byte belongs to exactly
// one tensor, and each range is as long as shape and type say. `origin` names the file in messages.
SafetensorsHeader parse_safetensors_header(std::string_view json, std::uint64_t data_bytes, const std::string& origin);

}  // namespace troika::models
