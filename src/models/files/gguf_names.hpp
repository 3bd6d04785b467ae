// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include <troika/models/files/config.hpp>

namespace troika::models {

// What a tensor of a GGUF file is called by Hugging Face.
struct HuggingFaceName {
  std::string name;
  bool is_matrix = false;                   // a single row may be written as a vector
  enum { as_is, query, key } rows = as_is;  // q and k of Llama files: each head's halves are interleaved
};

// Names that no model has (rope_freqs.weight and the like) stay as they are.
HuggingFaceName hugging_face_name(std::string_view gguf_name, Architecture architecture);

// The way back; empty for names that no tensor of a model has.
std::string gguf_name(std::string_view hugging_face_name, Architecture architecture);

}  // namespace troika::models
