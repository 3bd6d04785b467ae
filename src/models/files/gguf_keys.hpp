// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <troika/models/files/config.hpp>

#include "gguf_writer.hpp"

namespace troika::models {

// Whether a GGUF file can say what this configuration says. Error{unsupported} names what it cannot, and what it can.
// `origin` stands for the folder in messages.
void check_gguf_can_say(const ModelConfig& config, const std::string& origin);

// The keys of the model itself: its architecture and sizes, and how it computes. `vocab_size`: rows of the embedding.
// Returns what GGUF files have no key for, a sentence each.
std::vector<std::string> write_model_keys(GgufWriter& writer, const ModelConfig& config, std::int64_t vocab_size);

// What positions that are stretched divide each rotary frequency by: GGUF files have tensors of it.
struct RopeTensor {
  std::string name;
  std::vector<float> divisors;  // (rotary_dim / 2)
};
std::vector<RopeTensor> rope_tensors(const ModelConfig& config);

}  // namespace troika::models
