// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/gguf_metadata.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "../json.hpp"
#include "gguf_header.hpp"

namespace troika::models {
namespace {

bool is_integer(GgufType type) {
  return type != GgufType::f32 && type != GgufType::f64 && type != GgufType::boolean && type != GgufType::string &&
         type != GgufType::array;
}

// Whether the integer of this type at `data` lies within [low, high]; if so, its value.
std::optional<std::int64_t> integer_at(const std::byte* data, GgufType type, std::int64_t low, std::int64_t high) {
  const auto size = gguf_size_of(type);
  const auto bits = gguf_number(data, size);
  std::int64_t value = 0;
  if (type == GgufType::u64 && bits > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
    return std::nullopt;
  switch (type) {
    case GgufType::i8: value = static_cast<std::int8_t>(bits); break;
    case GgufType::i16: value = static_cast<std::int16_t>(bits); break;
    case GgufType::i32: value = static_cast<std::int32_t>(bits); break;
    default: value = static_cast<std::int64_t>(bits);
  }
  if (value < low || value > high) return std::nullopt;
  return value;
}

std::string spelled(const std::byte* data, GgufType type) {
  if (type == GgufType::u64) return std::to_string(gguf_number(data, 8));
  return std::to_string(
      *integer_at(data, type, std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()));
}

std::string_view string_at(const std::byte* data) {
  return {reinterpret_cast<const char*>(data) + 8, static_cast<std::size_t>(gguf_number(data, 8))};
}

std::string valid_integers(std::int64_t low, std::int64_t high) {
  return "; valid are the integers " + std::to_string(low) + " to " + std::to_string(high);
}

}  // namespace

GgufMetadata::Entry GgufMetadata::operator[](std::size_t i) const {
  const auto& place = entries_[i];
  return {place.name(), place.type, place.is_array, place.count, place.data};
}

const GgufMetadata::Place* GgufMetadata::find(std::string_view key) const {
  const auto at = std::ranges::lower_bound(entries_, key, {}, &Place::name);
  return at != entries_.end() && at->name() == key ? &*at : nullptr;
}

const GgufMetadata::Place& GgufMetadata::get(std::string_view key) const {
  const auto* place = find(key);
  if (place == nullptr) bad_file(origin_ + " has no key " + in_quotes(key) + " in its metadata");
  return *place;
}
const GgufMetadata::Place& GgufMetadata::array(std::string_view key) const {
  const auto& place = get(key);
  if (!place.is_array) fail(key, "is one " + std::string(to_string(place.type)) + "; valid is an array");
  return place;
}
const GgufMetadata::Place& GgufMetadata::single(std::string_view key) const {
  const auto& place = get(key);
  if (place.is_array) fail(key, "is an array of " + std::to_string(place.count) + "; valid is a single value");
  return place;
}

void GgufMetadata::fail(std::string_view key, const std::string& why) const {
  const auto* place = find(key);
  const auto at = place == nullptr ? 0 : place->key - reinterpret_cast<const char*>(file_);
  bad_file(origin_ + ": the key " + in_quotes(key) + " at byte " + std::to_string(at) + " " + why);
}

std::int64_t GgufMetadata::integer(std::string_view key, std::int64_t low, std::int64_t high) const {
  const auto& place = single(key);
  if (!is_integer(place.type))
    fail(key, "is of type " + std::string(to_string(place.type)) + valid_integers(low, high));
  const auto value = integer_at(place.data, place.type, low, high);
  if (!value) fail(key, "is " + spelled(place.data, place.type) + valid_integers(low, high));
  return *value;
}
std::int64_t GgufMetadata::integer(std::string_view key, std::int64_t low, std::int64_t high,
                                   std::int64_t otherwise) const {
  return contains(key) ? integer(key, low, high) : otherwise;
}

double GgufMetadata::number(std::string_view key, double low, double high) const {
  const auto& place = single(key);
  double value = 0;
  if (place.type == GgufType::f32)
    value = double{std::bit_cast<float>(static_cast<std::uint32_t>(gguf_number(place.data, 4)))};
  else if (place.type == GgufType::f64)
    value = std::bit_cast<double>(gguf_number(place.data, 8));
  else if (is_integer(place.type))
    value = std::stod(spelled(place.data, place.type));
  else
    fail(key, "is of type " + std::string(to_string(place.type)) + "; valid are numbers");
  if (!(value >= low && value <= high)) {
    fail(key, "is " + Json(value).dump() + "; valid are " + Json(low).dump() + " to " + Json(high).dump());
  }
  return value;
}
double GgufMetadata::number(std::string_view key, double low, double high, double otherwise) const {
  return contains(key) ? number(key, low, high) : otherwise;
}

bool GgufMetadata::boolean(std::string_view key, bool otherwise) const {
  if (!contains(key)) return otherwise;
  const auto& place = single(key);
  if (place.type != GgufType::boolean)
    fail(key, "is of type " + std::string(to_string(place.type)) + "; valid is bool");
  return gguf_number(place.data, 1) != 0;
}

std::string_view GgufMetadata::string(std::string_view key) const {
  const auto& place = single(key);
  if (place.type != GgufType::string)
    fail(key, "is of type " + std::string(to_string(place.type)) + "; valid is string");
  return string_at(place.data);
}
std::string_view GgufMetadata::string(std::string_view key, std::string_view otherwise) const {
  return contains(key) ? string(key) : otherwise;
}

std::vector<std::string_view> GgufMetadata::strings(std::string_view key) const {
  const auto& place = array(key);
  if (place.type != GgufType::string)
    fail(key, "is an array of " + std::string(to_string(place.type)) + "; valid are strings");
  std::vector<std::string_view> list;
  list.reserve(static_cast<std::size_t>(place.count));
  const auto* data = place.data;
  for (std::uint64_t i = 0; i < place.count; ++i) {
    list.push_back(string_at(data));
    data += 8 + list.back().size();
  }
  return list;
}

std::vector<std::int64_t> GgufMetadata::integers(std::string_view key, std::int64_t low, std::int64_t high) const {
  const auto& place = array(key);
  if (!is_integer(place.type))
    fail(key, "is an array of " + std::string(to_string(place.type)) + valid_integers(low, high));
  std::vector<std::int64_t> list;
  list.reserve(static_cast<std::size_t>(place.count));
  for (std::uint64_t i = 0; i < place.count; ++i) {
    const auto* data = place.data + i * gguf_size_of(place.type);
    const auto value = integer_at(data, place.type, low, high);
    if (!value)
      fail(key, "has " + spelled(data, place.type) + " as element " + std::to_string(i) + valid_integers(low, high));
    list.push_back(*value);
  }
  return list;
}

std::vector<float> GgufMetadata::floats(std::string_view key) const {
  const auto& place = array(key);
  if (place.type != GgufType::f32)
    fail(key, "is an array of " + std::string(to_string(place.type)) + "; valid are f32");
  std::vector<float> list;
  list.reserve(static_cast<std::size_t>(place.count));
  for (std::uint64_t i = 0; i < place.count; ++i) {
    list.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(gguf_number(place.data + i * 4, 4))));
    if (!std::isfinite(list.back())) fail(key, "has element " + std::to_string(i) + ", which is not finite");
  }
  return list;
}

}  // namespace troika::models
