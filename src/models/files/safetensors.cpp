// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/safetensors.hpp>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "../json.hpp"
#include "safetensors_header.hpp"

namespace troika::models {
namespace {

constexpr std::uint64_t max_header_bytes = 100'000'000;  // the limit of the reference implementation
constexpr std::size_t release_every = std::size_t{1} << 20;

std::string place(const std::filesystem::path& file, const TensorInfo& tensor) {
  return file.string() + ": tensor " + in_quotes(tensor.name);
}

DType readable(const std::filesystem::path& file, const TensorInfo& tensor) {
  const auto dtype = safetensors_dtype(tensor.dtype_name);
  if (!dtype) {
    unsupported(place(file, tensor) + " has type " + tensor.dtype_name +
                ", which cannot be read; readable types are F32, F16, BF16, I32, I8, U8");
  }
  return *dtype;
}

void check_range(Range range, std::int64_t extent, const char* of, const TensorInfo& tensor) {
  expects(0 <= range.begin && range.begin <= range.end && range.end <= extent, [&] {
    return std::string(of) + " " + std::to_string(range.begin) + " to " + std::to_string(range.end) + " of tensor " +
           in_quotes(tensor.name) + " " + tensor.shape.to_string() + " were asked for; it has " + std::to_string(extent);
  });
}

void check_out(std::size_t have, std::int64_t want, const TensorInfo& tensor) {
  expects(have == static_cast<std::size_t>(want), [&] {
    return "the slice of tensor " + in_quotes(tensor.name) + " " + tensor.shape.to_string() + " has " +
           std::to_string(want) + " elements or bytes, the destination " + std::to_string(have);
  });
}

// A rectangle of a tensor in the file: `count` runs of `run` elements, `stride` elements apart.
struct Runs {
  std::int64_t first, run, count, stride;
};

Runs row_runs(const TensorInfo& tensor, Range rows) {
  expects(tensor.shape.dims() >= 1, [&] { return "tensor " + in_quotes(tensor.name) + " is a scalar and has no rows"; });
  check_range(rows, tensor.shape[0], "rows", tensor);
  const auto inner = tensor.shape.inner(0);
  return {rows.begin * inner, rows.size() * inner, 1, 0};
}

Runs column_runs(const TensorInfo& tensor, Range columns) {
  expects(tensor.shape.dims() == 2, [&] {
    return "tensor " + in_quotes(tensor.name) + " " + tensor.shape.to_string() + " is not a matrix and has no columns";
  });
  check_range(columns, tensor.shape[1], "columns", tensor);
  return {columns.begin, columns.size(), tensor.shape[0], tensor.shape[1]};
}

// Hands the runs to sink(source bytes, offset of the first element in the output) in pieces of about release_every bytes
// of the file, and gives each piece's pages back.
template <class Sink>
void walk(const MappedFile& file, std::span<const std::byte> bytes, std::size_t element, const Runs& runs, Sink&& sink) {
  if (runs.run == 0 || runs.count == 0) return;
  const auto run = static_cast<std::size_t>(runs.run), stride = static_cast<std::size_t>(runs.stride);
  const std::size_t step = std::max<std::size_t>(1, release_every / element);
  std::size_t touched = static_cast<std::size_t>(runs.first) * element, written = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(runs.count); ++i) {
    const std::size_t begin = static_cast<std::size_t>(runs.first) + i * stride;
    for (std::size_t at = 0; at < run; at += step) {
      const std::size_t length = std::min(step, run - at);
      sink(bytes.subspan((begin + at) * element, length * element), written);
      written += length;
      const std::size_t end = (begin + at + length) * element;
      if (end - touched >= release_every) {
        file.release(bytes.subspan(touched, end - touched));
        // The page that holds `end` is not whole yet: begin the next release with it.
        touched = end - std::min<std::size_t>(end - touched, 4096);
      }
    }
  }
  const std::size_t end = (static_cast<std::size_t>(runs.first) + static_cast<std::size_t>(runs.count - 1) * stride + run) * element;
  file.release(bytes.subspan(touched, end - touched));
}

template <class From, class To>
void convert(std::span<const std::byte> source, To* out) {
  const std::size_t count = source.size() / sizeof(From);
  for (std::size_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, source.data() + i * sizeof(From), sizeof(From));
    out[i] = static_cast<To>(static_cast<float>(value));
  }
}

template <class T> inline constexpr bool is_floating = std::is_same_v<T, float> || std::is_same_v<T, f16> || std::is_same_v<T, bf16>;

template <class T>
void read_runs(const MappedFile& file, std::span<const std::byte> bytes, const TensorInfo& tensor, const Runs& runs,
               std::span<T> out) {
  check_out(out.size(), runs.run * runs.count, tensor);
  visit(readable(file.path(), tensor), [&](auto example) {
    using From = decltype(example);
    if constexpr (std::is_same_v<From, T>) {
      walk(file, bytes, sizeof(T), runs, [&](std::span<const std::byte> source, std::size_t at) {
        std::memcpy(out.data() + at, source.data(), source.size());
      });
    } else if constexpr (is_floating<From> && is_floating<T>) {
      walk(file, bytes, sizeof(From), runs, [&](std::span<const std::byte> source, std::size_t at) {
        convert<From>(source, out.data() + at);
      });
    } else {
      throw Error(Fault::unsupported, place(file.path(), tensor) + " has type " + tensor.dtype_name +
                                          " and cannot be read as " + std::string(to_string(dtype_of<T>)));
    }
  });
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile opened;
  opened.file_ = MappedFile::open(path);
  const auto bytes = opened.file_.bytes();
  const std::string origin = path.string();
  if (bytes.size() < 8) {
    bad_file(origin + " has " + std::to_string(bytes.size()) + " bytes; a safetensors file begins with 8 bytes of header length");
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

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto at = std::ranges::lower_bound(tensors_, name, {}, [](const TensorInfo& t) { return std::string_view(t.name); });
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

const TensorInfo& SafetensorsFile::info(std::string_view name) const {
  const auto* tensor = find(name);
  if (tensor == nullptr) bad_file(path().string() + " has no tensor " + in_quotes(name));
  return *tensor;
}

std::span<const std::byte> SafetensorsFile::bytes(const TensorInfo& tensor) const {
  readable(path(), tensor);
  return file_.bytes().subspan(data_begin_ + static_cast<std::size_t>(tensor.begin),
                               static_cast<std::size_t>(tensor.size_bytes()));
}

void SafetensorsFile::copy_rows(const TensorInfo& tensor, Range rows, std::span<std::byte> out) const {
  const auto size = size_of(readable(path(), tensor));
  const auto runs = row_runs(tensor, rows);
  check_out(out.size(), runs.run * static_cast<std::int64_t>(size), tensor);
  walk(file_, bytes(tensor), size, runs, [&](std::span<const std::byte> source, std::size_t at) {
    std::memcpy(out.data() + at * size, source.data(), source.size());
  });
}

void SafetensorsFile::copy_columns(const TensorInfo& tensor, Range columns, std::span<std::byte> out) const {
  const auto size = size_of(readable(path(), tensor));
  const auto runs = column_runs(tensor, columns);
  check_out(out.size(), runs.run * runs.count * static_cast<std::int64_t>(size), tensor);
  walk(file_, bytes(tensor), size, runs, [&](std::span<const std::byte> source, std::size_t at) {
    std::memcpy(out.data() + at * size, source.data(), source.size());
  });
}

template <Element T>
void SafetensorsFile::read(const TensorInfo& tensor, std::span<T> out) const {
  read_runs(file_, bytes(tensor), tensor, {0, tensor.shape.count(), 1, 0}, out);
}
template <Element T>
void SafetensorsFile::read_rows(const TensorInfo& tensor, Range rows, std::span<T> out) const {
  read_runs(file_, bytes(tensor), tensor, row_runs(tensor, rows), out);
}
template <Element T>
void SafetensorsFile::read_columns(const TensorInfo& tensor, Range columns, std::span<T> out) const {
  read_runs(file_, bytes(tensor), tensor, column_runs(tensor, columns), out);
}

#define TROIKA_READ(T)                                                                            \
  template void SafetensorsFile::read<T>(const TensorInfo&, std::span<T>) const;                  \
  template void SafetensorsFile::read_rows<T>(const TensorInfo&, Range, std::span<T>) const;      \
  template void SafetensorsFile::read_columns<T>(const TensorInfo&, Range, std::span<T>) const;
TROIKA_READ(float)
TROIKA_READ(f16)
TROIKA_READ(bf16)
TROIKA_READ(std::int32_t)
TROIKA_READ(std::int8_t)
TROIKA_READ(std::uint8_t)
#undef TROIKA_READ

}  // namespace troika::models
