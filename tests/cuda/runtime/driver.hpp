// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <cuda_runtime.h>

#include "memory.hpp"
#include "order.hpp"
#include "recorder.hpp"

namespace troika::recording {

enum class Step { done, moved, waited };

// One thing in a stream.
struct Work {
  Clock clock{};                  // what comes before it
  std::function<bool()> ready{};  // whether it may begin; empty: it may
  std::function<Step()> step{};   // on the thread of the GPUs
};

struct Stream;
class Driver;

// What one call gives to a stream, now or whenever the graph is launched that it was captured into.
struct Node {
  std::string_view kind;
  bool fixed;  // its parameters cannot be updated
  std::function<void(Driver&, Stream&)> give;
};
// Between the begin and the end of a capture.
struct Capture {
  std::thread::id thread;
  bool invalid = false;
  std::vector<Node> nodes{};
};

// What the driver has behind a cudaStream_t.
struct Stream final : shim::Stream {
  void launch(std::unique_ptr<shim::Grid> grid) override;

  int gpu = 0;
  std::size_t actor = 0;  // in clocks
  Clock clock{};          // of the work that was given last
  std::deque<Work> works{};
  std::int64_t given = 0, finished = 0;
  std::optional<Capture> capture{};
};

struct EventState {
  std::int64_t recorded = 0, fired = 0;  // how often
  Clock clock{};                         // of the last record
};

// What all calls work on, under one lock.
class Driver {
 public:
  explicit Driver(Options options);
  ~Driver();
  static Driver* current;  // of the Recording that lives, or null

  std::mutex mutex;
  const Options options;
  Memory memory;
  std::list<Stream> streams;
  std::set<std::pair<int, int>> peers;       // who was let reach whose memory
  std::multimap<const void*, int> opened;    // memory, and the processes that have opened it
  std::map<std::string, std::int64_t> live;  // things by their kind
  std::vector<cudaError_t> errors;           // of each GPU; a failed one stays so
  std::vector<std::string> problems;
  std::int64_t calls = 0, launches = 0, allocations = 0, graphs_made = 0, graph_launches = 0;
  std::int64_t failing = 0;  // the number of the call that does

  // All of these are called with the lock held.
  bool call_fails() { return ++calls == failing; }
  void problem(std::string what);
  void count(const std::string& kind, int more);
  Stream* find(cudaStream_t stream);
  Stream* add_stream(int gpu);
  void remove(Stream& stream);
  // A call that a capture takes, where there is one.
  void add(Stream& stream, Node node);
  // Whether the calling thread captures, so that what is no work of a stream must not be called; that is told then.
  bool forbidden(const char* call);
  // The same of a stream that must not be capturing.
  bool is_capturing(Stream& stream, const char* call);
  // The work comes after all that the calling thread knows of, and after what is in the stream.
  void give(Stream& stream, Work work);
  // Returns when `done`; whoever waits lets the GPUs work.
  void wait(std::unique_lock<std::mutex>& lock, const std::function<bool()>& done);
  // All that was given to the stream so far is done, and the calling thread knows of it.
  void synchronize(std::unique_lock<std::mutex>& lock, Stream& stream);
  void synchronize_gpu(std::unique_lock<std::mutex>& lock, int gpu);
  // Lets late GPUs do one thing.
  void nudge();
  // Of the calling thread: what it knows to have happened.
  Clock& host_clock();
  // What a copy, fill or product of `stream` touches.
  void touch(const Stream& stream, const Clock& clock, const void* data, std::size_t bytes, bool writes,
             const char* what);

  shim::Machine machine;  // on the thread of the GPUs

 private:
  void work();
  bool may_work() const;
  std::vector<Stream*> in_order();
  Step advance(std::unique_lock<std::mutex>& lock, Stream& stream);

  std::condition_variable changed_;
  std::mt19937_64 random_;
  int waiting_ = 0, nudges_ = 0;
  bool stopping_ = false;
  std::size_t actors_ = 0;
  std::map<std::thread::id, std::pair<std::size_t, Clock>> hosts_;
  std::thread thread_;  // last: it uses the others
};

}  // namespace troika::recording
