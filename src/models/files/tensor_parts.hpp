// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <troika/core/shape.hpp>
#include <troika/models/files/config.hpp>

namespace troika::models {

// Files hold some matrices one below the other in one tensor: q, k and v as qkv, gate and up as gate_up, the experts of
// a layer. troika reads each under a name of its own, as Llama files have them.
struct TensorPart {
  std::string name;
  Shape shape;             // (out, in), or (out) of a bias
  std::int64_t begin = 0;  // the row of the tensor, its experts taken as one matrix, at which the part begins
};

// The parts of a tensor that holds several; empty for all others. `shape` has the rows first. Error{bad_file} names
// `origin` and the shape that the configuration asks for.
std::vector<TensorPart> parts_of(std::string_view name, const Shape& shape, const ModelConfig& config,
                                 const std::string& origin);

// The way back: the tensor of a GGUF file that has this matrix among others, one below the other, and which of `count`
// it is there; its own name, 0 and 1 where it stands alone.
struct PartOf {
  std::string whole;
  std::int64_t place = 0, count = 1;
};
PartOf part_of(std::string_view name, const ModelConfig& config);

// How troika calls a tensor of a Hugging Face folder: GPT-2's, Nomic's and those of a Gemma 3 that
// sees pictures have names of their own.
struct FolderName {
  std::string name;
  bool transposed = false;  // the file has (in, out)
};
FolderName folder_name(std::string_view name, Architecture architecture);
// Whether a folder with a tensor of this name has names or parts that the two functions above are for.
bool is_folder_name(std::string_view name);

}  // namespace troika::models
