// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/gguf.hpp>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <system_error>

#include "../json.hpp"
#include "gguf_header.hpp"

namespace troika::models {

GgufFile GgufFile::open(const std::filesystem::path& path) {
  GgufFile opened;
  opened.file_ = MappedFile::open(path);
  GgufHeader header(opened.file_.bytes(), path.string());
  opened.version_ = header.version;
  opened.data_begin_ = header.data_begin;
  opened.metadata_ = std::move(header.metadata);
  opened.tensors_ = std::move(header.tensors);
  return opened;
}

namespace {

std::string part_suffix(std::int64_t number, std::int64_t count) {
  char text[64];
  std::snprintf(text, sizeof text, "-%05lld-of-%05lld.gguf", static_cast<long long>(number + 1),
                static_cast<long long>(count));
  return text;
}

void check_part(const GgufFile& file, std::int64_t number, std::int64_t count) {
  const auto& metadata = file.metadata();
  if (const auto said = metadata.integer("split.count", 0, 65535); said != count) {
    metadata.fail("split.count", "is " + std::to_string(said) + "; the other parts have " + std::to_string(count));
  }
  if (const auto said = metadata.integer("split.no", 0, 65535); said != number) {
    metadata.fail("split.no",
                  "is " + std::to_string(said) + "; by its name the file is part " + std::to_string(number));
  }
}

}  // namespace

std::vector<GgufFile> open_gguf_parts(const std::filesystem::path& path) {
  std::vector<GgufFile> parts;
  parts.push_back(GgufFile::open(path));
  const auto& metadata = parts[0].metadata();
  const auto count = metadata.integer("split.count", 0, 65535, 0);
  if (count <= 1) return parts;

  const auto number = metadata.integer("split.no", 0, count - 1);
  const auto name = path.filename().string(), suffix = part_suffix(number, count);
  if (!name.ends_with(suffix)) {
    metadata.fail("split.no", "is " + std::to_string(number) + " and split.count " + std::to_string(count) +
                                  ": the name of such a part ends in " + suffix + ", so that the others can be found");
  }
  const auto stem = name.substr(0, name.size() - suffix.size());
  parts.clear();
  std::uint64_t tensors = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    parts.push_back(GgufFile::open(path.parent_path() / (stem + part_suffix(i, count))));
    check_part(parts.back(), i, count);
    tensors += parts.back().tensors().size();
  }
  const auto& first = parts[0].metadata();
  const auto stated = first.integer("split.tensors.count", 0, std::numeric_limits<std::int64_t>::max(),
                                    static_cast<std::int64_t>(tensors));
  if (static_cast<std::uint64_t>(stated) != tensors) {
    first.fail("split.tensors.count",
               "is " + std::to_string(stated) + ", but the parts have " + std::to_string(tensors) + " tensors");
  }
  return parts;
}

bool is_gguf_path(const std::filesystem::path& path) {
  std::error_code ignored;
  return path.extension() == ".gguf" ? !std::filesystem::is_directory(path, ignored)
                                     : std::filesystem::is_regular_file(path, ignored);
}

}  // namespace troika::models
