// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <troika/models/files/config.hpp>

#include "../json.hpp"

namespace troika::models {

// The rotary positions of a config.json: rope_theta, rope_scaling, rope_parameters and their relatives. head_dim and
// max_position_embeddings are read before.
void read_rope(const Fields& config, double default_theta, ModelConfig& model);

}  // namespace troika::models
