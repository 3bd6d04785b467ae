// SPDX-License-Identifier: Apache-2.0
#include "in_order.hpp"

namespace troika::serving {
namespace {

// Objects that keep their order look for a member from front to back.
void refuse_wide(const Json& json) {
  constexpr std::size_t most_members = 1000;
  if (json.is_object() && json.size() > most_members)
    throw Refusal(400, "an object here may have up to " + std::to_string(most_members) + " members");
  for (const Json& inner : json)
    if (inner.is_structured()) refuse_wide(inner);
}

}  // namespace

Ordered in_order(const Fields& fields, std::string_view body, const char* member) {
  refuse_wide(fields.get(member));
  const auto wanted = [&](int depth, Ordered::parse_event_t event, const Ordered& value) {
    return event != Ordered::parse_event_t::key || depth != 1 || value == member;
  };
  return Ordered::parse(body, wanted).at(member);
}

Ordered in_order(std::string_view text, const std::string& where) {
  refuse_wide(models::parse_json(text, where));
  return Ordered::parse(text);
}

}  // namespace troika::serving
