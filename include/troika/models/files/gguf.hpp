// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <vector>

#include <troika/models/files/gguf_metadata.hpp>
#include <troika/models/files/tensor_file.hpp>

namespace troika::models {

// One file in the format of ggml-org/ggml, version 2 or 3, little endian, mapped and checked: after open() every tensor
// lies inside of the file, and shape, type and range of each agree. Names and shapes are those of the file, the shape
// with the row last. Takes at most four times the size of the header, and 1 MiB. Const members may be called from any
// number of threads at once.
class GgufFile : public TensorFile {
 public:
  // Error{bad_file} names file, key or tensor, byte and what is wrong; Error{unsupported} a version, byte order or
  // type.
  static GgufFile open(const std::filesystem::path& path);

  int version() const { return version_; }
  const GgufMetadata& metadata() const { return metadata_; }

 private:
  int version_ = 0;
  GgufMetadata metadata_;
};

// All parts of a model in order: the file alone, or where it says that it is one of several (NAME-00001-of-00003.gguf),
// those beside it. `path` names any part; the metadata of a model are in the first. Error{bad_file} when parts do not
// belong together.
std::vector<GgufFile> open_gguf_parts(const std::filesystem::path& path);

// Whether a path names a GGUF file rather than the folder of a model: it is a file, or ends in ".gguf".
bool is_gguf_path(const std::filesystem::path& path);

}  // namespace troika::models
