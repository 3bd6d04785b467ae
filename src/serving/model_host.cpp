// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/model_host.hpp>

#include <algorithm>
#include <utility>

#include <troika/models/files/config.hpp>

#include "message.hpp"

namespace troika::serving {
namespace {

// What a model of the family writes at the end of its turn, or of a call. Files do not always say so in eos_token_id.
std::vector<std::string_view> ends_of_turn(models::ChatFamily family) {
  switch (family) {
    case models::ChatFamily::llama3: return {"<|eot_id|>", "<|eom_id|>"};
    case models::ChatFamily::chatml: return {"<|im_end|>"};
    case models::ChatFamily::mistral: return {"</s>"};
    case models::ChatFamily::gemma: return {"<end_of_turn>"};
    case models::ChatFamily::phi3: return {"<|end|>"};
  }
  return {};
}

// As the file says. Where it does not, the template of Ollama's manifest, which is in Go's language, names the family
// by the tokens that it writes; enough is known of those two families without the rest of it.
models::ChatTemplate load_chat(const StoredModel& stored, const models::ModelConfig& config,
                               const models::Tokenizer& tokenizer) {
  try {
    return models::ChatTemplate::load(stored.path);
  } catch (const Error&) {
    std::string marks;  // the template without its actions, {{ ... }}
    std::string_view left = stored.template_text;
    while (!left.empty()) {
      const auto open = left.find("{{");
      marks += left.substr(0, open);
      const auto close = open == std::string_view::npos ? open : left.find("}}", open);
      left = close == std::string_view::npos ? std::string_view() : left.substr(close + 2);
    }
    const bool llama3 = marks.find("<|start_header_id|>") != std::string::npos;
    if (!llama3 && marks.find("<|im_start|>") == std::string::npos) throw;
    const auto bos = llama3 && config.bos_token_id ? tokenizer.token_of(*config.bos_token_id) : std::string();
    return models::ChatTemplate::recognise(marks + (llama3 ? "<|eot_id|>bos_token" : ""), bos, "",
                                           stored.name + ": its template");
  }
}

}  // namespace

std::shared_ptr<ServedModel> ServedModel::open(const StoredModel& stored) {
  const auto config = models::ModelConfig::load(stored.path);
  auto model =
      std::make_shared<ServedModel>(ServedModel{.stored = stored, .tokenizer = models::Tokenizer::load(stored.path)});
  model->ends = config.eos_token_ids;
  model->token_bytes = std::make_shared<const models::TokenBytes>(model->tokenizer);
  for (std::int32_t id = 0; id < model->tokenizer.vocab_size(); ++id) {
    model->longest_token = std::max(model->longest_token, model->tokenizer.token_of(id).size());
  }
  if (!config.is_decoder()) return model;
  try {
    model->chat = load_chat(stored, config, model->tokenizer);
    for (const auto end : ends_of_turn(model->chat->family())) {
      const auto id = model->tokenizer.id_of(end);
      if (id && model->tokenizer.is_special(*id)) model->ends.push_back(*id);
    }
  } catch (const Error& error) {
    model->why_no_chat = message_of(error);
  }
  return model;
}

ModelHost::ModelHost(MakeEngine make_engine, Options options)
    : make_engine_(std::move(make_engine)), options_(std::move(options)), thread_([this] { work(); }) {}

ModelHost::~ModelHost() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  for (const auto& slot : slots_) {
    for (const auto& [keep_alive, ready] : slot->waiting) {
      ready(nullptr, std::make_exception_ptr(Error(Fault::peer_failed, "the server is stopping")));
    }
  }
}

Clock::time_point ModelHost::after(Seconds time) {
  constexpr Seconds years{1e9};
  if (time >= years) return Clock::time_point::max();
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::max(time, Seconds(0)));
}

std::shared_ptr<ModelHost::Slot> ModelHost::find(std::string_view name) const {
  const auto at = std::ranges::find_if(
      slots_, [&](const auto& slot) { return !slot->given_up && ModelStore::same_name(slot->stored.name, name); });
  return at == slots_.end() ? nullptr : *at;
}

ModelHost::Lease ModelHost::lease(const std::shared_ptr<Slot>& slot) {
  ++slot->users;
  return {slot->model.get(), [this, slot](const ServedModel*) { returned(slot); }};
}

void ModelHost::returned(const std::shared_ptr<Slot>& slot) {
  {
    std::lock_guard lock(mutex_);
    if (--slot->users == 0) slot->expires = after(slot->keep_alive);
  }
  changed_.notify_all();
}

void ModelHost::acquire(const StoredModel& model, std::optional<Seconds> keep_alive, Ready ready) {
  Lease taken;
  std::exception_ptr refused;
  {
    std::lock_guard lock(mutex_);
    auto slot = find(model.name);
    if (slot && slot->model && slot->model->engine->load().stopped) {
      slot->given_up = true;
      slot->keep_alive = Seconds(0);
      slot->expires = Clock::now();
      slot = nullptr;
    }
    if (slot && slot->model) {
      slot->keep_alive = keep_alive.value_or(options_.keep_alive);
      taken = lease(slot);
    } else if (slot && slot->waiting.size() >= options_.most_waiting) {
      refused = std::make_exception_ptr(
          Error(Fault::out_of_memory, "too many requests wait for model '" + model.name + "' to load"));
    } else {
      if (!slot) slot = slots_.emplace_back(std::make_shared<Slot>(Slot{.stored = model}));
      slot->waiting.emplace_back(keep_alive, std::move(ready));
    }
  }
  if (taken || refused) return ready(std::move(taken), refused);
  changed_.notify_all();
}

void ModelHost::unload(std::string_view name) {
  {
    std::lock_guard lock(mutex_);
    const auto slot = find(name);
    if (!slot) return;
    slot->keep_alive = Seconds(0);
    slot->expires = Clock::now();
  }
  changed_.notify_all();
}

std::vector<ModelHost::Loaded> ModelHost::loaded() const {
  std::lock_guard lock(mutex_);
  std::vector<Loaded> list;
  for (const auto& slot : slots_) {
    if (!slot->model || slot->given_up) continue;
    const auto expires = slot->users > 0 ? after(slot->keep_alive) : slot->expires;
    const auto left = expires == Clock::time_point::max() ? std::chrono::hours(24 * 365 * 100) : expires - Clock::now();
    list.push_back(
        {slot->stored, slot->model->engine->load(), slot->model->engine->place(), slot->model->engine->context(),
         std::chrono::system_clock::now() + std::chrono::duration_cast<std::chrono::system_clock::duration>(left)});
  }
  return list;
}

std::shared_ptr<ModelHost::Slot> ModelHost::longest_idle() const {
  std::shared_ptr<Slot> first;
  for (const auto& slot : slots_) {
    if (slot->model && slot->users == 0 && (!first || slot->expires < first->expires)) first = slot;
  }
  return first;
}

bool ModelHost::has_room() const {
  return std::ranges::count_if(slots_, [](const auto& slot) { return slot->model && !slot->given_up; }) <
         options_.most_models;
}

// Whose time is over; or, when there is no room for one that waits, the one that was idle longest.
std::shared_ptr<ModelHost::Slot> ModelHost::next_to_unload() const {
  const auto first = longest_idle();
  const bool room_needed = !has_room() && std::ranges::any_of(slots_, [](const auto& slot) { return !slot->model; });
  return first && (room_needed || first->expires <= Clock::now()) ? first : nullptr;
}

std::shared_ptr<ModelHost::Slot> ModelHost::next_to_load() const {
  if (!has_room()) return nullptr;
  const auto at = std::ranges::find_if(slots_, [](const auto& slot) { return !slot->model; });
  return at == slots_.end() ? nullptr : *at;
}

void ModelHost::work() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (const auto slot = next_to_unload()) {
      unload(lock, slot);
    } else if (const auto waiting = next_to_load()) {
      load(lock, waiting);
    } else {
      auto until = Clock::time_point::max();
      for (const auto& idle : slots_) {
        if (idle->model && idle->users == 0) until = std::min(until, idle->expires);
      }
      if (until == Clock::time_point::max())
        changed_.wait(lock);
      else
        changed_.wait_until(lock, until);
    }
  }
}

void ModelHost::unload(std::unique_lock<std::mutex>& lock, const std::shared_ptr<Slot>& slot) {
  std::erase(slots_, slot);
  lock.unlock();
  options_.log.write(LogLevel::info, "unloading " + slot->stored.name);
  slot->model.reset();
  lock.lock();
}

void ModelHost::load(std::unique_lock<std::mutex>& lock, const std::shared_ptr<Slot>& slot) {
  lock.unlock();
  options_.log.write(LogLevel::info, "loading " + slot->stored.name);
  std::shared_ptr<ServedModel> model;
  std::exception_ptr failed;
  bool no_memory = false;
  try {
    model = ServedModel::open(slot->stored);
    model->engine = make_engine_(slot->stored);
  } catch (const Error& error) {
    failed = std::current_exception();
    no_memory = error.fault() == Fault::out_of_memory;
    options_.log.write(LogLevel::warning, slot->stored.name + " could not be loaded: " + message_of(error));
  } catch (...) {
    failed = std::current_exception();
  }
  lock.lock();
  // One after the other gives way, until it fits or nothing is idle.
  if (const auto idle = no_memory ? longest_idle() : nullptr) return unload(lock, idle);
  std::vector<std::pair<Lease, Ready>> ready;
  slot->keep_alive = options_.keep_alive;
  if (!failed)
    slot->model = std::move(model);
  else
    std::erase(slots_, slot);
  for (auto& [keep_alive, call] : slot->waiting) {
    slot->keep_alive = keep_alive.value_or(options_.keep_alive);
    ready.emplace_back(failed ? nullptr : lease(slot), std::move(call));
  }
  slot->waiting.clear();
  lock.unlock();
  for (auto& [taken, call] : ready) call(std::move(taken), failed);
  lock.lock();
}

}  // namespace troika::serving
