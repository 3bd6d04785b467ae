// SPDX-License-Identifier: Apache-2.0
#include "dashboard.hpp"

#include <algorithm>
#include <chrono>

#include <nlohmann/json.hpp>

#include <dashboard_html.hpp>  // made of dashboard.html

namespace troika::serving {
namespace {

using Json = nlohmann::json;

constexpr auto dashboard_window = std::chrono::minutes(5);
constexpr std::size_t rows = 20;  // of requests

double seconds(std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); }

Json json_of(const SampledDevice& device) {
  const auto& state = device.state;
  return {{"name", state.name},
          {"lost", state.lost},
          {"busy", device.busy},
          {"waiting", device.waiting},
          {"tasks", state.tasks},
          {"faults", state.faults},
          {"memory_bytes", state.memory_bytes}};
}

Json json_of(const SampledEngine& engine) {
  const auto& load = engine.load;
  auto devices = Json::array();
  for (const auto& device : engine.devices) devices.push_back(json_of(device));
  return {{"name", engine.model},
          {"ready", load.ready},
          {"running", load.running},
          {"waiting", load.waiting},
          {"pages_used", load.pages_used},
          {"pages", load.pages},
          {"tokens", load.tokens},
          {"tokens_per_second", engine.tokens_per_second},
          {"prompt_tokens_per_second", engine.prompt_tokens_per_second},
          {"devices", devices}};
}

Json json_of(const EndedRequest& request, Clock::time_point now) {
  const auto& end = request.end;
  return {{"model", request.model},
          {"finish", to_string(end.finish)},
          {"ago_seconds", seconds(now - request.at)},
          {"prompt_tokens", end.prompt_tokens},
          {"tokens", end.tokens},
          {"first_token_seconds", request.first_token_seconds()},
          {"seconds", seconds(end.waited + end.prompt_time + end.token_time)}};
}

Json percentiles(const std::vector<double>& values) {
  if (values.empty()) return nullptr;
  return {{"p50", percentile(values, 0.5)}, {"p95", percentile(values, 0.95)}, {"p99", percentile(values, 0.99)}};
}

}  // namespace

HttpAnswer dashboard_page() {
  return {200,
          {{"Content-Type", "text/html; charset=utf-8"},
           {"Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src "
            "data:; base-uri "
            "'none'; form-action 'none'; frame-ancestors 'none'"},
           {"X-Content-Type-Options", "nosniff"},
           {"Referrer-Policy", "no-referrer"},
           {"Cache-Control", "no-cache"}},
          std::string(dashboard_html)};
}

HttpAnswer dashboard_state(const std::vector<SampledEngine>& engines, const RequestLog& requests,
                           const std::vector<Alert>& alerts, Clock::time_point start, Clock::time_point now) {
  Json models = Json::array(), latest = Json::array(), firing = Json::array();
  for (const auto& engine : engines) models.push_back(json_of(engine));
  const auto recent = requests.since(now - dashboard_window);
  std::vector<double> first_token, per_token;
  for (const auto& request : recent) {
    if (request.end.tokens > 0) first_token.push_back(request.first_token_seconds());
    if (request.end.tokens > 1) per_token.push_back(request.seconds_per_token());
  }
  for (auto request = recent.rbegin(); request != recent.rend() && latest.size() < rows; ++request)
    latest.push_back(json_of(*request, now));
  for (const auto& alert : alerts) {
    firing.push_back({{"rule", alert.rule},
                      {"subject", alert.subject},
                      {"text", alert.text},
                      {"for_seconds", seconds(now - alert.since)}});
  }
  const Json state{{"uptime_seconds", seconds(now - start)},
                   {"models", models},
                   {"latency",
                    {{"window_seconds", std::chrono::seconds(dashboard_window).count()},
                     {"requests", recent.size()},
                     {"first_token", percentiles(first_token)},
                     {"per_token", percentiles(per_token)}}},
                   {"requests", latest},
                   {"alerts", firing}};
  return {200,
          {{"Content-Type", "application/json"}, {"Cache-Control", "no-store"}},
          state.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

}  // namespace troika::serving
