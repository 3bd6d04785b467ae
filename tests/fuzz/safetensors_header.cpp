// SPDX-License-Identifier: Apache-2.0
// A safetensors file of any bytes is read, or refused with an Error; whatever it lists can be read.
// The input is a byte n and the rest: with n = 255 the rest is the file, else the header of a file with n bytes of
// data.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include <troika/core/error.hpp>
#include <troika/models/files/safetensors.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace troika;
  using namespace troika::models;
  static const int fd = ::memfd_create("fuzz", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(fd);
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] != 255) {
    const std::uint64_t header = bytes.size();
    bytes = std::string(reinterpret_cast<const char*>(&header), 8) + bytes + std::string(data[0], 'x');
  }
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    std::abort();
  try {
    const auto file = SafetensorsFile::open(path);
    std::uint64_t total = 0;
    for (const auto& tensor : file.tensors()) {
      total += tensor.size_bytes();
      if (file.find(tensor.name) != &tensor) std::abort();
      if (!tensor.type) continue;
      if (file.bytes(tensor).size() != static_cast<std::size_t>(tensor.shape.count()) * layout_of(*tensor.type).bytes)
        std::abort();
      std::vector<std::byte> copy(tensor.size_bytes());
      if (tensor.shape.dims() >= 1) file.copy_rows(tensor, {0, tensor.shape[0]}, copy);
      if (tensor.shape.dims() == 2) file.copy_columns(tensor, {0, tensor.shape[1]}, copy);
    }
    if (total > bytes.size()) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
