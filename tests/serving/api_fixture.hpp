// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <troika/serving/api.hpp>

#include "fake_engine.hpp"
#include "models_text/small_tokenizers.hpp"
#include "support/temp_folder.hpp"
#include "support/tiny_model.hpp"

namespace troika::test {

using Json = nlohmann::json;

// Keeps what is answered, as a client would see it.
class RecordedReply final : public serving::HttpReply {
 public:
  void answer(serving::HttpAnswer answer) override {
    std::lock_guard lock(mutex_);
    if (ended_ || begun_) return;
    got_ = std::move(answer);
    begun_ = ended_ = true;
    changed_.notify_all();
  }
  void begin(int status, serving::HttpFields headers) override {
    std::lock_guard lock(mutex_);
    got_ = {status, std::move(headers), ""};
    begun_ = true;
  }
  bool write(std::string_view piece) override {
    std::lock_guard lock(mutex_);
    if (gone_) return false;
    got_.body += piece;
    changed_.notify_all();
    return true;
  }
  void end() override {
    std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  void on_gone(std::function<void()> call) override {
    std::lock_guard lock(mutex_);
    on_gone_ = std::move(call);
  }

  void leave() {
    std::function<void()> call;
    {
      std::lock_guard lock(mutex_);
      gone_ = true;
      call = on_gone_;
    }
    if (call) call();
  }
  bool wait(const std::function<bool(const serving::HttpAnswer&, bool ended)>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return condition(got_, ended_); });
  }
  serving::HttpAnswer finished() {
    if (!wait([](const auto&, bool ended) { return ended; })) throw std::runtime_error("no answer in 60 s");
    return got_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  serving::HttpAnswer got_;
  std::function<void()> on_gone_;
  bool begun_ = false, ended_ = false, gone_ = false;
};

inline constexpr const char* chatml =
    R"({"chat_template": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"})";

// A folder with the models "small" (without a chat template) and "chat", whose tokens are bytes, and with what is no
// model.
inline void write_models(const TempFolder& folder) {
  for (const std::string name : {"small", "chat"}) {
    std::filesystem::create_directory(folder.path() / name);
    TinyModel::make("llama").write(folder.path() / name);
    folder.write(name + "/tokenizer.json", byte_level());
  }
  folder.write("chat/tokenizer_config.json", chatml);
  folder.write("notes.txt", "no model");
  std::filesystem::create_directory(folder.path() / "empty");
  folder.write("broken.gguf", "GGUF?");
}

// An API over such a folder, whose models say what the script has.
class ApiFixture {
 public:
  explicit ApiFixture(serving::ModelHost::Options options = {}, std::int64_t context = 200)
      : ApiFixture(nullptr, std::move(options), context) {}
  // With the engines that it makes instead, or with other models.
  explicit ApiFixture(serving::ModelHost::MakeEngine make, serving::ModelHost::Options options = {},
                      std::int64_t context = 200, void (*write)(const TempFolder&) = write_models)
      : script(std::make_shared<Script>()),
        host_(
            make ? std::move(make)
                 : [script = script,
                    context](const serving::StoredModel&) { return std::make_unique<FakeEngine>(script, context); },
            quiet(std::move(options))) {
    script->set("Hello, world");
    write(folder);
    store_.emplace(folder.path(), Log::silent());
    api_.emplace(*store_, host_, serving::Api::Options{.log = Log::silent()});
  }

  std::shared_ptr<RecordedReply> send(const std::string& method, const std::string& target, const std::string& body,
                                      serving::HttpFields headers = {}) {
    auto reply = std::make_shared<RecordedReply>();
    (*api_)({method, target, std::move(headers), body, "1.2.3.4"}, reply);
    return reply;
  }
  serving::HttpAnswer ask(const std::string& method, const std::string& target, const std::string& body = "") {
    return send(method, target, body)->finished();
  }
  Json get(const std::string& target) { return Json::parse(ask("GET", target).body); }
  serving::HttpAnswer post(const std::string& target, const Json& body) { return ask("POST", target, body.dump()); }
  Json json(const std::string& target, const Json& body) {
    const auto answer = post(target, body);
    if (answer.status != 200) throw std::runtime_error(answer.body);
    return Json::parse(answer.body);
  }
  // The request that the engine got last.
  serving::GenerationRequest asked() {
    std::lock_guard lock(script->mutex);
    return script->asked.at(script->asked.size() - 1);
  }

  std::shared_ptr<Script> script;
  TempFolder folder;

 private:
  static serving::ModelHost::Options quiet(serving::ModelHost::Options options) {
    options.log = Log::silent();
    return options;
  }
  std::optional<serving::ModelStore> store_;
  serving::ModelHost host_;
  std::optional<serving::Api> api_;  // first to go: its workers finish what runs
};

// NDJSON, a line each.
inline std::vector<Json> lines(const std::string& body) {
  std::vector<Json> all;
  for (std::size_t at = 0; at < body.size();) {
    const auto end = body.find('\n', at);
    if (end == std::string::npos) throw std::runtime_error("a line without end: " + body.substr(at));
    all.push_back(Json::parse(body.substr(at, end - at)));
    at = end + 1;
  }
  return all;
}

// Server-sent events; the last one, "[DONE]", is checked and left out.
inline std::vector<Json> events(const std::string& body) {
  std::vector<Json> all;
  bool done = false;
  for (std::size_t at = 0; at < body.size();) {
    const auto end = body.find("\n\n", at);
    if (end == std::string::npos || done || body.compare(at, 6, "data: ") != 0)
      throw std::runtime_error("no event: " + body.substr(at));
    const auto text = body.substr(at + 6, end - at - 6);
    done = text == "[DONE]";
    if (!done) all.push_back(Json::parse(text));
    at = end + 2;
  }
  if (!done) throw std::runtime_error("no [DONE]");
  return all;
}

}  // namespace troika::test
