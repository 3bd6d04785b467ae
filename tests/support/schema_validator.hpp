// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <regex>
#include <string>

#include <nlohmann/json.hpp>

namespace troika::test {

// Whether a value is valid under a JSON Schema of the keywords that grammars support, read from the specification and
// not from the grammar: no automaton, no order, defaults as the specification has them.
class SchemaValidator {
 public:
  using Json = nlohmann::json;
  explicit SchemaValidator(Json root) : root_(std::move(root)) {}
  bool operator()(const Json& value) const { return valid(root_, value); }

 private:
  static bool is(const Json& value, const std::string& type) {
    if (type == "integer")
      return value.is_number_integer() || (value.is_number_float() && value == std::floor(value.get<double>()));
    if (type == "number") return value.is_number();
    return type == value.type_name();
  }
  static std::size_t characters(const std::string& text) {
    return static_cast<std::size_t>(
        std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
  }
  bool valid(const Json& s, const Json& value) const {
    if (s.is_boolean()) return s.get<bool>();
    const auto number_of_valid = [&](const Json& list) {
      return std::ranges::count_if(list, [&](const Json& one) { return valid(one, value); });
    };
    if (s.contains("$ref") && !valid(root_.at(Json::json_pointer(s["$ref"].get<std::string>().substr(1))), value))
      return false;
    if (s.contains("anyOf") && number_of_valid(s["anyOf"]) == 0) return false;
    if (s.contains("oneOf") && number_of_valid(s["oneOf"]) != 1) return false;
    if (s.contains("allOf") && number_of_valid(s["allOf"]) != static_cast<std::ptrdiff_t>(s["allOf"].size()))
      return false;
    if (s.contains("const") && s["const"] != value) return false;
    if (s.contains("enum") && std::ranges::find(s["enum"], value) == s["enum"].end()) return false;
    if (s.contains("type")) {
      const auto& type = s["type"];
      if (type.is_string() ? !is(value, type)
                           : std::ranges::none_of(type, [&](const Json& one) { return is(value, one); }))
        return false;
    }
    if (value.is_number()) {
      const auto number = value.get<double>();
      if (s.contains("minimum") && number < s["minimum"]) return false;
      if (s.contains("maximum") && number > s["maximum"]) return false;
      if (s.contains("exclusiveMinimum") && number <= s["exclusiveMinimum"]) return false;
      if (s.contains("exclusiveMaximum") && number >= s["exclusiveMaximum"]) return false;
      if (s.contains("multipleOf") && std::fmod(number, s["multipleOf"].get<double>()) != 0) return false;
    }
    if (value.is_string()) {
      const auto& text = value.get_ref<const std::string&>();
      if (s.contains("minLength") && characters(text) < s["minLength"]) return false;
      if (s.contains("maxLength") && characters(text) > s["maxLength"]) return false;
      if (s.contains("pattern") &&
          !std::regex_search(text, std::regex(s["pattern"].get<std::string>(), std::regex::ECMAScript)))
        return false;
    }
    if (value.is_array()) {
      if (s.contains("minItems") && value.size() < s["minItems"]) return false;
      if (s.contains("maxItems") && value.size() > s["maxItems"]) return false;
      const auto first = s.value("prefixItems", Json::array());
      for (std::size_t i = 0; i < value.size(); ++i) {
        if (i < first.size() ? !valid(first[i], value[i]) : s.contains("items") && !valid(s["items"], value[i]))
          return false;
      }
      if (s.value("uniqueItems", false))
        for (std::size_t i = 0; i < value.size(); ++i)
          for (std::size_t j = 0; j < i; ++j)
            if (value[i] == value[j]) return false;
    }
    if (value.is_object()) {
      if (s.contains("required"))
        for (const auto& name : s["required"])
          if (!value.contains(name.get<std::string>())) return false;
      for (const auto& [name, member] : value.items()) {
        if (s.contains("properties") && s["properties"].contains(name)) {
          if (!valid(s["properties"][name], member)) return false;
        } else if (s.contains("additionalProperties") && !valid(s["additionalProperties"], member)) {
          return false;
        }
      }
    }
    return true;
  }

  const Json root_;
};

}  // namespace troika::test
