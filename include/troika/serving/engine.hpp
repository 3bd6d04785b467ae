// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <troika/device/host/device.hpp>
#include <troika/device/kv_rows.hpp>
#include <troika/layers/logprobs.hpp>
#include <troika/layers/sampler.hpp>
#include <troika/models/grammar/token_mask.hpp>
#include <troika/observe/log.hpp>
#include <troika/observe/trace.hpp>
#include <troika/serving/device_meter.hpp>
#include <troika/serving/self_check.hpp>

namespace troika::serving {

using Clock = std::chrono::steady_clock;

struct GenerationRequest {
  std::vector<std::int32_t> prompt;   // 1 token or more, fewer than the context holds
  std::vector<std::int32_t> drawn{};  // of the answer, elsewhere and before: it goes on after them
  std::int64_t max_tokens = 0;        // 0: as many as the context takes
  SamplingOptions sampling{};
  std::vector<std::int32_t> ends{};                // tokens that end the text
  std::optional<models::Constraint> constraint{};  // what the answer must be; it ends when it is complete
  std::optional<int> logprobs{};                   // how likely each token was, and so many of the likeliest; 0 to 20
  std::string client{};                            // clients that wait take turns, whoever sent more
  Clock::time_point deadline = Clock::time_point::max();                // given up where it has not begun by then
  std::chrono::nanoseconds max_wait = std::chrono::nanoseconds::max();  // refused where it is expected to wait longer
};

enum class Finish : std::uint8_t {
  stop,       // one of `ends` was drawn
  length,     // max_tokens were drawn, or the context is full
  cancelled,  // by cancel(), or because the engine stops
  expired,    // its deadline passed before it began
  failed,     // the devices failed and the engine could not go on with it; `error` says why
};

constexpr std::string_view to_string(Finish finish) {
  constexpr std::string_view names[] = {"stop", "length", "cancelled", "expired", "failed"};
  return names[static_cast<std::size_t>(finish)];
}

// What came of a request.
struct GenerationEnd {
  Finish finish = Finish::stop;
  std::string error{};
  std::int64_t prompt_tokens = 0;
  std::int64_t reused_tokens = 0;  // of the prompt, whose keys and values were there already
  std::int64_t tokens = 0;         // of the answer, without the one that ended the text
  std::string devices{};           // that worked on it at its end
  std::chrono::nanoseconds waited{}, prompt_time{}, token_time{};  // before it began; to the first token; from there on
  std::vector<float> embedding{};  // of an encoder: the text's vector as it is pooled, of any length
};

// A request under way. Dropping it changes nothing; only cancel() ends it early.
class Generation {
 public:
  virtual ~Generation() = default;
  // Ends it within one step. Any thread, any time; later ones do nothing.
  virtual void cancel() noexcept = 0;
};

// Called on a thread of the engine, which they must not hold up: hand over and return. Each is called from one thread
// at a time, on_end once and last. What they throw ends the request as failed.
struct GenerationEvents {
  std::function<void(std::int32_t token)> on_token;
  std::function<void(const GenerationEnd&)> on_end;
  // Where it was asked for, right before on_token: of the logits as the model gave them, without penalties, grammar and
  // temperature.
  std::function<void(const TokenLogprobs&)> on_logprobs{};
};

struct EngineLoad {
  bool ready = false;                     // steps can be taken
  bool stopped = false;                   // for good: no device is left
  int devices = 0;                        // that share the model now
  std::int64_t running = 0, waiting = 0;  // requests
  std::int64_t pages_used = 0,
               pages = 0;         // of the memory for keys and values; those that only wait to be reused count as free
  std::int64_t memory_bytes = 0;  // weights, keys and values, and what steps use, on all devices
  std::int64_t gpu_bytes = 0;     // of these, in memory of GPUs
  std::uint64_t prompt_tokens = 0, reused_tokens = 0, tokens = 0;  // since the start: read, found in pages, drawn
  std::uint64_t steps = 0, preemptions = 0, recoveries = 0;        // since the start
};

// Where a model is, and why there.
struct EnginePlace {
  struct Group {
    std::string name{};                  // of the server's groups: "0", or "0+1" where several are joined
    std::vector<std::string> devices{};  // that are left of it
    bool ready = false;
    int queued = 0;    // requests that wait or run there
    double speed = 0;  // tokens a second, as measured; 0: not yet
  };
  std::vector<Group> groups{};  // each has the whole model
  std::string allocation{}, reason{};
};

struct EngineOptions {
  std::int64_t context = 4096;  // tokens of a text at most; fewer where the model was made for fewer
  std::int64_t kv_tokens = 0;   // that the memory for keys and values holds, of all requests; 0: of 4 contexts
  KvType kv_type = KvType::f16;
  std::int64_t step_tokens = 512, mixed_tokens = 128, most_running = 64;  // as PlannerOptions says
  std::int64_t most_waiting = 512;
  // How long ranks wait for one of them in a step. One that still does not return a quarter of that later hangs: it is
  // given up, and keeps what it may touch.
  std::chrono::nanoseconds deadline = std::chrono::seconds(30);
  std::function<void(std::uint64_t bytes)> progress{};  // bytes read since its last call; any rank, any thread
  Log log{};
  Trace* trace = nullptr;               // outlives the engine, and a rank that was given up
  std::chrono::seconds self_check{30};  // between checks of devices and links, which run while no request does; 0: none
  // Called on every rank before each step, to make a device slow or fail on purpose: what it throws is a failure of it.
  std::function<void(int device, std::uint64_t step)> before_step{};

  // For a model that was made for so many tokens.
  std::int64_t context_of(std::int64_t most) const { return std::min(context, most); }
  // That hold the keys and values.
  std::int64_t pages_of(std::int64_t of_context) const {
    return ((kv_tokens > 0 ? kv_tokens : 4 * of_context) + kv_page - 1) / kv_page;
  }
};

// Runs the requests to one model: what waits is admitted as memory allows, what runs shares every step. An encoder
// draws nothing: a request to it is a text, and ends with its embedding. All members may be called from any thread.
class Engine {
 public:
  virtual ~Engine() = default;  // ends what runs as cancelled, and waits for it

  // Error{invalid_argument} for a prompt or options that cannot run here; Error{out_of_memory} when too many wait
  // already, or when those are expected to take longer than its max_wait.
  virtual std::shared_ptr<Generation> start(GenerationRequest request, GenerationEvents events) = 0;

  virtual std::int64_t context() const = 0;  // tokens that prompt and answer together may have
  virtual EngineLoad load() const = 0;
  virtual EnginePlace place() const { return {}; }
  // All devices that it began with. Empty where an engine knows of none.
  virtual std::vector<DeviceState> device_states() const { return {}; }
  // The latest one; without names where there is none.
  virtual SelfCheck self_check() const { return {}; }
};

// A ModelEngine, or an EncoderEngine for an encoder, on groups of cores, compiled once; returns when the model is
// loaded, or throws what loading throws.
std::unique_ptr<Engine> make_engine(std::vector<HostDevice> devices, const std::filesystem::path& model,
                                    EngineOptions options = {});

}  // namespace troika::serving
