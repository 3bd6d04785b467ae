// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <troika/models/files/config.hpp>

#include "../files/gguf_writer.hpp"

namespace troika::models {

// Writes the tokenizer of a folder (tokenizer.json, and the chat template where there is one) as the metadata of a GGUF
// file, padded to the `rows` that the embedding has. Returns what GGUF files cannot say of it. Error{unsupported} for a
// tokenizer that they have no name for.
std::vector<std::string> write_vocabulary(GgufWriter& writer, const std::filesystem::path& folder,
                                          const ModelConfig& config, std::int64_t rows);

}  // namespace troika::models
