// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <troika/core/shape.hpp>
#include <troika/core/weight_type.hpp>

namespace troika::models {

// What the header of a safetensors or GGUF file says of one tensor. `type` is empty where the elements are not those of
// a weight: integers, and types that troika does not know (F64, F8_E4M3, IQ2_XS, ...). Such a tensor is listed, and
// reading it as a weight is an Error{unsupported}.
struct TensorInfo {
  std::string name;
  std::string dtype_name;  // as the file spells it, e.g. "BF16"
  std::optional<WeightType> type;
  Shape shape;                       // () is a scalar; the last extent is that of a row, whatever order the file has
  std::uint64_t begin = 0, end = 0;  // bytes, counted from the end of the header

  std::uint64_t size_bytes() const { return end - begin; }
};

}  // namespace troika::models
