// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/mapped_file.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <troika/core/error.hpp>

namespace troika::models {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& why) {
  throw Error(Fault::bad_file, "cannot read " + path.string() + ": " + why);
}

std::string reason(int number) { return std::generic_category().message(number); }

}  // namespace

MappedFile MappedFile::open(const std::filesystem::path& path) {
  MappedFile mapped;
  mapped.path_ = path;
  // O_NONBLOCK: opening a named pipe must not wait for a writer.
  mapped.descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (mapped.descriptor_ < 0) fail(path, reason(errno));
  struct stat status {};
  if (::fstat(mapped.descriptor_, &status) != 0) fail(path, reason(errno));
  if (S_ISDIR(status.st_mode)) fail(path, "it is a folder, not a file");
  if (!S_ISREG(status.st_mode)) fail(path, "it is not a regular file");

  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0) return mapped;
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, mapped.descriptor_, 0);
  if (data == MAP_FAILED) fail(path, reason(errno));
  mapped.data_ = static_cast<const std::byte*>(data);
  mapped.size_ = size;
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  if (descriptor_ >= 0) ::close(descriptor_);
}

void MappedFile::check_size() const {
  struct stat status {};
  if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0) return;
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size < size_) {
    fail(path_, "it had " + std::to_string(size_) + " bytes when it was opened and has " + std::to_string(size) +
                    " now; leave it alone while it is read");
  }
}

void MappedFile::release(std::span<const std::byte> part) const noexcept {
  if (part.empty() || data_ == nullptr) return;
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  // Linux maps more than the page that is read: 64 KiB around it, or the whole folio that it cached, 2 MiB at most.
  // That would add up over many tensors, at both ends of each rank's part.
  constexpr std::uintptr_t around = std::uintptr_t{2} << 20;
  const auto begin = reinterpret_cast<std::uintptr_t>(part.data()), end = begin + part.size();
  const auto file_begin = reinterpret_cast<std::uintptr_t>(data_), file_end = file_begin + size_;
  const auto first = (begin - std::min(around, begin - file_begin)) / page * page;
  const auto last = (end + std::min(around, file_end - end) + page - 1) / page * page;
  ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace troika::models
