// SPDX-License-Identifier: Apache-2.0
#include "tensor_slices.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>
#include <vector>

#include <troika/core/dequantize.hpp>

#include "../json.hpp"

namespace troika::models {
namespace {

constexpr std::size_t release_every = std::size_t{1} << 20;

std::string place(const std::filesystem::path& file, const TensorInfo& tensor) {
  return file.string() + ": tensor " + in_quotes(tensor.name);
}

// How the elements of a tensor lie together.
struct Storage {
  std::int64_t block;  // elements
  std::size_t bytes;   // of a block
};

Storage storage_of(const StoredTensor& tensor) {
  check_readable(tensor.file.path(), tensor.info);
  if (tensor.info.type) return {layout_of(*tensor.info.type).block, layout_of(*tensor.info.type).bytes};
  return {1, size_of(*integer_dtype(tensor.info.dtype_name))};
}

std::string asked(Range range, const char* of, const TensorInfo& tensor) {
  return std::string(of) + " " + std::to_string(range.begin) + " to " + std::to_string(range.end) + " of tensor " +
         in_quotes(tensor.name) + " " + tensor.shape.to_string() + " were asked for; ";
}

void check_range(Range range, std::int64_t extent, const char* of, const TensorInfo& tensor) {
  expects(0 <= range.begin && range.begin <= range.end && range.end <= extent,
          [&] { return asked(range, of, tensor) + "it has " + std::to_string(extent); });
}

void check_blocks(Range range, std::int64_t block, const char* of, const TensorInfo& tensor) {
  expects(range.begin % block == 0 && range.end % block == 0, [&] {
    return asked(range, of, tensor) + "its type " + tensor.dtype_name + " stores " + std::to_string(block) +
           " of them together, so that both ends must be multiples of " + std::to_string(block);
  });
}

void check_out(std::size_t have, std::size_t want, const TensorInfo& tensor) {
  expects(have == want, [&] {
    return "the slice of tensor " + in_quotes(tensor.name) + " " + tensor.shape.to_string() + " has " +
           std::to_string(want) + " elements or bytes, the destination " + std::to_string(have);
  });
}

// A rectangle of a tensor, in blocks: `count` runs of `run` blocks; each begins `stride` blocks after the one before.
struct Runs {
  std::int64_t row, count, stride;  // the first run begins at row * stride + begin
  std::int64_t begin, run;
};

Runs row_runs(const StoredTensor& tensor, Range rows, std::int64_t block) {
  const auto& info = tensor.info;
  expects(info.shape.dims() >= 1, [&] { return "tensor " + in_quotes(info.name) + " is a scalar and has no rows"; });
  check_range(rows, info.shape[0], "rows", info);
  if (info.shape.dims() == 1) {  // a row is one element
    check_blocks(rows, block, "elements", info);
    if (tensor.head_rows == 0) return {0, 1, 0, rows.begin / block, rows.size() / block};
  }
  const auto width = info.shape.inner(0) / block;
  if (tensor.head_rows == 0) return {0, 1, 0, rows.begin * width, rows.size() * width};
  return {rows.begin, rows.size(), width, 0, width};
}

Runs column_runs(const StoredTensor& tensor, Range columns, std::int64_t block) {
  const auto& info = tensor.info;
  expects(info.shape.dims() == 2, [&] {
    return "tensor " + in_quotes(info.name) + " " + info.shape.to_string() + " is not a matrix and has no columns";
  });
  check_range(columns, info.shape[1], "columns", info);
  check_blocks(columns, block, "columns", info);
  return {0, info.shape[0], info.shape[1] / block, columns.begin / block, columns.size() / block};
}

std::int64_t row_in_file(std::int64_t row, std::int64_t head_rows) {
  if (head_rows == 0) return row;
  const auto half = head_rows / 2, in_head = row % head_rows;
  return row - in_head + in_head % half * 2 + in_head / half;
}

// Hands the runs to sink(source bytes, block number in the output) in pieces of about release_every bytes of the file,
// and gives each piece's pages back.
template <class Sink>
void walk(const StoredTensor& tensor, std::size_t block_bytes, const Runs& runs, Sink&& sink) {
  if (runs.run == 0 || runs.count == 0) return;
  const auto run = static_cast<std::size_t>(runs.run);
  const std::size_t step = std::max<std::size_t>(1, release_every / block_bytes);
  std::size_t low = tensor.bytes.size(), high = 0, written = 0;  // touched since pages were given back
  const auto release = [&] {
    if (low < high) tensor.file.release(tensor.bytes.subspan(low, high - low));
  };
  tensor.file.check_size();
  for (std::int64_t i = 0; i < runs.count; ++i) {
    const auto begin = static_cast<std::size_t>(row_in_file(runs.row + i, tensor.head_rows) * runs.stride + runs.begin);
    for (std::size_t at = 0; at < run; at += step) {
      const std::size_t length = std::min(step, run - at), first = (begin + at) * block_bytes;
      sink(tensor.bytes.subspan(first, length * block_bytes), written);
      written += length;
      low = std::min(low, first);
      high = std::max(high, first + length * block_bytes);
      if (high - low >= release_every) {
        release();
        tensor.file.check_size();
        // The page that holds the end is not whole yet: begin the next release with it.
        low = high - std::min<std::size_t>(high - low, 4096);
        if (tensor.head_rows != 0) low = tensor.bytes.size(), high = 0;  // the next row may lie before this one
      }
    }
  }
  release();
}

void copy_runs(const StoredTensor& tensor, const Storage& storage, const Runs& runs, std::span<std::byte> out) {
  check_out(out.size(), static_cast<std::size_t>(runs.run * runs.count) * storage.bytes, tensor.info);
  walk(tensor, storage.bytes, runs, [&](std::span<const std::byte> source, std::size_t at) {
    std::memcpy(out.data() + at * storage.bytes, source.data(), source.size());
  });
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

template <class To>
void convert_blocks(WeightType type, std::span<const std::byte> source, To* out) {
  const auto& layout = layout_of(type);
  const auto block = static_cast<std::size_t>(layout.block);
  std::array<float, 256> values;
  for (std::size_t i = 0; i < source.size() / layout.bytes; ++i) {
    dequantize(type, source.data() + i * layout.bytes, std::span(values).first(block));
    for (std::size_t j = 0; j < block; ++j) out[i * block + j] = static_cast<To>(values[j]);
  }
}

template <class T>
inline constexpr bool is_floating = std::is_same_v<T, float> || std::is_same_v<T, f16> || std::is_same_v<T, bf16>;

template <class T>
[[noreturn]] void cannot_be_read(const StoredTensor& tensor) {
  unsupported(place(tensor.file.path(), tensor.info) + " has type " + tensor.info.dtype_name +
              " and cannot be read as " + std::string(to_string(dtype_of<T>)));
}

template <class T>
void read_runs(const StoredTensor& tensor, const Storage& storage, const Runs& runs, std::span<T> out) {
  check_out(out.size(), static_cast<std::size_t>(runs.run * runs.count * storage.block), tensor.info);
  const auto block = static_cast<std::size_t>(storage.block);
  const auto each = [&](auto values) {
    walk(tensor, storage.bytes, runs,
         [&](std::span<const std::byte> source, std::size_t at) { values(source, out.data() + at * block); });
  };
  const auto same = [](std::span<const std::byte> source, T* to) { std::memcpy(to, source.data(), source.size()); };
  if constexpr (is_floating<T>) {
    if (tensor.info.type) {
      const auto type = *tensor.info.type;
      if (weight_type_of(dtype_of<T>) == type) return each(same);
      if (type == WeightType::f32) return each(convert<float, T>);
      if (type == WeightType::f16) return each(convert<f16, T>);
      if (type == WeightType::bf16) return each(convert<bf16, T>);
      return each([type](std::span<const std::byte> source, T* to) { convert_blocks(type, source, to); });
    }
  } else if (!tensor.info.type && integer_dtype(tensor.info.dtype_name) == dtype_of<T>) {
    return each(same);
  }
  cannot_be_read<T>(tensor);
}

// Elements [rows] of the columns [columns], which lie as rows in the file, put back in the order of a matrix.
void copy_transposed(const StoredTensor& tensor, Range rows, Range columns, std::span<std::byte> out) {
  const auto storage = storage_of(tensor);
  const auto& info = tensor.info;
  if (storage.block != 1) {
    unsupported(place(tensor.file.path(), info) + " has type " + info.dtype_name +
                " and its columns as rows; valid of such tensors are types that are stored one by one");
  }
  check_range(rows, info.shape[0], "rows", info);
  check_range(columns, info.shape[1], "columns", info);
  check_out(out.size(), static_cast<std::size_t>(rows.size() * columns.size()) * storage.bytes, info);
  const auto width = static_cast<std::size_t>(columns.size()), height = static_cast<std::size_t>(rows.size());
  const auto stride = static_cast<std::size_t>(tensor.transposed) * storage.bytes;
  if (height == 0) return;
  std::size_t released = 0;
  for (std::size_t c = 0; c < width; ++c) {
    const auto at =
        (static_cast<std::size_t>(columns.begin) + c) * stride + static_cast<std::size_t>(rows.begin) * storage.bytes;
    const auto source = tensor.bytes.subspan(at, height * storage.bytes);
    for (std::size_t r = 0; r < height; ++r) {
      std::memcpy(out.data() + (r * width + c) * storage.bytes, source.data() + r * storage.bytes, storage.bytes);
    }
    const auto end = at + source.size();
    if (c == 0) released = at;
    if (end - released >= release_every || c + 1 == width) {
      tensor.file.release(tensor.bytes.subspan(released, end - released));
      released = end;
    }
  }
}

template <class T>
void read_transposed(const StoredTensor& tensor, Range rows, Range columns, std::span<T> out) {
  const auto storage = storage_of(tensor);
  check_range(rows, tensor.info.shape[0], "rows", tensor.info);
  check_range(columns, tensor.info.shape[1], "columns", tensor.info);
  std::vector<std::byte> part(static_cast<std::size_t>(rows.size() * columns.size()) * storage.bytes);
  copy_transposed(tensor, rows, columns, part);
  const auto& info = tensor.info;
  check_out(out.size(), static_cast<std::size_t>(rows.size() * columns.size()), info);
  if constexpr (is_floating<T>) {
    if (info.type == WeightType::f32) return convert<float>(part, out.data());
    if (info.type == WeightType::f16) return convert<f16>(part, out.data());
    if (info.type == WeightType::bf16) return convert<bf16>(part, out.data());
  }
  cannot_be_read<T>(tensor);
}

Range all_rows(const StoredTensor& tensor) { return {0, tensor.info.shape[0]}; }
Range all_columns(const StoredTensor& tensor) { return {0, tensor.info.shape[1]}; }

}  // namespace

std::optional<DType> integer_dtype(std::string_view name) {
  if (name == "I32") return DType::i32;
  if (name == "I8") return DType::i8;
  if (name == "U8") return DType::u8;
  return std::nullopt;
}

bool is_readable(const TensorInfo& tensor) { return tensor.type || integer_dtype(tensor.dtype_name); }

void check_readable(const std::filesystem::path& file, const TensorInfo& tensor) {
  if (is_readable(tensor)) return;
  std::string names;
  for (const auto& layout : weight_layouts) names += std::string(layout.name) + ", ";
  unsupported(place(file, tensor) + " has type " + tensor.dtype_name + ", which cannot be read; readable types are " +
              names + "I32, I8, U8");
}

void copy_rows(const StoredTensor& tensor, Range rows, std::span<std::byte> out) {
  if (tensor.transposed != 0) return copy_transposed(tensor, rows, all_columns(tensor), out);
  const auto storage = storage_of(tensor);
  copy_runs(tensor, storage, row_runs(tensor, rows, storage.block), out);
}

void copy_columns(const StoredTensor& tensor, Range columns, std::span<std::byte> out) {
  if (tensor.transposed != 0) return copy_transposed(tensor, all_rows(tensor), columns, out);
  const auto storage = storage_of(tensor);
  copy_runs(tensor, storage, column_runs(tensor, columns, storage.block), out);
}

template <Element T>
void read_all(const StoredTensor& tensor, std::span<T> out) {
  if (tensor.transposed != 0) return read_transposed(tensor, all_rows(tensor), all_columns(tensor), out);
  const auto storage = storage_of(tensor);
  const auto& shape = tensor.info.shape;
  if (tensor.head_rows != 0) return read_rows(tensor, {0, shape[0]}, out);
  read_runs(tensor, storage, {0, 1, 0, 0, shape.count() / storage.block}, out);
}
template <Element T>
void read_rows(const StoredTensor& tensor, Range rows, std::span<T> out) {
  if (tensor.transposed != 0) return read_transposed(tensor, rows, all_columns(tensor), out);
  const auto storage = storage_of(tensor);
  read_runs(tensor, storage, row_runs(tensor, rows, storage.block), out);
}
template <Element T>
void read_columns(const StoredTensor& tensor, Range columns, std::span<T> out) {
  if (tensor.transposed != 0) return read_transposed(tensor, all_rows(tensor), columns, out);
  const auto storage = storage_of(tensor);
  read_runs(tensor, storage, column_runs(tensor, columns, storage.block), out);
}

#define TROIKA_READ(T)                                                  \
  template void read_all<T>(const StoredTensor&, std::span<T>);         \
  template void read_rows<T>(const StoredTensor&, Range, std::span<T>); \
  template void read_columns<T>(const StoredTensor&, Range, std::span<T>);
TROIKA_READABLE_TYPES(TROIKA_READ)
#undef TROIKA_READ

}  // namespace troika::models
