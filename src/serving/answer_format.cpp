// SPDX-License-Identifier: Apache-2.0
#include "answer_format.hpp"

#include <string>

#include "in_order.hpp"

namespace troika::serving {
namespace {

// Where the schema stands in what was asked, so that nobody has to guess.
models::Grammar grammar_of(const Ordered& schema, const char* where) {
  try {
    return models::Grammar::of_schema(schema.dump());
  } catch (const Error& error) {
    throw Error(error.fault(), std::string(where) + ": " + error.what());
  }
}

}  // namespace

std::optional<models::Grammar> read_format(const Fields& fields, std::string_view body) {
  const Json* format = fields.find("format");
  if (format == nullptr || *format == "") return std::nullopt;
  if (*format == "json") return models::Grammar::json_object();
  if (!format->is_object()) fields.fail("format", "must be \"json\" or a JSON schema, not " + models::shown(*format));
  return grammar_of(in_order(fields, body, "format"), "format");
}

std::optional<models::Grammar> read_response_format(const Fields& fields, std::string_view body) {
  if (!fields.has("response_format")) return std::nullopt;
  const Fields format = fields.object("response_format");
  const auto type = format.string("type");
  if (type == "text") return std::nullopt;
  if (type == "json_object") return models::Grammar::json_object();
  if (type != "json_schema") format.fail("type", "must be \"text\", \"json_object\" or \"json_schema\"");
  (void)format.object("json_schema").get("schema");
  return grammar_of(in_order(fields, body, "response_format").at("json_schema").at("schema"), "response_format");
}

}  // namespace troika::serving
