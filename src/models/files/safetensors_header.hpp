// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <troika/models/files/safetensors.hpp>

namespace troika::models {

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // sorted by name
  std::map<std::string, std::string> metadata;
};

// The element that a type of the format is read as; empty for those that troika has none for.
std::optional<DType> safetensors_dtype(std::string_view name);

// Reads the JSON of a header and checks it against the number of bytes that follow it: every byte belongs to exactly one
// tensor, and each range is as long as shape and type say. `origin` names the file in messages.
SafetensorsHeader parse_safetensors_header(std::string_view json, std::uint64_t data_bytes, const std::string& origin);

}  // namespace troika::models
