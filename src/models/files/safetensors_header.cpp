// SPDX-License-Identifier: Apache-2.0
#include "safetensors_header.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "../json.hpp"

namespace troika::models {
namespace {

struct Kind {
  std::string_view name;
  unsigned bits;
  std::optional<DType> dtype;
};

constexpr Kind kinds[] = {
    {"F32", 32, DType::f32}, {"F16", 16, DType::f16}, {"BF16", 16, DType::bf16}, {"I32", 32, DType::i32},
    {"I8", 8, DType::i8},    {"U8", 8, DType::u8},    {"BOOL", 8, {}},           {"F4", 4, {}},
    {"F6_E2M3", 6, {}},      {"F6_E3M2", 6, {}},      {"F8_E5M2", 8, {}},        {"F8_E4M3", 8, {}},
    {"F8_E8M0", 8, {}},      {"F8_E4M3FNUZ", 8, {}},  {"F8_E5M2FNUZ", 8, {}},    {"I16", 16, {}},
    {"U16", 16, {}},         {"U32", 32, {}},         {"F64", 64, {}},           {"I64", 64, {}},
    {"U64", 64, {}},         {"C64", 64, {}},
};

constexpr std::string_view metadata_key = "__metadata__";
constexpr std::size_t metadata_entry_bytes = 128;  // in memory, beside the text
// "":{"dtype":"U8","shape":[],"data_offsets":[0,1]},
constexpr std::size_t min_tensor_bytes = 50;

// Takes the header as parser events, straight into TensorInfo: a header of the largest size never becomes a document
// tree.
//   { "__metadata__": {key: string...}, name: {"dtype": string, "shape": [integer...], "data_offsets": [begin, end]}... }
class Reader : public nlohmann::json_sax<Json> {
 public:
  Reader(SafetensorsHeader& header, std::size_t bytes, std::string origin)
      : header_(header), origin_(std::move(origin)), metadata_left_(bytes + (std::size_t{512} << 10)) {}

  bool null() override { return misplaced("null"); }
  bool boolean(bool) override { return misplaced("true or false"); }
  bool number_float(number_float_t, const string_t& text) override { return misplaced("the number " + text); }
  bool binary(binary_t&) override { return misplaced("binary data"); }
  bool number_integer(number_integer_t value) override { return misplaced("the number " + std::to_string(value)); }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::shape) {
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        fail("an extent of " + std::to_string(value) + " in its shape is too large");
      }
      if (extents_.size() == Shape::max_dims) {
        unsupported(here() + "has more than " + std::to_string(Shape::max_dims) + " dimensions");
      }
      extents_.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (state_ == State::offsets) {
      if (offsets_ == 2) fail("data_offsets has more than two numbers");
      (offsets_++ == 0 ? tensor_.begin : tensor_.end) = value;
      return true;
    }
    return misplaced("the number " + std::to_string(value));
  }

  bool string(string_t& value) override {
    if (state_ == State::metadata) {
      spend_on_metadata(key_.size() + value.size() + metadata_entry_bytes);
      header_.metadata[key_] = std::move(value);
      return true;
    }
    if (state_ == State::tensor && key_ == "dtype") {
      tensor_.dtype_name = std::move(value);
      return true;
    }
    return misplaced("the string " + in_quotes(value));
  }

  bool start_object(std::size_t) override {
    if (state_ == State::before)
      state_ = State::top;
    else if (state_ == State::top && key_ == metadata_key) {
      if (std::exchange(has_metadata_, true)) bad_file(origin_ + ": __metadata__ appears twice");
      state_ = State::metadata;
    } else if (state_ == State::top) {
      state_ = State::tensor;
      tensor_ = {};
      tensor_.name = key_;
      extents_.clear();
      offsets_ = 0;
      seen_ = 0;
    } else
      return misplaced("an object");
    return true;
  }

  bool start_array(std::size_t) override {
    if (state_ == State::tensor && key_ == "shape")
      state_ = State::shape;
    else if (state_ == State::tensor && key_ == "data_offsets")
      state_ = State::offsets;
    else
      return misplaced("a list");
    return true;
  }

  bool end_array() override {
    if (state_ == State::offsets && offsets_ != 2) fail("data_offsets must be two numbers");
    state_ = State::tensor;
    return true;
  }

  bool end_object() override {
    if (state_ == State::tensor) {
      finish();
      state_ = State::top;
    } else if (state_ == State::metadata) {
      state_ = State::top;
    } else {
      state_ = State::before;
    }
    return true;
  }

  bool key(string_t& name) override {
    switch (state_) {
      case State::top: break;  // tensors that are there twice are found when all are sorted
      case State::metadata:
        if (header_.metadata.contains(name))
          bad_file(origin_ + ": __metadata__ has the key " + in_quotes(name) + " twice");
        break;
      default: {
        const unsigned bit = name == "dtype" ? 1u : name == "shape" ? 2u : name == "data_offsets" ? 4u : 0u;
        if (bit == 0) fail("has the unknown field " + in_quotes(name) + "; valid are dtype, shape, data_offsets");
        if (seen_ & bit) fail("has the field " + in_quotes(name) + " twice");
        seen_ |= bit;
      }
    }
    key_ = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    bad_json(origin_ + ": the header", position, error);
  }

 private:
  enum class State { before, top, metadata, tensor, shape, offsets };

  std::string here() const { return origin_ + ": tensor " + in_quotes(tensor_.name) + " "; }
  [[noreturn]] void fail(const std::string& why) const { bad_file(here() + why); }

  bool misplaced(const std::string& what) const {
    switch (state_) {
      case State::before: bad_file(origin_ + ": the header must be a JSON object, not " + what);
      case State::top: bad_file(origin_ + ": the entry " + in_quotes(key_) + " must be an object, not " + what);
      case State::metadata:
        bad_file(origin_ + ": __metadata__ holds strings only, but " + in_quotes(key_) + " is " + what);
      case State::shape: fail("has " + what + " in its shape; extents are whole numbers from 0");
      case State::offsets: fail("has " + what + " in data_offsets; offsets are whole numbers from 0");
      case State::tensor: break;
    }
    fail("has " + what + " as its " + key_);
  }

  // Many short entries would take many times the memory of their text; files have a few, perhaps long ones.
  void spend_on_metadata(std::size_t bytes) {
    if (bytes > metadata_left_) bad_file(origin_ + ": __metadata__ has far more entries than files have");
    metadata_left_ -= bytes;
  }

  void finish() {
    for (const auto& [bit, field] : {std::pair{1u, "dtype"}, {2u, "shape"}, {4u, "data_offsets"}}) {
      if ((seen_ & bit) == 0) fail(std::string("has no field '") + field + "'");
    }
    const auto kind = std::ranges::find(kinds, tensor_.dtype_name, &Kind::name);
    if (kind == std::end(kinds)) unsupported(here() + "has the unknown type " + in_quotes(tensor_.dtype_name));
    if (kind->dtype) tensor_.type = weight_type_of(*kind->dtype);

    if (tensor_.begin > tensor_.end) {
      fail("begins at " + std::to_string(tensor_.begin) + ", after its end at " + std::to_string(tensor_.end));
    }
    std::uint64_t bits = kind->bits;
    bool empty = false;
    for (const auto extent : extents_) {
      const auto size = static_cast<std::uint64_t>(extent);
      if (size == 0)
        empty = true;
      else if (bits > (std::uint64_t{1} << 60) / size)
        fail("has a shape whose size in bytes overflows");
      else
        bits *= size;
    }
    if (empty) bits = 0;
    if (bits % 8 != 0) fail("has a shape that does not fill whole bytes");
    if (bits / 8 != tensor_.size_bytes()) {
      std::string shape;
      for (const auto extent : extents_) shape += (shape.empty() ? "" : ", ") + std::to_string(extent);
      fail("of shape (" + shape + ") and type " + tensor_.dtype_name + " takes " + std::to_string(bits / 8) +
           " bytes, but its range has " + std::to_string(tensor_.size_bytes()));
    }
    tensor_.shape = Shape(std::span<const std::int64_t>(extents_));
    header_.tensors.push_back(std::move(tensor_));
  }

  SafetensorsHeader& header_;
  std::string origin_;
  State state_ = State::before;
  std::string key_;
  bool has_metadata_ = false;
  std::size_t metadata_left_;
  TensorInfo tensor_;
  std::vector<std::int64_t> extents_;
  int offsets_ = 0;
  unsigned seen_ = 0;
};

// Every byte of the data belongs to exactly one tensor, as in the reference implementation: a hole could hide anything,
// and tensors that overlap are a lie about one of them.
void check_coverage(const std::vector<TensorInfo>& tensors, std::uint64_t data_bytes, const std::string& origin) {
  std::vector<const TensorInfo*> order;
  order.reserve(tensors.size());
  for (const auto& tensor : tensors) order.push_back(&tensor);
  std::ranges::sort(order, {}, [](const TensorInfo* t) { return std::pair(t->begin, t->end); });
  std::uint64_t covered = 0;
  for (const auto* tensor : order) {
    const auto fail = [&](const std::string& why) {
      bad_file(origin + ": tensor " + in_quotes(tensor->name) + " at bytes " + std::to_string(tensor->begin) + " to " +
               std::to_string(tensor->end) + " of the data " + why);
    };
    if (tensor->end > data_bytes) {
      fail("reaches past the end of the file, which holds " + std::to_string(data_bytes) +
           " bytes of data; the file is truncated or lies");
    }
    if (tensor->begin < covered) fail("overlaps another tensor, which ends at byte " + std::to_string(covered));
    if (tensor->begin > covered) fail("leaves a hole after byte " + std::to_string(covered));
    covered = tensor->end;
  }
  if (covered != data_bytes) {
    bad_file(origin + ": " + std::to_string(data_bytes - covered) + " bytes at the end belong to no tensor");
  }
}

// No fewer than the header has tensors, and no more than fit into it.
std::size_t most_tensors(std::string_view json) {
  std::size_t objects = 0;
  bool in_string = false;
  for (std::size_t at = 0; at < json.size(); ++at) {
    if (json[at] == '"') in_string = !in_string;
    if (json[at] == '\\') ++at;
    if (!in_string && at < json.size() && json[at] == '{') ++objects;
  }
  return std::min(objects, json.size() / min_tensor_bytes + 1);
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view json, std::uint64_t data_bytes, const std::string& origin) {
  if (json.empty() || json.front() != '{') bad_file(origin + ": the header does not begin with '{'");
  SafetensorsHeader header;
  header.tensors.reserve(most_tensors(json));  // at once, since growing takes three times as much
  Reader reader(header, json.size(), origin);
  parse_json_events(json, reader, origin + ": the header");
  std::ranges::sort(header.tensors, {}, &TensorInfo::name);
  const auto twice = std::ranges::adjacent_find(header.tensors, {}, &TensorInfo::name);
  if (twice != header.tensors.end()) bad_file(origin + ": the tensor " + in_quotes(twice->name) + " appears twice");
  check_coverage(header.tensors, data_bytes, origin);
  return header;
}

}  // namespace troika::models
