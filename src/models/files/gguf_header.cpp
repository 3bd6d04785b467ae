// SPDX-License-Identifier: Apache-2.0
#include "gguf_header.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "../json.hpp"
#include "../text/unicode.hpp"

namespace troika::models {
namespace {

constexpr std::uint64_t max_key_bytes = 65535, max_name_bytes = 64;  // limits of the format
constexpr std::uint64_t min_alignment = 8, max_alignment = 65536;
constexpr std::uint64_t min_entry_bytes = 8 + 1 + 4 + 1, min_tensor_bytes = 8 + 1 + 4 + 8 + 4 + 8;
constexpr std::uint32_t last_type = 12;

// The types of ggml, by their number in files: with their sizes also those that troika cannot read, so that the rest of
// the file can be. No name: the number was withdrawn or never given.
struct Kind {
  std::string_view name;
  std::uint64_t block, bytes;
};
constexpr std::array<Kind, 42> kinds{{
    {"F32", 1, 4},
    {"F16", 1, 2},
    {"Q4_0", 32, 18},
    {"Q4_1", 32, 20},
    {},
    {},
    {"Q5_0", 32, 22},
    {"Q5_1", 32, 24},
    {"Q8_0", 32, 34},
    {"Q8_1", 32, 40},
    {"Q2_K", 256, 84},
    {"Q3_K", 256, 110},
    {"Q4_K", 256, 144},
    {"Q5_K", 256, 176},
    {"Q6_K", 256, 210},
    {"Q8_K", 256, 292},
    {"IQ2_XXS", 256, 66},
    {"IQ2_XS", 256, 74},
    {"IQ3_XXS", 256, 98},
    {"IQ1_S", 256, 50},
    {"IQ4_NL", 32, 18},
    {"IQ3_S", 256, 110},
    {"IQ2_S", 256, 82},
    {"IQ4_XS", 256, 136},
    {"I8", 1, 1},
    {"I16", 1, 2},
    {"I32", 1, 4},
    {"I64", 1, 8},
    {"F64", 1, 8},
    {"IQ1_M", 256, 56},
    {"BF16", 1, 2},
    {},
    {},
    {},
    {"TQ1_0", 256, 54},
    {"TQ2_0", 256, 66},
    {},
    {},
    {},
    {"MXFP4", 32, 17},
    {"NVFP4", 64, 36},
    {"Q1_0", 128, 18},
}};

std::optional<WeightType> weight_type_named(std::string_view name) {
  for (std::size_t i = 0; i < weight_layouts.size(); ++i) {
    if (weight_layouts[i].name == name) return static_cast<WeightType>(i);
  }
  return std::nullopt;
}

constexpr bool sizes_agree() {
  for (const auto& kind : kinds) {
    for (const auto& layout : weight_layouts) {
      if (kind.name != layout.name) continue;
      if (kind.block != static_cast<std::uint64_t>(layout.block) || kind.bytes != layout.bytes) return false;
    }
  }
  return true;
}
static_assert(sizes_agree());

}  // namespace

std::uint64_t gguf_number(const std::byte* data, std::size_t size) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i) value |= std::to_integer<std::uint64_t>(data[i]) << (8 * i);
  return value;
}

std::size_t gguf_size_of(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean: return 1;
    case GgufType::u16:
    case GgufType::i16: return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32: return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64: return 8;
    case GgufType::string:
    case GgufType::array: break;
  }
  return 0;
}

GgufHeader::GgufHeader(std::span<const std::byte> file, std::string origin) : file_(file), origin_(std::move(origin)) {
  read_start();
  read_metadata();
  read_tensors();
  place_data();
  std::ranges::sort(tensors, {}, &TensorInfo::name);
  const auto twice = std::ranges::adjacent_find(tensors, {}, &TensorInfo::name);
  if (twice != tensors.end()) bad_file(origin_ + ": the tensor " + in_quotes(twice->name) + " appears twice");
}

void GgufHeader::fail(std::size_t at, const std::string& what) const {
  bad_file(origin_ + ": at byte " + std::to_string(at) + ", " + what);
}

void GgufHeader::need(std::uint64_t count, std::uint64_t size, const std::string& what) const {
  const std::uint64_t left = file_.size() - at_;
  if (count <= left / size) return;
  std::string wants = std::to_string(count) + (count == 1 ? " byte" : " bytes");
  if (size != 1) wants = std::to_string(count) + " times at least " + std::to_string(size) + " bytes";
  fail(at_,
       what + " takes " + wants + ", but only " + std::to_string(left) + " are left; the file is truncated or lies");
}

std::uint64_t GgufHeader::number(std::size_t size, const std::string& what) {
  need(size, 1, what);
  const auto value = gguf_number(file_.data() + at_, size);
  at_ += size;
  return value;
}

std::string_view GgufHeader::string(const std::string& what) {
  const auto size = number(8, "the length of " + what);
  need(size, 1, what);
  const std::string_view text(reinterpret_cast<const char*>(file_.data()) + at_, static_cast<std::size_t>(size));
  at_ += static_cast<std::size_t>(size);
  return text;
}

void GgufHeader::read_start() {
  const std::string_view text(reinterpret_cast<const char*>(file_.data()), file_.size());
  if (!text.starts_with("GGUF")) {
    bad_file(origin_ + " begins with " + in_quotes(text.substr(0, 4)) +
             "; a GGUF file begins with 'GGUF'. Valid are such files, and folders in the format of Hugging Face");
  }
  at_ = 4;
  const auto stated = number(4, "the version");
  if ((stated & 0xffff) == 0 && stated != 0)
    unsupported(origin_ + " is big endian, which is not supported; supported is little endian");
  if (stated != 2 && stated != 3) {
    unsupported(origin_ + ": the GGUF version " + std::to_string(stated) + " is not supported; supported are 2, 3");
  }
  version = static_cast<int>(stated);
  tensor_count_ = number(8, "the number of tensors");
  entry_count_ = number(8, "the number of metadata entries");
}

void GgufHeader::read_metadata() {
  need(entry_count_, min_entry_bytes, "metadata of " + std::to_string(entry_count_) + " entries");
  metadata.origin_ = origin_;
  metadata.file_ = file_.data();
  auto& entries = metadata.entries_;
  entries.reserve(static_cast<std::size_t>(entry_count_));
  for (std::uint64_t i = 0; i < entry_count_; ++i) {
    const auto begin = at_;
    const auto key = string("the key of metadata entry " + std::to_string(i));
    if (key.empty() || key.size() > max_key_bytes) {
      fail(begin, "the key of metadata entry " + std::to_string(i) + " has " + std::to_string(key.size()) +
                      " bytes; valid are 1 to " + std::to_string(max_key_bytes));
    }
    if (unicode::find_invalid(key) != unicode::npos) fail(begin, "the key " + in_quotes(key) + " is not UTF-8");
    GgufMetadata::Place place{};
    place.key = key.data();
    place.key_size = static_cast<std::uint16_t>(key.size());
    read_value(place, "the value of " + in_quotes(key));
    entries.push_back(place);
  }
  std::ranges::sort(entries, {}, &GgufMetadata::Place::name);
  const auto twice = std::ranges::adjacent_find(entries, {}, &GgufMetadata::Place::name);
  if (twice != entries.end()) {
    const auto second = std::max(twice->key, (twice + 1)->key) - reinterpret_cast<const char*>(file_.data());
    fail(static_cast<std::size_t>(second), "the key " + in_quotes(twice->name()) + " appears a second time");
  }
  if (metadata.contains("general.alignment")) {
    alignment_ =
        static_cast<std::uint64_t>(metadata.integer("general.alignment", 0, std::numeric_limits<std::int64_t>::max()));
    if (alignment_ < min_alignment || alignment_ > max_alignment || (alignment_ & (alignment_ - 1)) != 0) {
      metadata.fail("general.alignment", "is " + std::to_string(alignment_) + "; valid are the powers of two from " +
                                             std::to_string(min_alignment) + " to " + std::to_string(max_alignment));
    }
  }
}

void GgufHeader::read_value(GgufMetadata::Place& place, const std::string& what) {
  const auto read_type = [&](const std::string& of) {
    const auto begin = at_;
    const auto type = number(4, of);
    if (type > last_type) {
      fail(begin, of + " is " + std::to_string(type) + "; valid are 0 to " + std::to_string(last_type) +
                      " (integers, f32, f64, bool, string, array)");
    }
    return static_cast<GgufType>(type);
  };
  place.type = read_type("the type of " + what);
  place.count = 1;
  if (place.type == GgufType::array) {
    const auto begin = at_;
    place.is_array = true;
    place.type = read_type("the element type of " + what);
    if (place.type == GgufType::array) fail(begin, what + " is an array of arrays, which no known file has");
    place.count = number(8, "the length of " + what);
    need(place.count, std::max<std::size_t>(gguf_size_of(place.type), place.type == GgufType::string ? 8 : 1), what);
  }
  place.data = file_.data() + at_;
  if (place.type == GgufType::string) {
    for (std::uint64_t i = 0; i < place.count; ++i) {
      const std::uint64_t left = file_.size() - at_, size = left < 8 ? 0 : gguf_number(file_.data() + at_, 8);
      // Vocabularies have 10^5 strings: messages are built for the one that is wrong.
      if (left < 8 || size > left - 8) string(place.is_array ? "string " + std::to_string(i) + " of " + what : what);
      at_ += 8 + static_cast<std::size_t>(size);
    }
    return;
  }
  const auto size = gguf_size_of(place.type);
  need(place.count, size, what);
  if (place.type == GgufType::boolean) {
    for (std::uint64_t i = 0; i < place.count; ++i) {
      const auto value = gguf_number(place.data + i, 1);
      if (value > 1)
        fail(at_ + static_cast<std::size_t>(i), what + " is a bool of " + std::to_string(value) + "; valid are 0, 1");
    }
  }
  at_ += static_cast<std::size_t>(place.count) * size;
}

void GgufHeader::read_tensors() {
  need(tensor_count_, min_tensor_bytes, "a table of " + std::to_string(tensor_count_) + " tensors");
  tensors.reserve(static_cast<std::size_t>(tensor_count_));
  for (std::uint64_t i = 0; i < tensor_count_; ++i) {
    const auto begin = at_;
    TensorInfo tensor;
    const auto name = string("the name of tensor " + std::to_string(i));
    if (name.empty() || name.size() > max_name_bytes) {
      fail(begin, "the name of tensor " + std::to_string(i) + " has " + std::to_string(name.size()) +
                      " bytes; valid are 1 to " + std::to_string(max_name_bytes));
    }
    if (unicode::find_invalid(name) != unicode::npos)
      fail(begin, "the name of tensor " + in_quotes(name) + " is not UTF-8");
    tensor.name = name;
    read_tensor(tensor);
    tensors.push_back(std::move(tensor));
  }
}

void GgufHeader::read_tensor(TensorInfo& tensor) {
  const std::string what = "tensor " + in_quotes(tensor.name);
  auto begin = at_;
  const auto dims = number(4, "the number of dimensions of " + what);
  if (dims < 1 || dims > Shape::max_dims) {
    fail(begin,
         what + " has " + std::to_string(dims) + " dimensions; valid are 1 to " + std::to_string(Shape::max_dims));
  }
  std::array<std::int64_t, Shape::max_dims> extents{};
  std::uint64_t count = 1;
  for (std::size_t d = 0; d < dims; ++d) {
    begin = at_;
    const auto extent = number(8, "dimension " + std::to_string(d) + " of " + what);
    if (extent < 1 || extent > (std::uint64_t{1} << 56) / count) {
      fail(begin, "dimension " + std::to_string(d) + " of " + what + " is " + std::to_string(extent) +
                      "; valid are sizes from 1 whose product is no more than 2^56");
    }
    count *= extent;
    extents[dims - 1 - d] = static_cast<std::int64_t>(extent);  // the file begins with the length of a row
  }
  tensor.shape = Shape(std::span<const std::int64_t>(extents.data(), dims));

  begin = at_;
  const auto type = number(4, "the type of " + what);
  if (type >= kinds.size() || kinds[type].name.empty()) {
    std::string names;
    for (const auto& layout : weight_layouts) names += (names.empty() ? "" : ", ") + std::string(layout.name);
    unsupported(origin_ + ": at byte " + std::to_string(begin) + ", " + what + " has the unknown type " +
                std::to_string(type) + "; supported are " + names);
  }
  const auto& kind = kinds[type];
  tensor.dtype_name = kind.name;
  tensor.type = weight_type_named(kind.name);
  const auto row = static_cast<std::uint64_t>(extents[dims - 1]);
  if (row % kind.block != 0) {
    fail(begin, what + " " + tensor.shape.to_string() + " has rows of " + std::to_string(row) + " elements; its type " +
                    tensor.dtype_name + " stores them in blocks of " + std::to_string(kind.block) +
                    ", of which a row must have a whole number");
  }
  begin = at_;
  tensor.begin = number(8, "the offset of " + what);
  if (tensor.begin % alignment_ != 0) {
    fail(begin, what + " begins at byte " + std::to_string(tensor.begin) + " of the data; valid are multiples of " +
                    std::to_string(alignment_));
  }
  // 2^56 elements of 8 bytes at most: no overflow, and none in the sum as long as the offset is in the file.
  tensor.end = count / kind.block * kind.bytes;
  if (tensor.begin > file_.size()) {
    fail(begin, what + " begins at byte " + std::to_string(tensor.begin) +
                    " of the data, past the end of the file, which has " + std::to_string(file_.size()) +
                    " bytes; the file is truncated or lies");
  }
  tensor.end += tensor.begin;
}

// As in ggml, tensors lie in the order of the table, each at the first aligned byte after the one before: whatever else
// is a hole or an overlap, and a lie about one of them.
void GgufHeader::place_data() {
  const auto aligned = [&](std::uint64_t at) { return (at + alignment_ - 1) / alignment_ * alignment_; };
  data_begin = static_cast<std::size_t>(aligned(at_));
  const std::uint64_t data_bytes = file_.size() > data_begin ? file_.size() - data_begin : 0;
  std::uint64_t covered = 0;
  for (const auto& tensor : tensors) {
    const auto here = [&] {
      return origin_ + ": tensor " + in_quotes(tensor.name) + " at bytes " + std::to_string(tensor.begin) + " to " +
             std::to_string(tensor.end) + " of the data, which begin at byte " + std::to_string(data_begin) + ", ";
    };
    if (tensor.begin < covered)
      bad_file(here() + "overlaps the tensor before it; it should begin at " + std::to_string(covered));
    if (tensor.begin > covered) bad_file(here() + "leaves a hole; it should begin at " + std::to_string(covered));
    if (tensor.end > data_bytes) {
      bad_file(here() + "reaches past the end of the file, which holds " + std::to_string(data_bytes) +
               " bytes of data; the file is truncated or lies");
    }
    covered = aligned(tensor.end);
  }
}

}  // namespace troika::models
