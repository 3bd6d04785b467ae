// SPDX-License-Identifier: Apache-2.0
// A safetensors file of any bytes is read, or refused with an Error; whatever it lists can be read.
// The input is a byte n and the rest: with n = 255 the rest is the file, else the header of a file with n bytes of
// data.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include <troika/core/error.hpp>
#include <troika/models/files/safetensors.hpp>

#include "bounded.hpp"
#include "file_in_memory.hpp"
#include "models/files/safetensors_header.hpp"
#include "mutate_json.hpp"

namespace {

using namespace troika;
using namespace troika::models;

constexpr unsigned whole_file = 255;

void read_file(const std::string& path, std::size_t size) {
  const auto file = SafetensorsFile::open(path);
  std::uint64_t total = 0;
  for (const auto& tensor : file.tensors()) {
    total += tensor.size_bytes();
    if (file.find(tensor.name) != &tensor) std::abort();
    if (!tensor.type) continue;
    if (file.bytes(tensor).size() != static_cast<std::size_t>(tensor.shape.count()) * layout_of(*tensor.type).bytes)
      std::abort();
    fuzz::Buffer<std::byte> copy(tensor.size_bytes());
    if (tensor.shape.dims() >= 1) file.copy_rows(tensor, {0, tensor.shape[0]}, copy);
    if (tensor.shape.dims() == 2) file.copy_columns(tensor, {0, tensor.shape[1]}, copy);
  }
  if (total > size) std::abort();
}

void read_input(unsigned data_bytes, std::string_view rest) {
  fuzz::Buffer<char> whole(data_bytes == whole_file ? rest.size() : 8 + rest.size() + data_bytes);
  char* at = whole.data();
  if (data_bytes != whole_file) {
    // Most headers are refused: without a file, which takes longer than they do.
    parse_safetensors_header(rest, data_bytes, "header");
    const std::uint64_t size = rest.size();
    at = std::copy_n(reinterpret_cast<const char*>(&size), 8, at);
    std::fill_n(at + size, data_bytes, 'x');
  }
  std::ranges::copy(rest, at);
  read_file(fuzz::file_of(std::as_bytes(std::span(whole.data(), whole.size()))), whole.size());
}

// For each tensor the range that its shape and type ask for, one after the other; returns the end of the last.
std::uint64_t lay_out(nlohmann::json& header) {
  std::uint64_t end = 0;
  for (auto& [name, tensor] : header.items()) {
    if (!tensor.is_object() || !tensor.contains("shape") || !tensor.contains("dtype")) continue;
    const auto type = tensor["dtype"].dump();
    const auto digit = type.find_first_of("123456789");
    auto bytes = digit == std::string::npos ? 8 : std::strtoull(type.c_str() + digit, nullptr, 10);
    for (const auto& extent : tensor["shape"]) bytes *= extent.is_number_integer() ? extent.get<std::uint64_t>() : 1;
    bytes /= 8;
    tensor["data_offsets"] = {end, end + bytes};
    end += bytes;
  }
  return end;
}

}  // namespace

namespace troika::fuzz {
Framed framed(std::string_view input) {
  const auto n = input.substr(0, 1);
  return {std::string(n), input.substr(n.size())};
}
void mend(std::string& json, std::string& before, Random& random) {
  if (random() % 2 == 0) return;
  auto header = nlohmann::json::parse(json, nullptr, false);
  if (!header.is_object()) return;
  const auto bytes = lay_out(header);
  if (bytes < whole_file) before = static_cast<char>(bytes);
  json = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::ignore);
}
}  // namespace troika::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  return fuzz::bounded(size, [&] {
    try {
      read_input(data[0], {reinterpret_cast<const char*>(data) + 1, size - 1});
    } catch (const Error&) {
    }
  });
}
