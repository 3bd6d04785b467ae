// SPDX-License-Identifier: Apache-2.0
#include "gguf_writer.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "../json.hpp"

namespace troika::models {
namespace {

static_assert(std::endian::native == std::endian::little,
              "GGUF files are little endian, and written as numbers lie here");

constexpr std::uint64_t alignment = 32;
constexpr std::uint32_t type_u32 = 4, type_i32 = 5, type_f32 = 6, type_bool = 7, type_string = 8, type_array = 9;
constexpr std::size_t buffer_bytes = std::size_t{1} << 20;

template <class T>
void append(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void append_text(std::string& to, std::string_view text) {
  append(to, std::uint64_t{text.size()});
  to += text;
}

// The number that GGML gives a type.
std::uint32_t number_of(WeightType type) {
  constexpr std::uint32_t numbers[] = {0, 1, 30, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 39};
  return numbers[static_cast<std::size_t>(type)];
}

std::uint64_t aligned(std::uint64_t size) { return (size + alignment - 1) / alignment * alignment; }

}  // namespace

GgufWriter::GgufWriter(std::filesystem::path path, bool replace) : path_(std::move(path)), replace_(replace) {
  check_free();
  temporary_ = path_.string() + ".partial-" + std::to_string(::getpid());
  file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file_ < 0) {
    temporary_.clear();
    fail("cannot be written");
  }
}

GgufWriter::~GgufWriter() {
  if (file_ >= 0) ::close(file_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void GgufWriter::fail(const std::string& what) const {
  bad_file(path_.string() + " " + what + ": " + std::strerror(errno));
}

void GgufWriter::check_free() const {
  struct stat info;
  if (::lstat(path_.c_str(), &info) != 0) return;
  if (S_ISDIR(info.st_mode)) bad_file(path_.string() + " is a folder; a GGUF file was to be written there");
  if (!replace_) bad_file(path_.string() + " is there already, and nothing said that it may be replaced");
}

void GgufWriter::key(std::string_view key, std::uint32_t type) {
  append_text(keys_, key);
  append(keys_, type);
  ++key_count_;
}
void GgufWriter::string(std::string_view name, std::string_view value) {
  key(name, type_string), append_text(keys_, value);
}
void GgufWriter::u32(std::string_view name, std::int64_t value) {
  key(name, type_u32), append(keys_, static_cast<std::uint32_t>(value));
}
void GgufWriter::f32(std::string_view name, double value) {
  key(name, type_f32), append(keys_, static_cast<float>(value));
}
void GgufWriter::boolean(std::string_view name, bool value) {
  key(name, type_bool), append(keys_, static_cast<char>(value));
}
void GgufWriter::strings(std::string_view name, std::span<const std::string> values) {
  key(name, type_array), append(keys_, type_string), append(keys_, std::uint64_t{values.size()});
  for (const auto& value : values) append_text(keys_, value);
}
void GgufWriter::i32s(std::string_view name, std::span<const std::int32_t> values) {
  key(name, type_array), append(keys_, type_i32), append(keys_, std::uint64_t{values.size()});
  for (const auto value : values) append(keys_, value);
}
void GgufWriter::f32s(std::string_view name, std::span<const float> values) {
  key(name, type_array), append(keys_, type_f32), append(keys_, std::uint64_t{values.size()});
  for (const auto value : values) append(keys_, value);
}

void GgufWriter::tensor(std::string_view name, const Shape& shape, WeightType type) {
  append_text(tensors_, name);
  append(tensors_, static_cast<std::uint32_t>(shape.dims()));
  for (int d = shape.dims(); d-- > 0;) append(tensors_, static_cast<std::uint64_t>(shape[d]));
  append(tensors_, number_of(type));
  append(tensors_, data_size_);
  const std::int64_t row = shape[shape.dims() - 1];
  sizes_.push_back(static_cast<std::uint64_t>(shape.outer(shape.dims() - 1)) * row_bytes(type, row));
  data_size_ += aligned(sizes_.back());
}

void GgufWriter::begin_data() {
  begun_ = true;
  std::string header = "GGUF";
  append(header, std::uint32_t{3});
  append(header, std::uint64_t{sizes_.size()});
  append(header, key_count_);
  for (const auto* part : {&header, &keys_, &tensors_}) put(std::as_bytes(std::span(*part)));
  const std::array<std::byte, alignment> zeros{};
  put(std::span(zeros).first(aligned(written_) - written_));
  keys_ = tensors_ = {};
}

void GgufWriter::write(std::span<const std::byte> data) {
  if (!begun_) begin_data();
  expects(current_ < sizes_.size() && data.size() <= sizes_[current_] - in_current_, "more data than the tensors have");
  put(data);
  in_current_ += data.size();
  if (in_current_ < sizes_[current_]) return;
  const std::array<std::byte, alignment> zeros{};
  put(std::span(zeros).first(aligned(in_current_) - in_current_));
  ++current_, in_current_ = 0;
}

// Small pieces wait for each other; written_ counts all.
void GgufWriter::put(std::span<const std::byte> bytes) {
  written_ += bytes.size();
  buffer_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (buffer_.size() >= buffer_bytes) flush();
}

void GgufWriter::flush() {
  for (std::size_t at = 0; at < buffer_.size();) {
    const auto count = ::write(file_, buffer_.data() + at, buffer_.size() - at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("cannot be written");
    at += static_cast<std::size_t>(count);
  }
  buffer_.clear();
}

std::uint64_t GgufWriter::finish() {
  if (!begun_) begin_data();
  expects(current_ == sizes_.size(), "the data of a tensor are missing");
  flush();
  if (::fsync(file_) != 0) fail("cannot be written");
  const int file = std::exchange(file_, -1);
  if (::close(file) != 0) fail("cannot be written");
  check_free();
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot be written");
  temporary_.clear();
  return written_;
}

}  // namespace troika::models
