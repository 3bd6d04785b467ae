// SPDX-License-Identifier: Apache-2.0
#include "rope_config.hpp"

#include <cmath>

namespace troika::models {
namespace {

constexpr std::int64_t max_positions = std::int64_t{1} << 30;
constexpr double least_theta = 1e-3, most_theta = 1e15;

std::vector<float> divisors_of(const Fields& rope, const char* key, std::int64_t rotary_dim) {
  std::vector<float> divisors;
  for (const auto& value : rope.array(key)) {
    const double divisor = value.is_number() ? value.get<double>() : 0;
    if (!(divisor >= 1e-6 && divisor <= 1e9))
      rope.fail(key, "has the element " + shown(value) + "; valid are numbers above 0");
    divisors.push_back(static_cast<float>(divisor));
  }
  if (std::ssize(divisors) != rotary_dim / 2) {
    rope.fail(key, "has " + std::to_string(divisors.size()) + " elements; " + std::to_string(rotary_dim) +
                       " features that are rotated ask for " + std::to_string(rotary_dim / 2));
  }
  return divisors;
}

Llama3RopeScaling llama3_of(const Fields& rope) {
  Llama3RopeScaling scaling;
  scaling.factor = rope.number("factor", 1, 1e6);
  scaling.low_freq_factor = rope.number("low_freq_factor", 1e-6, 1e6);
  scaling.high_freq_factor = rope.number("high_freq_factor", 1e-6, 1e6);
  scaling.original_max_position_embeddings = rope.integer("original_max_position_embeddings", 1, max_positions);
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    rope.fail("high_freq_factor", "must be greater than low_freq_factor");
  }
  return scaling;
}

// `config` has original_max_position_embeddings in older files.
LongRopeScaling long_rope_of(const Fields& rope, const Fields& config, const ModelConfig& model) {
  LongRopeScaling scaling;
  scaling.short_divisors = divisors_of(rope, "short_factor", model.rotary_dim);
  scaling.long_divisors = divisors_of(rope, "long_factor", model.rotary_dim);
  const auto otherwise =
      config.integer("original_max_position_embeddings", 2, max_positions, model.max_position_embeddings);
  const auto original = rope.integer("original_max_position_embeddings", 2, max_positions, otherwise);
  scaling.original_max_position_embeddings = original;
  const auto ratio = static_cast<double>(model.max_position_embeddings) / static_cast<double>(original);
  const double factor = rope.number("factor", 1e-6, 1e6, ratio);
  const double usual = factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(original)));
  scaling.magnitude = rope.number("attention_factor", 1e-6, 1e6, usual);
  return scaling;
}

void read_scaling(const Fields& rope, const Fields& config, ModelConfig& model) {
  model.rope_theta = rope.number("rope_theta", least_theta, most_theta, model.rope_theta);
  const auto type = rope.string("rope_type", rope.string("type", "default"));
  if (type == "llama3") {
    model.rope_scaling = llama3_of(rope);
  } else if (type == "linear") {
    model.rope_factor = rope.number("factor", 1e-6, 1e6);
  } else if (type == "longrope" || type == "su") {
    model.long_rope = long_rope_of(rope, config, model);
  } else if (type != "default") {
    unsupported(rope.where() + ": the rope type " + in_quotes(type) +
                " is not supported; supported are default, linear, llama3, longrope");
  }
}

// {"full_attention": {...}, "sliding_attention": {...}} of transformers 5.
void read_by_layer_type(const Fields& rope, const Fields& config, ModelConfig& model) {
  for (const auto& [name, value] : config.get("rope_parameters").items()) {
    if (name != "full_attention" && name != "sliding_attention") {
      unsupported(rope.where() + " has the layer type " + in_quotes(name) +
                  ", which is not supported; supported are full_attention, sliding_attention");
    }
  }
  if (rope.has("full_attention")) read_scaling(rope.object("full_attention"), config, model);
  if (!rope.has("sliding_attention")) return;
  const Fields local = rope.object("sliding_attention");
  if (const auto type = local.string("rope_type", "default"); type != "default") {
    unsupported(local.where() + ": the rope type " + in_quotes(type) + " is not supported; supported is default");
  }
  model.local_rope_theta = local.number("rope_theta", least_theta, most_theta, model.local_rope_theta.value_or(10000));
}

// The first features of a head that are rotated, an even number of them.
std::int64_t rotary_dim_of(const Fields& config, const ModelConfig& model) {
  double part = config.number("partial_rotary_factor", 0, 1, 1);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (config.has(key)) part = config.object(key).number("partial_rotary_factor", 0, 1, part);
  }
  if (part == 1) {
    if (model.head_dim % 2 != 0) {
      config.fail("head_dim", "is " + std::to_string(model.head_dim) + "; rotary embedding needs an even one");
    }
    return model.head_dim;
  }
  if (model.architecture != Architecture::phi3) {
    unsupported(config.where() + ": a partial_rotary_factor other than 1 is supported of phi3 only");
  }
  const auto dim = static_cast<std::int64_t>(static_cast<double>(model.head_dim) * part + 1e-9);
  if (dim < 2 || dim % 2 != 0) {
    config.fail("partial_rotary_factor",
                "rotates " + std::to_string(dim) + " features of a head; valid are even numbers above 0");
  }
  return dim;
}

}  // namespace

// rope_scaling of older files, rope_parameters of transformers 5; the latter carries rope_theta too.
void read_rope(const Fields& config, double default_theta, ModelConfig& model) {
  const bool gemma3 = model.architecture == Architecture::gemma3_text;
  model.rope_theta = config.number("rope_theta", least_theta, most_theta, default_theta);
  if (gemma3) model.local_rope_theta = config.number("rope_local_base_freq", least_theta, most_theta, 10000);
  model.rotary_dim = rotary_dim_of(config, model);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!config.has(key)) continue;
    const Fields rope = config.object(key);
    bool by_layer_type = false;
    for (const auto& [name, value] : config.get(key).items()) {
      if (!value.is_object()) continue;
      by_layer_type = gemma3 && key == std::string_view("rope_parameters");
      if (!by_layer_type) {
        unsupported(rope.where() + " differs by layer type (" + in_quotes(name) +
                    "), which is supported of gemma3_text only");
      }
    }
    if (by_layer_type)
      read_by_layer_type(rope, config, model);
    else
      read_scaling(rope, config, model);
  }
}

}  // namespace troika::models
