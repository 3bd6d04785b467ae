// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace troika::models {

// A whole file, mapped read-only. Moves only; any number of threads may read it at once.
// Others should not shorten the file while it is mapped: the operating system answers a read past its end with SIGBUS.
// Who reads much asks check_size() now and then, which turns all but the last moments of that into an error.
class MappedFile {
 public:
  MappedFile() = default;
  // Error{bad_file} names the path and the operating system's reason. Only regular files are accepted; empty ones are.
  static MappedFile open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::filesystem::path& path() const { return path_; }
  std::size_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

  // Error{bad_file} with both sizes where the file has become shorter than it was.
  void check_size() const;

  // Gives the pages of `part` (a piece of bytes()), and those that the operating system mapped around it, back to it.
  // They stay readable, from the file again, for whoever still reads them; only resident memory falls.
  void release(std::span<const std::byte> part) const noexcept;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  int descriptor_ = -1;
};

}  // namespace troika::models
