// SPDX-License-Identifier: Apache-2.0
#include "json.hpp"

#include <cmath>
#include <limits>
#include <system_error>

#include <troika/models/files/mapped_file.hpp>

namespace troika::models {
namespace {

// Builds the document from parser events. nlohmann's own builder keeps the last of two equal keys and has no depth
// limit, and a document thousands of levels deep overflows the stack when it is copied.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Builder(Json& root, const std::string& origin, std::size_t memory) : root_(root), origin_(origin), left_(memory) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override {
    spend(sizeof(string_t) + 16 + value.size());
    return add(std::move(value));
  }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    spend(96 + name.size());
    auto& object = stack_.back()->get_ref<Json::object_t&>();
    const auto [place, inserted] = object.try_emplace(std::move(name), nullptr);
    if (!inserted) bad_file(origin_ + ": the key " + in_quotes(place->first) + " appears twice in one object");
    slot_ = &place->second;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    bad_json(origin_, position, error);
  }

 private:
  template <class T>
  Json* place(T&& value) {
    if (stack_.empty()) {
      root_ = std::forward<T>(value);
      return &root_;
    }
    if (stack_.back()->is_array()) {
      spend(3 * sizeof(Json));  // a list is copied to one twice as long when it is full
      auto& array = stack_.back()->get_ref<Json::array_t&>();
      return &array.emplace_back(std::forward<T>(value));
    }
    *slot_ = std::forward<T>(value);
    return slot_;
  }
  template <class T>
  bool add(T&& value) {
    place(std::forward<T>(value));
    return true;
  }
  bool open(Json container) {
    if (stack_.size() >= max_json_depth)
      bad_file(origin_ + " is nested deeper than " + std::to_string(max_json_depth) + " levels");
    spend(64);
    stack_.push_back(place(std::move(container)));
    return true;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }

  // Bytes of memory, from above.
  void spend(std::size_t bytes) {
    if (bytes > left_) bad_file(origin_ + " has far more values than a file of its kind needs");
    left_ -= bytes;
  }

  Json& root_;
  const std::string& origin_;
  std::size_t left_;
  std::vector<Json*> stack_;
  Json* slot_ = nullptr;  // where the value of the last key goes
};

}  // namespace

Json parse_json(std::string_view text, const std::string& origin, JsonMemory memory) {
  Json root;
  const bool bounded = memory == JsonMemory::bounded;
  Builder builder(root, origin,
                  bounded ? 2 * text.size() + (std::size_t{512} << 10) : std::numeric_limits<std::size_t>::max());
  parse_json_events(text, builder, origin);
  return root;
}

void parse_json_events(std::string_view text, nlohmann::json_sax<Json>& events, const std::string& origin) {
  // nlohmann takes a zero byte for the end of the text, and would accept anything after it.
  if (const auto zero = text.find('\0'); zero != std::string_view::npos) {
    bad_file(origin + " is not valid JSON at byte " + std::to_string(zero) + ": a zero byte");
  }
  Json::sax_parse(text.begin(), text.end(), &events);
}

void bad_json(const std::string& origin, std::size_t position, const std::exception& error) {
  std::string why = error.what();  // "[json.exception.parse_error.101] parse error at ...: reason; last read: '...'"
  if (const auto at = why.find("; last read"); at != std::string::npos) why.resize(at);
  if (const auto at = why.find("] "); at != std::string::npos) why.erase(0, at + 2);
  bad_file(origin + " is not valid JSON at byte " + std::to_string(position) + ": " + in_quotes(why));
}

Json read_json(const std::filesystem::path& path, std::size_t max_bytes, JsonMemory memory) {
  const MappedFile file = MappedFile::open(path);
  if (file.size() > max_bytes) {
    bad_file(path.string() + " has " + std::to_string(file.size()) + " bytes; at most " + std::to_string(max_bytes) +
             " are accepted for this kind of file");
  }
  return parse_json({reinterpret_cast<const char*>(file.bytes().data()), file.size()}, path.string(), memory);
}

bool is_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t limit = 120;
  constexpr char hex[] = "0123456789abcdef";
  std::string out = "'";
  for (const char c : text.substr(0, limit)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += "\\x";
      out += hex[byte >> 4];
      out += hex[byte & 15];
    } else {
      out += c;
    }
  }
  if (text.size() > limit) {
    while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xc0) == 0x80) out.pop_back();  // whole characters
    if (!out.empty() && static_cast<unsigned char>(out.back()) >= 0xc0) out.pop_back();
    out += "...";
  }
  return out + "'";
}

std::string shown(const Json& value) {
  if (value.is_string()) return in_quotes(value.get_ref<const std::string&>());
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  return value.dump();
}

Fields::Fields(const Json& object, std::string where) : object_(&object), where_(std::move(where)) {
  if (!object.is_object()) bad_file(where_ + " must be a JSON object, not " + shown(object));
}

const Json* Fields::find(const char* key) const {
  const auto at = object_->find(key);
  return at == object_->end() || at->is_null() ? nullptr : &*at;
}
bool Fields::contains(const char* key) const { return object_->contains(key); }
bool Fields::has(const char* key) const { return find(key) != nullptr; }

const Json& Fields::get(const char* key) const {
  const Json* value = find(key);
  if (value == nullptr) bad_file(where_ + " has no field '" + key + "'");
  return *value;
}

Fields Fields::object(const char* key) const { return {get(key), where_ + ": " + key}; }

const Json& Fields::array(const char* key) const {
  const Json& value = get(key);
  if (!value.is_array()) fail(key, "must be a list, not " + shown(value));
  return value;
}

std::string Fields::string(const char* key) const {
  const Json& value = get(key);
  if (!value.is_string()) fail(key, "must be a string, not " + shown(value));
  return value.get<std::string>();
}
std::string Fields::string(const char* key, const std::string& otherwise) const {
  return has(key) ? string(key) : otherwise;
}

bool Fields::boolean(const char* key, bool otherwise) const {
  const Json* value = find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) fail(key, "must be true or false, not " + shown(*value));
  return value->get<bool>();
}

std::int64_t Fields::integer(const char* key, std::int64_t low, std::int64_t high) const {
  return to_integer(get(key), low, high, where_ + ": " + key);
}
std::int64_t Fields::integer(const char* key, std::int64_t low, std::int64_t high, std::int64_t otherwise) const {
  return has(key) ? integer(key, low, high) : otherwise;
}

double Fields::number(const char* key, double low, double high) const {
  const Json& value = get(key);
  if (!value.is_number()) fail(key, "must be a number, not " + shown(value));
  const double number = value.get<double>();
  if (!(number >= low && number <= high)) {
    fail(key, "is " + value.dump() + "; valid values are " + Json(low).dump() + " to " + Json(high).dump());
  }
  return number;
}
double Fields::number(const char* key, double low, double high, double otherwise) const {
  return has(key) ? number(key, low, high) : otherwise;
}

void Fields::fail(const char* key, const std::string& why) const { bad_file(where_ + ": " + key + " " + why); }

std::int64_t to_integer(const Json& value, std::int64_t low, std::int64_t high, const std::string& where) {
  const std::string valid = "; valid values are the integers " + std::to_string(low) + " to " + std::to_string(high);
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (high >= 0 && number <= static_cast<std::uint64_t>(high) && static_cast<std::int64_t>(number) >= low)
      return static_cast<std::int64_t>(number);
  } else if (value.is_number_integer()) {
    const auto number = value.get<std::int64_t>();
    if (number >= low && number <= high) return number;
  } else if (value.is_number_float()) {
    const double number = value.get<double>();  // 2048.0 is written by some exporters
    if (std::trunc(number) == number && number >= static_cast<double>(low) && number <= static_cast<double>(high) &&
        std::abs(number) < 0x1p53)
      return static_cast<std::int64_t>(number);
  }
  bad_file(where + " is " + shown(value) + valid);
}

}  // namespace troika::models
