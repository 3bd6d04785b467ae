// SPDX-License-Identifier: Apache-2.0
#pragma once

// nlohmann::json for files that may be hostile: bounded depth, no duplicate keys, every complaint an Error that names
// the file and the field. Private to src.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <troika/core/error.hpp>

namespace troika::models {

using Json = nlohmann::json;

inline constexpr int max_json_depth = 64;

[[noreturn]] inline void bad_file(const std::string& text) { throw Error(Fault::bad_file, text); }
[[noreturn]] inline void unsupported(const std::string& text) { throw Error(Fault::unsupported, text); }

// A document takes up to thirty times its text: "[],[],[]". Bounded: no more than twice its text and 512 KiB, which is
// far more than any config.json needs.
enum class JsonMemory { any, bounded };

// Error{bad_file} with the position for anything that is not JSON, nested deeper than max_json_depth, or has a key
// twice; or takes too much memory.
Json parse_json(std::string_view text, const std::string& origin, JsonMemory memory = JsonMemory::any);

// Hands `text` to a parser of events, which throws for what it does not like. For documents too large for a Json.
void parse_json_events(std::string_view text, nlohmann::json_sax<Json>& events, const std::string& origin);
// What a parser's parse_error() gets, as an Error{bad_file}.
[[noreturn]] void bad_json(const std::string& origin, std::size_t position, const std::exception& error);

// The file, at most `max_bytes` long.
Json read_json(const std::filesystem::path& path, std::size_t max_bytes, JsonMemory memory = JsonMemory::any);

// Whether there is anything at the path; unlike std::filesystem::exists, never throws.
bool is_there(const std::filesystem::path& path);

// Text from a file as part of a message: printable, and never longer than a line.
std::string in_quotes(std::string_view text);
// A value as part of a message.
std::string shown(const Json& value);

// A JSON object together with where it stands, so that typed reads can name the field that is wrong.
// Refers to the Json it was made from.
class Fields {
 public:
  Fields(const Json& object, std::string where);

  const std::string& where() const { return where_; }
  bool contains(const char* key) const;     // present, perhaps null
  bool has(const char* key) const;          // present and not null
  const Json& get(const char* key) const;   // Error when absent or null
  const Json* find(const char* key) const;  // null when absent or null
  Fields object(const char* key) const;
  const Json& array(const char* key) const;  // Error when absent or not an array
  std::string string(const char* key) const;
  std::string string(const char* key, const std::string& otherwise) const;
  bool boolean(const char* key, bool otherwise) const;
  std::int64_t integer(const char* key, std::int64_t low, std::int64_t high) const;
  std::int64_t integer(const char* key, std::int64_t low, std::int64_t high, std::int64_t otherwise) const;
  double number(const char* key, double low, double high) const;
  double number(const char* key, double low, double high, double otherwise) const;

  [[noreturn]] void fail(const char* key, const std::string& why) const;

 private:
  const Json* object_;
  std::string where_;
};

// An integer of any JSON spelling that is one, within [low, high].
std::int64_t to_integer(const Json& value, std::int64_t low, std::int64_t high, const std::string& where);

}  // namespace troika::models
