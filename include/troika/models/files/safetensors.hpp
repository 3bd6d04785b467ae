// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include <troika/models/files/tensor_file.hpp>

namespace troika::models {

// One file in the format of huggingface/safetensors, mapped and checked: after open() every tensor lies inside of the
// file, and shape, type and range of each agree. Const members may be called from any number of threads at once.
class SafetensorsFile : public TensorFile {
 public:
  // Error{bad_file} names file, tensor and what is wrong; Error{unsupported} a type or shape that troika does not know.
  static SafetensorsFile open(const std::filesystem::path& path);

  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  std::map<std::string, std::string> metadata_;
};

}  // namespace troika::models
