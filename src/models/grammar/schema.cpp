// SPDX-License-Identifier: Apache-2.0
//
// JSON Schemas as grammars.
#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include <troika/models/grammar/grammar.hpp>

#include "../json.hpp"
#include "json_rules.hpp"
#include "number_range.hpp"
#include "pattern.hpp"

namespace troika::models {
namespace {

using Ordered = nlohmann::ordered_json;  // members come in the order of the schema

constexpr std::size_t most_bytes = 64 << 10, most_compared = 100'000;
constexpr int most_nested = 100;

// Says nothing about which values are allowed.
constexpr std::array<std::string_view, 14> annotations{"title", "description", "default",  "examples",  "$schema",
                                                       "$id",   "$comment",    "readOnly", "writeOnly", "deprecated",
                                                       "$defs", "definitions", "$anchor",  "example"};

// Which type keywords are about.
constexpr std::array<std::pair<std::string_view, std::array<std::string_view, 5>>, 4> about{{
    {"object", {"properties", "required", "additionalProperties"}},
    {"array", {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}},
    {"string", {"minLength", "maxLength", "pattern", "format"}},
    {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}},
}};

std::string_view type_about(std::string_view key) {
  for (const auto& [type, words] : about)
    if (!key.empty() && std::ranges::find(words, key) != words.end()) return type;
  return {};
}

// What the formats of strings are that a pattern can say. Narrower than they could be: no leap days, no time zones but
// Z.
constexpr std::array<std::pair<std::string_view, std::string_view>, 6> formats{{
    {"date", "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])$"},
    {"time", "^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$"},
    {"date-time", "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$"},
    {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
    {"ipv4", "^(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\\.(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}$"},
    {"email", "^[a-z0-9]{1,32}(\\.[a-z0-9]{1,32}){0,3}@[a-z0-9]{1,32}(\\.[a-z]{2,16}){1,3}$"},
}};

bool is_type(const Ordered& value, std::string_view type) {
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "object") return value.is_object();
  return type == "array" && value.is_array();
}

class SchemaCompiler {
 public:
  explicit SchemaCompiler(const Ordered& root) : root_(root), rules_(builder_) {}

  Automaton compile(std::string source) {
    const State value = schema(root_, "#");
    return finished(value, std::move(source));
  }
  Automaton json_object() { return finished(rules_.any_object(), "{}"); }

 private:
  // A model may begin with a space: many tokens do.
  Automaton finished(State value, std::string source) {
    const State begin = builder_.add(), place = builder_.add(), end = builder_.add();
    builder_.call(begin, rules_.white_space(), place);
    builder_.call(place, value, end);
    builder_.finish(end);
    return builder_.build(begin, std::move(source));
  }

  [[noreturn]] static void fail(const std::string& place, const std::string& why) {
    unsupported("the schema at " + in_quotes(place) + ": " + why);
  }

  // A rule, made once for each place of the schema, so that references may go in circles.
  State schema(const Ordered& value, const std::string& place) {
    if (value.is_boolean() && value.get<bool>()) return rules_.any_value();
    if (!value.is_object()) fail(place, "a schema must be an object or true");
    const auto [at, fresh] = made_.try_emplace(&value, State{0});
    if (!fresh) return at->second;
    const State begin = at->second = builder_.add();
    if (++depth_ > most_nested)
      fail(place,
           "schemas within schemas, or behind references, are supported " + std::to_string(most_nested) + " deep");
    builder_.jump(begin, rule_of(value, place));
    --depth_;
    return begin;
  }

  State rule_of(const Ordered& s, const std::string& place) {
    std::vector<std::string> keywords;
    for (const auto& [key, unused] : s.items())
      if (std::ranges::find(annotations, key) == annotations.end()) keywords.push_back(key);
    const auto has = [&](const char* key) { return s.contains(key); };
    const auto only = [&](std::initializer_list<std::string_view> allowed) {
      for (const auto& key : keywords) {
        if (std::ranges::find(allowed, key) == allowed.end())
          fail(place, "the keyword " + in_quotes(key) + " is not supported" + (has_known(key) ? " here" : ""));
      }
    };
    if (keywords.empty()) return rules_.any_value();
    if (has("$ref")) return only({"$ref"}), reference(s, place);
    for (const char* key : {"anyOf", "oneOf", "allOf"})
      if (has(key)) return only({key}), alternatives(s, key, place);
    if (has("const") || has("enum")) return only({"const", "enum", "type"}), values(s, place);
    std::vector<State> options;
    const auto types = types_of(s, place);
    const bool one = types.size() == 1;
    for (const auto& type : types) {
      if (type == "object")
        options.push_back(object(s, place));
      else if (type == "array")
        options.push_back(array(s, place));
      else if (type == "string")
        options.push_back(string(s, place));
      else if (type == "number" || type == "integer")
        options.push_back(number_range(builder_, rules_, s, type == "integer", "the schema at " + in_quotes(place)));
      else if (type == "boolean")
        options.push_back(words({"true", "false"}));
      else if (type == "null")
        options.push_back(words({"null"}));
      else
        fail(place, "there is no type " + in_quotes(type));
    }
    const auto allowed = [&](const std::string& key) {
      const auto subject = type_about(key);
      return key == "type" || std::ranges::any_of(types, [&](const auto& type) {
               return !subject.empty() && (type == subject || (type == "integer" && subject == "number"));
             });
    };
    for (const auto& key : keywords) {
      if (!allowed(key))
        fail(place, "the keyword " + in_quotes(key) + " is not supported" + (has_known(key) ? " here" : ""));
    }
    return one ? options[0] : any_of(options);
  }

  static bool has_known(std::string_view key) {
    constexpr std::array<std::string_view, 7> known{"$ref", "anyOf", "oneOf", "allOf", "const", "enum", "type"};
    return std::ranges::find(known, key) != known.end() || !type_about(key).empty();
  }

  // Where no type is stated, it is the one that the other keywords are about.
  static std::vector<std::string> types_of(const Ordered& s, const std::string& place) {
    if (const auto at = s.find("type"); at != s.end()) {
      if (at->is_string()) return {at->get<std::string>()};
      std::vector<std::string> types;
      if (at->is_array())
        for (const auto& type : *at) types.push_back(type.is_string() ? type.get<std::string>() : "");
      if (types.empty()) fail(place, "\"type\" must be a string or a list of strings");
      return types;
    }
    for (const auto& [type, words] : about)
      for (const auto word : words)
        if (!word.empty() && s.contains(word)) return {std::string(type)};
    return {};
  }

  State words(std::initializer_list<std::string> texts) { return rules_.literals(std::vector<std::string>(texts)); }
  State any_of(std::span<const State> options) {
    const State begin = builder_.add();
    for (const State option : options) builder_.jump(begin, option);
    return begin;
  }

  const Ordered& target_of(const Ordered& s, const std::string& place, std::string& pointer) const {
    const auto& reference = s["$ref"];
    if (!reference.is_string()) fail(place, "\"$ref\" must be a string");
    pointer = reference.get<std::string>();
    if (!pointer.starts_with('#') || pointer.find('%') != std::string::npos)
      fail(place,
           "the reference " + in_quotes(pointer) + " is not supported; \"#/...\" is, to a place of the same schema");
    try {
      return root_.at(Ordered::json_pointer(pointer.substr(1)));
    } catch (const Ordered::exception&) {
      fail(place, "the reference " + in_quotes(pointer) + " leads to nothing");
    }
  }
  State reference(const Ordered& s, const std::string& place) {
    std::string pointer;
    const Ordered& target = target_of(s, place, pointer);
    return schema(target, pointer);
  }

  State alternatives(const Ordered& s, const char* key, const std::string& place) {
    const auto& list = s[key];
    if (!list.is_array() || list.empty()) fail(place, in_quotes(key) + " must be a list of schemas");
    if (key == std::string_view("allOf") && list.size() > 1)
      fail(place, "\"allOf\" with more than one schema is not supported");
    std::vector<State> options;
    for (std::size_t i = 0; i < list.size(); ++i)
      options.push_back(schema(list[i], place + "/" + key + "/" + std::to_string(i)));
    if (key == std::string_view("oneOf")) {
      for (std::size_t i = 0; i < list.size(); ++i)
        for (std::size_t j = 0; j < i; ++j)
          if (!differ(list[i], list[j], place, 0))
            fail(place,
                 "\"oneOf\" is supported where types or constants tell its schemas apart; \"anyOf\" may overlap");
    }
    return any_of(options);
  }

  // Whether it is plain that no value is allowed by both: by their types or constants, or those of a member that both
  // require.
  bool differ(const Ordered& a, const Ordered& b, const std::string& place, int depth) const {
    if (!a.is_object() || !b.is_object() || depth > 16 || ++compared_ > most_compared) return false;
    std::string pointer;
    if (a.contains("$ref")) return differ(target_of(a, place, pointer), b, place, depth + 1);
    if (b.contains("$ref")) return differ(a, target_of(b, place, pointer), place, depth + 1);
    const auto listed_a = constants(a), listed_b = constants(b);
    if (listed_a && listed_b) {
      return std::ranges::none_of(
          *listed_a, [&](const auto& value) { return std::ranges::find(*listed_b, value) != listed_b->end(); });
    }
    if (a.contains("anyOf") || b.contains("anyOf") || a.contains("oneOf") || b.contains("oneOf") ||
        a.contains("allOf") || b.contains("allOf"))
      return false;
    const auto types = [&](const Ordered& s, const auto& listed) {
      std::set<std::string> names;
      if (listed)
        for (const auto& value : *listed) names.insert(value.is_number() ? "number" : value.type_name());
      else
        for (const auto& type : types_of(s, place)) names.insert(type == "integer" ? "number" : type);
      return names;
    };
    const auto types_a = types(a, listed_a), types_b = types(b, listed_b);
    const bool apart = !types_a.empty() && !types_b.empty() &&
                       std::ranges::none_of(types_a, [&](const auto& type) { return types_b.contains(type); });
    if (apart) return true;
    const std::set<std::string> object{"object"};
    if (types_a != object || types_b != object || listed_a || listed_b) return false;
    const auto required = [](const Ordered& s, const std::string& name) {
      const auto at = s.find("required");
      return at != s.end() && at->is_array() && std::ranges::find(*at, Ordered(name)) != at->end();
    };
    if (!a.contains("properties") || !b.contains("properties") || !a["properties"].is_object() ||
        !b["properties"].is_object())
      return false;
    for (const auto& [name, value] : a["properties"].items()) {
      if (++compared_ > most_compared) return false;
      const auto other = b["properties"].find(name);
      if (other != b["properties"].end() && required(a, name) && required(b, name) && constants(value) &&
          constants(*other) && differ(value, *other, place, depth + 1))
        return true;
    }
    return false;
  }
  static std::optional<std::vector<Ordered>> constants(const Ordered& s) {
    if (!s.is_object()) return std::nullopt;
    if (const auto at = s.find("const"); at != s.end()) return std::vector<Ordered>{*at};
    if (const auto at = s.find("enum"); at != s.end() && at->is_array())
      return std::vector<Ordered>(at->begin(), at->end());
    return std::nullopt;
  }

  State values(const Ordered& s, const std::string& place) {
    if (s.contains("const") && s.contains("enum")) fail(place, "\"const\" beside \"enum\" is not supported");
    const auto listed = constants(s);
    if (!listed) fail(place, "\"enum\" must be a list");
    const auto types = types_of(s, place);
    std::vector<std::string> texts;
    for (const auto& value : *listed) {
      const bool fits =
          types.empty() || std::ranges::any_of(types, [&](const auto& type) { return is_type(value, type); });
      if (fits) texts.push_back(value.dump());
    }
    if (texts.empty()) fail(place, "no value is possible");
    return rules_.literals(texts);
  }

  static std::size_t size(const Ordered& s, const char* key, std::size_t otherwise, const std::string& place) {
    const auto at = s.find(key);
    if (at == s.end()) return otherwise;
    if (!at->is_number_integer() || *at < 0) fail(place, in_quotes(key) + " must be an integer of 0 or more");
    return at->get<std::size_t>();
  }

  State string(const Ordered& s, const std::string& place) {
    const bool bounded = s.contains("minLength") || s.contains("maxLength");
    if (bounded + s.contains("pattern") + s.contains("format") > 1)
      fail(place, "lengths, \"pattern\" and \"format\" are supported one at a time");
    if (const auto at = s.find("pattern"); at != s.end()) {
      if (!at->is_string()) fail(place, "\"pattern\" must be a string");
      return pattern_rule(builder_, rules_, at->get_ref<const std::string&>(), "the schema at " + in_quotes(place));
    }
    if (const auto at = s.find("format"); at != s.end()) {
      for (const auto& [name, pattern] : formats)
        if (*at == name) return pattern_rule(builder_, rules_, pattern, place);
      fail(place, "the format is not supported; supported are date, time, date-time, uuid, ipv4 and email");
    }
    return rules_.string(size(s, "minLength", 0, place), size(s, "maxLength", JsonRules::unbounded, place));
  }

  State array(const Ordered& s, const std::string& place) {
    const auto least = size(s, "minItems", 0, place);
    auto most = size(s, "maxItems", JsonRules::unbounded, place);
    const auto items = s.find("items"), prefix = s.find("prefixItems"), unique = s.find("uniqueItems");
    if (unique != s.end() && *unique != false) return set(s, least, most, place);
    std::vector<State> first;
    if (prefix != s.end()) {
      if (!prefix->is_array()) fail(place, "\"prefixItems\" must be a list of schemas");
      for (std::size_t i = 0; i < prefix->size(); ++i)
        first.push_back(schema((*prefix)[i], place + "/prefixItems/" + std::to_string(i)));
    }
    // Behind those of a list, others come only where the schema asks for them.
    const bool closed = items == s.end() ? prefix != s.end() : *items == false;
    if (closed) most = std::min(most, first.size());
    return rules_.array(first, closed || items == s.end() ? rules_.any_value() : schema(*items, place + "/items"),
                        least, most);
  }

  State set(const Ordered& s, std::size_t least, std::size_t most, const std::string& place) {
    constexpr std::size_t most_values = 10;
    const Ordered* items = s.contains("items") ? &s["items"] : nullptr;
    std::string pointer;
    for (int i = 0; i < most_nested && items && items->is_object() && items->contains("$ref"); ++i)
      items = &target_of(*items, place, pointer);
    const auto listed = items ? constants(*items) : std::nullopt;
    if (!listed || listed->size() > most_values || s.contains("prefixItems") || s["uniqueItems"] != true)
      fail(place, "the keyword 'uniqueItems' is supported where items are an \"enum\" of up to " +
                      std::to_string(most_values) + " values");
    std::vector<State> values;
    for (const auto& value : *listed) values.push_back(rules_.literals(std::vector{value.dump()}));
    return rules_.set(values, least, most);
  }

  State object(const Ordered& s, const std::string& place) {
    std::vector<JsonRules::Member> members;
    if (const auto at = s.find("properties"); at != s.end()) {
      if (!at->is_object()) fail(place, "\"properties\" must be an object");
      for (const auto& [name, value] : at->items())
        members.push_back({name, schema(value, place + "/properties/" + name), false});
    }
    const auto additional = s.find("additionalProperties");
    const bool closed = additional != s.end() && additional->is_boolean() && !additional->get<bool>();
    std::optional<State> further;
    if (additional != s.end() && !closed)
      further = schema(*additional, place + "/additionalProperties");
    else if (!closed && members.empty())
      further = rules_.any_value();
    if (const auto at = s.find("required"); at != s.end()) {
      if (!at->is_array()) fail(place, "\"required\" must be a list of names");
      std::map<std::string, std::size_t> places;
      for (std::size_t i = 0; i < members.size(); ++i) places.emplace(members[i].name, i);
      for (const auto& entry : *at) {
        if (!entry.is_string()) fail(place, "\"required\" must be a list of names");
        const auto& name = entry.get_ref<const std::string&>();
        const auto [known, fresh] = places.emplace(name, members.size());
        if (fresh && closed)
          fail(place, "the required member " + in_quotes(name) +
                          " is none of its properties, and further ones are not allowed");
        if (fresh) members.push_back({name, further.value_or(rules_.any_value()), true});
        members[known->second].required = true;
      }
    }
    return rules_.object(members, further);
  }

  const Ordered& root_;
  AutomatonBuilder builder_;
  JsonRules rules_;
  std::map<const Ordered*, State> made_;
  int depth_ = 0;
  mutable std::size_t compared_ = 0;
};

}  // namespace

Grammar Grammar::json_object() {
  const Ordered none;
  return Grammar(std::make_shared<const Automaton>(SchemaCompiler(none).json_object()));
}

Grammar Grammar::of_schema(std::string_view schema) {
  if (schema.size() > most_bytes)
    unsupported("the schema has " + std::to_string(schema.size()) + " bytes; at most " + std::to_string(most_bytes) +
                " are taken");
  (void)parse_json(schema, "the schema");  // bounds its depth, and finds keys that are there twice
  const auto parsed = Ordered::parse(schema);
  return Grammar(std::make_shared<const Automaton>(SchemaCompiler(parsed).compile(std::string(schema))));
}

}  // namespace troika::models
