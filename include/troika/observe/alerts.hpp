// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace troika {

// An alert fires once its value has been `fires_at` or more for as long as `hold`, and is resolved once it has been
// below `resolves_below` for as long: what goes up and down around one limit does not call every time.
struct AlertRule {
  std::string_view name;  // a literal
  double fires_at = 1, resolves_below = 1;
  std::chrono::nanoseconds hold{};
};

// What an alert is about, as it is now.
struct Measurement {
  AlertRule rule;
  std::string subject;  // "tiny on host:1", say
  double value = 0;
  std::string text{};  // for people
};

struct Alert {
  std::string rule, subject, text;
  double value = 0;
  bool firing = false;
  std::chrono::steady_clock::time_point since{};  // of the state that it is in
};

// Thread-safe, but for rounds: one thread measures.
class Alerts {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // `changed` is called when an alert fires and when it is resolved, on the thread that measures.
  explicit Alerts(std::function<void(const Alert&)> changed = {}) : changed_(std::move(changed)) {}

  // A round: all that there is to measure. What fired and is not among it is resolved, since it is gone.
  void measure(const std::vector<Measurement>& round, TimePoint now) {
    std::vector<Alert> changes;
    {
      std::lock_guard lock(mutex_);
      for (auto& [key, entry] : entries_) entry.seen = false;
      for (const auto& one : round) {
        auto& entry = entries_[{std::string(one.rule.name), one.subject}];
        entry.seen = true;
        if (update(entry, one, now)) changes.push_back(entry.alert);
      }
      for (auto it = entries_.begin(); it != entries_.end();) {
        auto& alert = it->second.alert;
        const bool seen = it->second.seen;
        if (!seen && alert.firing) {
          alert.firing = false;
          alert.since = now;
          changes.push_back(alert);
        }
        it = seen ? std::next(it) : entries_.erase(it);
      }
    }
    if (!changed_) return;
    for (const auto& alert : changes) changed_(alert);
  }

  // The longest first.
  std::vector<Alert> firing() const {
    std::vector<Alert> list;
    {
      std::lock_guard lock(mutex_);
      for (const auto& [key, entry] : entries_) {
        if (entry.alert.firing) list.push_back(entry.alert);
      }
    }
    std::ranges::stable_sort(list, {}, &Alert::since);
    return list;
  }

 private:
  struct Entry {
    Alert alert{};
    bool turning = false;  // the value is where the other state begins, since `turned`
    TimePoint turned{};
    bool seen = false;
  };

  // True where the alert begins to fire or is resolved.
  static bool update(Entry& entry, const Measurement& one, TimePoint now) {
    auto& alert = entry.alert;
    alert.rule = one.rule.name;
    alert.subject = one.subject;
    alert.text = one.text;
    alert.value = one.value;
    const bool turns = alert.firing ? one.value < one.rule.resolves_below : one.value >= one.rule.fires_at;
    if (turns && !entry.turning) entry.turned = now;
    entry.turning = turns;
    if (!turns || now - entry.turned < one.rule.hold) return false;
    alert.firing = !alert.firing;
    alert.since = now;
    entry.turning = false;
    return true;
  }

  std::function<void(const Alert&)> changed_;
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, Entry> entries_;  // by rule and subject
};

}  // namespace troika
