// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include <troika/observe/alerts.hpp>
#include <troika/serving/engine_sampler.hpp>
#include <troika/serving/http_server.hpp>
#include <troika/serving/request_log.hpp>

namespace troika::serving {

// The page, which asks /dashboard/state for what it shows. It needs nothing else from anywhere.
HttpAnswer dashboard_page();

// {"uptime_seconds", "models": [...], "latency": {...}, "requests": [...], "alerts": [...]}
HttpAnswer dashboard_state(const std::vector<SampledEngine>& engines, const RequestLog& requests,
                           const std::vector<Alert>& alerts, Clock::time_point start, Clock::time_point now);

}  // namespace troika::serving
