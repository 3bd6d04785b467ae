// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <ostream>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <troika/core/lane.hpp>

namespace troika {

// Spans of work, one track per rank and lane, written as Chrome trace JSON that ui.perfetto.dev opens. Perfetto asks
// that spans on one track nest; one thread writes a track, so they do.
class Trace {
 public:
  using Clock = std::chrono::steady_clock;

  class Track {
   public:
    Track(int rank, Lane lane) : rank_(rank), lane_(lane) { spans_.reserve(4096); }
    // `name` must outlive the trace: a literal, or from Trace::keep(). Thread-safe: a task in a lane and a collective
    // of a rank may share a track.
    void record(std::string_view name, Clock::time_point begin, Clock::time_point end, std::uint64_t bytes = 0) {
      std::lock_guard lock(mutex_);
      spans_.push_back({name, begin, end, bytes});
    }

    // Time in all spans so far. For the thread that writes the track, or when none does.
    Clock::duration total() const {
      Clock::duration sum{};
      for (const auto& span : spans_) sum += span.end - span.begin;
      return sum;
    }

   private:
    friend class Trace;
    struct Recorded {
      std::string_view name;
      Clock::time_point begin, end;
      std::uint64_t bytes;
    };
    int rank_;
    Lane lane_;
    std::mutex mutex_;
    std::vector<Recorded> spans_;
  };

  // The track of this rank and lane, made at the first call. Thread-safe; the track itself has one writer.
  Track& track(int rank, Lane lane) {
    std::lock_guard lock(mutex_);
    for (auto& track : tracks_)
      if (track.rank_ == rank && track.lane_ == lane) return track;
    return tracks_.emplace_back(rank, lane);
  }

  // The same text, kept as long as the trace. Thread-safe.
  std::string_view keep(std::string_view name) {
    std::lock_guard lock(mutex_);
    const auto kept = names_.find(name);
    return kept != names_.end() ? *kept : *names_.emplace(name).first;
  }

  // Call when no track is written to.
  void write(std::ostream& out) const {
    const auto microseconds = [&](Clock::duration d) { return std::chrono::duration<double, std::micro>(d).count(); };
    const auto precision = out.precision(3);
    const auto flags = out.setf(std::ios::fixed, std::ios::floatfield);
    out << "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n"
        << R"({"ph":"M","pid":1,"name":"process_name","args":{"name":"troika"}})";
    for (const auto& track : tracks_) {
      const int tid = 2 * track.rank_ + (track.lane_ == Lane::communication ? 1 : 0) + 1;
      out << ",\n"
          << R"({"ph":"M","pid":1,"tid":)" << tid << R"(,"name":"thread_name","args":{"name":"rank )" << track.rank_
          << (track.lane_ == Lane::communication ? " communication" : " compute") << "\"}}";
      out << ",\n"
          << R"({"ph":"M","pid":1,"tid":)" << tid << R"(,"name":"thread_sort_index","args":{"sort_index":)" << tid
          << "}}";
      for (const auto& span : track.spans_) {
        out << ",\n{\"ph\":\"X\",\"pid\":1,\"tid\":" << tid << ",\"name\":\"" << escaped(span.name)
            << "\",\"ts\":" << microseconds(span.begin - start_) << ",\"dur\":" << microseconds(span.end - span.begin);
        if (span.bytes) out << ",\"args\":{\"bytes\":" << span.bytes << "}";
        out << "}";
      }
    }
    out << "\n]}\n";
    out.precision(precision);
    out.flags(flags);
  }

 private:
  static std::string escaped(std::string_view text) {
    std::string result;
    for (const char c : text) {
      if (c == '"' || c == '\\') result += '\\';
      result += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
    return result;
  }

  Clock::time_point start_ = Clock::now();
  std::mutex mutex_;
  std::deque<Track> tracks_;  // addresses stay
  std::set<std::string, std::less<>> names_;
};

// Records the time from here to the end of the scope; without a track it costs one branch.
class Span {
 public:
  Span(Trace::Track* track, std::string_view name, std::uint64_t bytes = 0)
      : track_(track), name_(name), bytes_(bytes) {
    if (track_) begin_ = Trace::Clock::now();
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;
  ~Span() {
    if (track_) track_->record(name_, begin_, Trace::Clock::now(), bytes_);
  }

 private:
  Trace::Track* track_;
  std::string_view name_;
  std::uint64_t bytes_;
  Trace::Clock::time_point begin_{};
};

}  // namespace troika
