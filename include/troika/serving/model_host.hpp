// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <troika/models/grammar/token_mask.hpp>
#include <troika/models/text/chat.hpp>
#include <troika/models/text/tokenizer.hpp>
#include <troika/observe/log.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/model_store.hpp>

namespace troika::serving {

// A model with all that its requests need. Const members of it may be used from any thread.
struct ServedModel {
  StoredModel stored;
  models::Tokenizer tokenizer;
  std::optional<models::ChatTemplate> chat{};
  std::string why_no_chat{};
  std::vector<std::int32_t> ends{};  // tokens that end a text
  std::size_t longest_token = 1;     // in bytes
  std::shared_ptr<const models::TokenBytes> token_bytes{};
  std::unique_ptr<Engine> engine{};

  // Text of more bytes does not fit into so many tokens: nobody waits until the tokenizer has found that out. Twice the
  // longest token, as tokenizers may make a text shorter before they read it.
  std::size_t most_bytes(std::size_t tokens) const { return 2 * tokens * longest_token; }

  // Reads all but the engine.
  static std::shared_ptr<ServedModel> open(const StoredModel& stored);
};

// Loads models when they are asked for, once for all who wait, and unloads each when nobody has used it for as long as
// its last request wished. A model that finds no memory takes that of the one that was idle longest; one whose devices
// all failed is loaded again when it is asked for. All members may be called from any thread.
class ModelHost {
 public:
  using Seconds = std::chrono::duration<double>;
  static constexpr Seconds forever = Seconds::max();

  struct Options {
    int most_models = 3;             // loaded at once; the one that was idle longest makes room
    Seconds keep_alive{300};         // where a request wishes nothing
    std::size_t most_waiting = 512;  // for a model to load
    Log log{};
  };
  using MakeEngine = std::function<std::unique_ptr<Engine>(const StoredModel&)>;
  using Lease = std::shared_ptr<const ServedModel>;  // in use while there is one
  // Called with a lease, or with what went wrong, on a thread of the host or of the caller: hand over and return.
  using Ready = std::function<void(Lease, std::exception_ptr)>;

  explicit ModelHost(MakeEngine make_engine) : ModelHost(std::move(make_engine), Options{}) {}
  ModelHost(MakeEngine make_engine, Options options);
  ModelHost(const ModelHost&) = delete;
  ~ModelHost();  // no lease may be left

  // Error{out_of_memory} through `ready` when too many wait.
  void acquire(const StoredModel& model, std::optional<Seconds> keep_alive, Ready ready);
  // As soon as nobody uses it.
  void unload(std::string_view name);

  struct Loaded {
    StoredModel stored;
    EngineLoad load;
    EnginePlace place{};
    std::int64_t context = 0;
    std::chrono::system_clock::time_point expires{};  // as of now
  };
  std::vector<Loaded> loaded() const;

 private:
  struct Slot {
    StoredModel stored;
    std::shared_ptr<ServedModel> model{};  // empty while it waits to be loaded
    std::vector<std::pair<std::optional<Seconds>, Ready>> waiting{};
    int users = 0;
    bool given_up = false;  // its engine stopped; it goes when its users have
    Seconds keep_alive{};
    Clock::time_point expires{};  // where there are no users
  };

  Lease lease(const std::shared_ptr<Slot>& slot);  // with the mutex held
  void returned(const std::shared_ptr<Slot>& slot);
  std::shared_ptr<Slot> find(std::string_view name) const;
  void work();
  void load(std::unique_lock<std::mutex>& lock, const std::shared_ptr<Slot>& slot);
  void unload(std::unique_lock<std::mutex>& lock, const std::shared_ptr<Slot>& slot);
  std::shared_ptr<Slot> longest_idle() const;
  bool has_room() const;  // for one more
  std::shared_ptr<Slot> next_to_unload() const;
  std::shared_ptr<Slot> next_to_load() const;
  static Clock::time_point after(Seconds time);

  const MakeEngine make_engine_;
  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Slot>> slots_;  // in the order in which they were asked for
  bool stopping_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace troika::serving
