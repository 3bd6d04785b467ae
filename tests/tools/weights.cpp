// SPDX-License-Identifier: Apache-2.0
// What the Python oracles of safetensors and GGUF talk to.
//
//   tool_weights FOLDER|FILE.gguf
//
// Prints a line for each tensor, sorted by name, tab-separated: name, type, shape, CRC-32 of its bytes as
// read by rows, of its bytes as read by columns (matrices), and of its values as f32 (floating types). "-" where there
// is none.

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <troika/models/files/weights.hpp>

namespace {

std::string crc32(std::span<const std::byte> bytes) {
  std::uint32_t crc = ~0u;
  for (const auto byte : bytes) {
    crc ^= std::to_integer<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) != 0 ? 0xedb88320u : 0u);
  }
  return std::to_string(~crc);
}

// Every part of a tensor, cut into three along one dimension and put together again.
std::vector<std::byte> by_rows(const troika::models::Weights& weights, const troika::models::TensorInfo& tensor) {
  std::vector<std::byte> all(tensor.size_bytes());
  const auto parts = troika::Partition::even(tensor.shape[0], 3);
  const auto row = tensor.size_bytes() / static_cast<std::size_t>(std::max<std::int64_t>(1, tensor.shape[0]));
  for (const auto& range : parts.ranges()) {
    weights.copy_rows(tensor.name, range,
                      std::span(all).subspan(static_cast<std::size_t>(range.begin) * row,
                                             static_cast<std::size_t>(range.size()) * row));
  }
  return all;
}

std::vector<std::byte> by_columns(const troika::models::Weights& weights, const troika::models::TensorInfo& tensor) {
  const auto block = tensor.type ? troika::layout_of(*tensor.type).block : 1;
  const auto rows = static_cast<std::size_t>(tensor.shape[0]),
             blocks = static_cast<std::size_t>(tensor.shape[1] / block);
  const auto row = tensor.size_bytes() / std::max<std::size_t>(1, rows), size = row / std::max<std::size_t>(1, blocks);
  std::vector<std::byte> all(tensor.size_bytes());
  const auto parts = troika::Partition::even(tensor.shape[1], 3, block);
  for (const auto& range : parts.ranges()) {
    const auto begin = static_cast<std::size_t>(range.begin / block) * size;
    const auto width = static_cast<std::size_t>(range.size() / block) * size;
    std::vector<std::byte> part(rows * width);
    weights.copy_columns(tensor.name, range, part);
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t i = 0; i < width; ++i) all[r * row + begin + i] = part[r * width + i];
    }
  }
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: tool_weights FOLDER|FILE.gguf\n";
    return 2;
  }
  try {
    const auto weights = troika::models::Weights::open(argv[1]);
    const std::set<std::string> integers{"I32", "I8", "U8"};
    for (const auto& name : weights.names()) {
      const auto& tensor = weights.info(name);
      std::string rows = "-", columns = "-", values = "-";
      if (tensor.type || integers.contains(tensor.dtype_name)) {
        rows = crc32(tensor.shape.dims() >= 1
                         ? by_rows(weights, tensor)
                         : std::vector<std::byte>(weights.bytes(name).begin(), weights.bytes(name).end()));
        if (tensor.shape.dims() == 2) columns = crc32(by_columns(weights, tensor));
        if (tensor.type) {
          std::vector<float> floats(static_cast<std::size_t>(tensor.shape.count()));
          weights.read<float>(name, floats);
          values = crc32(std::as_bytes(std::span(floats)));
        }
      }
      std::cout << name << '\t' << tensor.dtype_name << '\t' << tensor.shape.to_string() << '\t' << rows << '\t'
                << columns << '\t' << values << '\n';
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
