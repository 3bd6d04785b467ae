// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "report.hpp"

namespace stress {
namespace {

nlohmann::json percentiles(const std::vector<double>& seconds) {
  nlohmann::json json;
  for (const auto& [name, part] : {std::pair{"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"most", 1.0}})
    json[name] = 1e3 * percentile(seconds, part);
  return json;
}

}  // namespace

void write_json(std::ostream& out, const std::vector<Summary>& summaries) {
  auto list = nlohmann::json::array();
  for (const auto& s : summaries) {
    list.push_back({{"name", s.name},
                    {"requests", s.requests},
                    {"answered", s.answered},
                    {"refused", s.refusals.size()},
                    {"failed", s.failed()},
                    {"in_budget", s.in_budget},
                    {"seconds", s.seconds},
                    {"qps", s.qps()},
                    {"goodput", s.goodput()},
                    {"prompt_tokens", s.prompt_tokens},
                    {"tokens", s.tokens},
                    {"tokens_per_second", s.per_second(static_cast<double>(s.tokens))},
                    {"all_tokens_per_second", s.per_second(static_cast<double>(s.prompt_tokens + s.tokens))},
                    {"first_token_ms", percentiles(s.first_tokens)},
                    {"per_token_ms", percentiles(s.token_times)},
                    {"response_ms", percentiles(s.responses)},
                    {"refusal_ms", percentiles(s.refusals)},
                    {"share", s.share},
                    {"errors", s.errors}});
  }
  out << list.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}

}  // namespace stress
