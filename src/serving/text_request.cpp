// SPDX-License-Identifier: Apache-2.0
#include "text_request.hpp"

#include <charconv>
#include <cstdio>
#include <ctime>
#include <random>
#include <utility>

namespace troika::serving {

Json parse_body(std::string_view body) {
  if (body.find_first_not_of(" \t\r\n") == std::string_view::npos) throw Refusal(400, "missing request body");
  Json json = models::parse_json(body, "the request");
  if (!json.is_object()) throw Refusal(400, "the request must be a JSON object, not " + models::shown(json));
  return json;
}

std::string model_name(const Fields& fields) {
  auto name = fields.string("model", "");
  if (name.empty()) name = fields.string("name", "");
  if (name.empty()) throw Refusal(400, "model is required");
  return name;
}

std::vector<std::string> stop_strings(const Fields& fields, bool one_is_enough) {
  constexpr std::size_t most = 64, longest = 1024;
  const Json* value = fields.find("stop");
  if (value == nullptr) return {};
  if (one_is_enough && value->is_string()) return {value->get<std::string>()};
  std::vector<std::string> stops;
  for (const Json& stop : fields.array("stop")) {
    if (!stop.is_string()) fields.fail("stop", "must be a list of strings; one is " + models::shown(stop));
    stops.push_back(stop.get<std::string>());
    if (stops.back().size() > longest)
      fields.fail("stop", "may have strings of up to " + std::to_string(longest) + " bytes");
  }
  if (stops.size() > most) fields.fail("stop", "may have up to " + std::to_string(most) + " strings");
  return stops;
}

std::uint64_t random_seed() {
  std::random_device device;
  return (std::uint64_t{device()} << 32) ^ device();
}

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

HttpAnswer json_answer(int status, const Json& json) {
  HttpAnswer answer{status, {{"Content-Type", "application/json; charset=utf-8"}}, dump(json)};
  if (status == 503 || status == 429) answer.headers.emplace_back("Retry-After", "1");
  return answer;
}

std::string rfc3339(std::chrono::system_clock::time_point time) {
  const auto since = time.time_since_epoch();
  const auto seconds = std::chrono::floor<std::chrono::seconds>(since);
  const std::time_t count = seconds.count();
  std::tm utc{};
  ::gmtime_r(&count, &utc);
  char date[32], text[64];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(text, sizeof text, "%s.%09lldZ", date,
                static_cast<long long>(std::chrono::duration_cast<std::chrono::nanoseconds>(since - seconds).count()));
  return text;
}

std::chrono::duration<double> to_duration(const Json& value, const std::string& where) {
  using Seconds = std::chrono::duration<double>;
  const auto from = [](double seconds) { return seconds < 0 ? Seconds::max() : Seconds(seconds); };
  if (value.is_number()) return from(value.get<double>());
  const auto fail = [&] {
    throw Refusal(400, where + " is seconds or a duration such as \"5m\" or \"1h30m\", not " + models::shown(value));
  };
  if (!value.is_string()) fail();
  const auto& text = value.get_ref<const std::string&>();
  constexpr std::pair<std::string_view, double> units[] = {{"ns", 1e-9}, {"us", 1e-6}, {"µs", 1e-6}, {"μs", 1e-6},
                                                           {"ms", 1e-3}, {"s", 1},     {"m", 60},    {"h", 3600}};
  const char *at = text.data(), *const end = at + text.size();
  const bool negative = at != end && *at == '-';
  if (at != end && (*at == '-' || *at == '+')) ++at;
  if (std::string_view(at, end) == "0") return Seconds(0);
  if (at == end) fail();
  double seconds = 0;
  while (at != end) {
    double count = 0;
    if (*at == '-') fail();
    const auto [after, error] = std::from_chars(at, end, count, std::chars_format::fixed);
    if (error != std::errc()) fail();
    const std::string_view rest(after, end);
    const auto length = std::min(rest.find_first_of("0123456789."), rest.size());
    double unit = 0;
    for (const auto& [name, size] : units)
      if (rest.substr(0, length) == name) unit = size;
    if (unit == 0) fail();
    seconds += count * unit;
    at = after + length;
  }
  return from(negative && seconds > 0 ? -1 : seconds);
}

}  // namespace troika::serving
