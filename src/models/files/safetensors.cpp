// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/safetensors.hpp>

#include <algorithm>
#include <utility>

#include "../json.hpp"
#include "safetensors_header.hpp"

namespace troika::models {
namespace {

constexpr std::uint64_t max_header_bytes = 100'000'000;  // the limit of the reference implementation

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile opened;
  opened.file_ = MappedFile::open(path);
  const auto bytes = opened.file_.bytes();
  const std::string origin = path.string();
  if (bytes.size() < 8) {
    bad_file(origin + " has " + std::to_string(bytes.size()) +
             " bytes; a safetensors file begins with 8 bytes of header length");
  }
  std::uint64_t header_bytes = 0;
  for (std::size_t i = 0; i < 8; ++i) header_bytes |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  if (header_bytes == 0) bad_file(origin + ": the header length is 0");
  if (header_bytes > max_header_bytes) {
    bad_file(origin + ": the header length is " + std::to_string(header_bytes) + "; at most " +
             std::to_string(max_header_bytes) + " bytes are valid");
  }
  if (header_bytes > bytes.size() - 8) {
    bad_file(origin + ": the header length is " + std::to_string(header_bytes) + ", but only " +
             std::to_string(bytes.size() - 8) + " bytes follow; the file is truncated or lies");
  }
  opened.data_begin_ = 8 + static_cast<std::size_t>(header_bytes);
  const std::string_view json(reinterpret_cast<const char*>(bytes.data()) + 8, static_cast<std::size_t>(header_bytes));
  auto header = parse_safetensors_header(json, bytes.size() - opened.data_begin_, origin);
  opened.tensors_ = std::move(header.tensors);
  opened.metadata_ = std::move(header.metadata);
  return opened;
}

}  // namespace troika::models
