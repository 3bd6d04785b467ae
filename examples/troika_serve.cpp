// SPDX-License-Identifier: Apache-2.0
// ctest: --list
//
// Serves the models of a folder to programs that speak with Ollama or OpenAI; each model is split over all devices.
#include <CLI/CLI.hpp>

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <troika/serving/access.hpp>
#include <troika/serving/api.hpp>
#include <troika/serving/device_groups.hpp>
#include <troika/serving/monitor.hpp>
#include <troika/serving/self_check.hpp>

#if defined(TROIKA_HAS_CUDA)
#include <troika/serving/cuda_engine.hpp>
#endif

#include "run/gpus.hpp"
#include "run/machine.hpp"

namespace serving = troika::serving;

namespace {

struct Arguments {
  std::string models = TROIKA_MODEL_DIR, token_file;
  serving::HttpOptions http{.port = 11434};
  serving::AccessRules access;
  serving::DeviceGroups::Options groups;
  serving::ModelHost::Options host;
  serving::MonitorOptions monitor;
  std::vector<std::string> places;
  DeviceOptions devices;
  int group_count = 1;
  double keep_alive = 300, drain = 30, memory = 0, deadline = 30, max_wait = 300;
  bool list = false, self_check = false, quiet = false;
};

// OLLAMA_HOST is "host", "host:port" or ":port", perhaps behind "http://".
void read_ollama_host(serving::HttpOptions& http) {
  const char* const value = std::getenv("OLLAMA_HOST");
  if (value == nullptr) return;
  std::string host = value;
  if (host.starts_with("http://")) host.erase(0, 7);
  while (host.ends_with('/')) host.pop_back();
  const auto colon = host.rfind(':');
  if (colon != std::string::npos && host.find(']', colon) == std::string::npos &&
      (host.starts_with('[') || host.find(':') == colon)) {
    const auto port = CLI::detail::lexical_cast(host.substr(colon + 1), http.port);
    troika::expects(port, [&] { return std::string("OLLAMA_HOST has no port that is one: ") + value; });
    host.resize(colon);
  }
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (!host.empty()) http.address = host;
}

std::string read_token(const std::string& path) {
  if (path.empty()) {
    const char* const token = std::getenv("TROIKA_TOKEN");
    return token == nullptr ? "" : token;
  }
  std::ifstream file(path);
  std::string token;
  file >> token;
  if (token.empty()) throw troika::Error(troika::Fault::bad_file, path + " cannot be read or holds no token");
  return token;
}

// Each connection is an open file.
void allow_many_files() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

serving::ServerDevices devices_of(const Arguments& arguments) {
  [[maybe_unused]] const auto gpus = gpus_to_use(arguments.devices);
#if defined(TROIKA_HAS_CUDA)
  if (!gpus.empty()) return serving::server_gpus(gpus);
#endif
  const int least = std::max(arguments.group_count, std::clamp(static_cast<int>(core_groups(1)[0].size()), 2, 16));
  return serving::server_cores(core_groups(arguments.devices.devices > 0 ? arguments.devices.devices : least));
}

// 0 where nothing is far too slow.
int check_devices(const serving::ServerDevices& devices) {
  const auto check = devices.self_check();
  std::fputs(serving::table_of(check).c_str(), stdout);
  const auto complaints = serving::complaints_about(check);
  for (const auto& complaint : complaints) std::printf("SLOW: %s\n", complaint.c_str());
  return complaints.empty() ? 0 : 3;
}

// So long after, and a while to put things away, the process ends in any case: a device that hangs keeps its engine.
void leave_after(double seconds) {
  constexpr double put_away = 5;
  std::signal(SIGALRM, [](int) {
    constexpr char text[] = "troika-serve: something hangs and is left behind\n";
    (void)!::write(STDERR_FILENO, text, sizeof text - 1);
    ::_exit(1);
  });
  ::alarm(static_cast<unsigned>(std::min(seconds, 1e9) + put_away));
}

int run(Arguments& arguments) {
  if (arguments.self_check) return check_devices(devices_of(arguments));
  const auto level = arguments.quiet ? troika::LogLevel::warning : troika::LogLevel::info;
  const troika::Log log(
      [](troika::LogLevel, std::string_view text) {
        std::fprintf(stderr, "troika-serve: %.*s\n", static_cast<int>(text.size()), text.data());
      },
      level);
  const serving::ModelStore store(arguments.models, log);
  const auto models = store.list();
  std::printf("%zu models in %s\n", models.size(), arguments.models.c_str());
  for (const auto& model : models) {
    std::printf("  %-32s %-8s %8s  %s\n", model.name.c_str(), model.family.c_str(), model.parameter_size().c_str(),
                model.quantization.c_str());
  }
  if (arguments.list) return 0;

  arguments.access.token = read_token(arguments.token_file);
  if (!serving::is_loopback(arguments.http.address) && arguments.access.token.empty()) {
    throw troika::Error(
        troika::Fault::invalid_argument,
        arguments.http.address + " can be reached by others: give a token with --token-file FILE or TROIKA_TOKEN");
  }
  allow_many_files();
  // The threads that are made from here on leave these to sigwait.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  arguments.groups.engine.log = arguments.host.log = arguments.http.log = log;
  arguments.host.keep_alive =
      arguments.keep_alive < 0 ? serving::ModelHost::forever : serving::ModelHost::Seconds(arguments.keep_alive);
  for (const auto& place : arguments.places)
    arguments.groups.places.push_back(serving::StatedPlace::parse(place, arguments.group_count));
  arguments.groups.engine.deadline = std::chrono::milliseconds(static_cast<std::int64_t>(arguments.deadline * 1e3));
  arguments.groups.memory =
      static_cast<std::uint64_t>(arguments.memory * 1e9) / static_cast<std::uint64_t>(arguments.group_count);
  auto devices = devices_of(arguments);
  const int count = devices.count;
  serving::DeviceGroups groups(std::move(devices), arguments.group_count, arguments.groups);
  arguments.monitor.log = log;
  serving::Monitor monitor(arguments.monitor);
  serving::ModelHost host(
      [&](const serving::StoredModel& model) { return monitor.watch(model.name, groups.load(model)); }, arguments.host);
  const auto max_wait = std::chrono::milliseconds(static_cast<std::int64_t>(arguments.max_wait * 1e3));
  serving::Api api(store, host, {.max_wait = max_wait, .pages = monitor.pages(), .log = log});
  arguments.access.open = serving::Monitor::open_pages();
  arguments.http.admit = [&](const serving::HttpRequest& request) {
    return serving::refuse_access(request, arguments.access);
  };
  serving::HttpServer server(arguments.http,
                             [&](serving::HttpRequest request, std::shared_ptr<serving::HttpReply> reply) {
                               api(std::move(request), std::move(reply));
                             });

  const std::string place =
      (server.address().find(':') == std::string::npos ? server.address() : "[" + server.address() + "]") + ":" +
      std::to_string(server.port());
  std::printf("listening on http://%s, %d devices in %d groups; Ctrl-C ends it\n", place.c_str(), count,
              arguments.group_count);
  std::printf("see http://%s/dashboard\n", place.c_str());
  if (!models.empty()) {
    std::printf("try: curl http://%s/api/generate%s -d '{\"model\": \"%s\", \"prompt\": \"12 + 34 =\"}'\n",
                place.c_str(), arguments.access.token.empty() ? "" : " -H \"Authorization: Bearer ...\"",
                models[0].name.c_str());
  }
  std::fflush(stdout);
  int signal = 0;
  ::sigwait(&signals, &signal);
  std::printf("finishing what runs, for %g s at most\n", arguments.drain);
  std::fflush(stdout);
  ::pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);  // a second one ends it at once
  leave_after(arguments.drain);
  server.stop(std::chrono::milliseconds(static_cast<std::int64_t>(arguments.drain * 1e3)));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app{"Serves the models of a folder to programs that speak with Ollama (/api) or OpenAI (/v1)."};
  app.add_option("--models", arguments.models,
                 "folder of GGUF files and Hugging Face folders, one of them, or Ollama's own store (~/.ollama/models)")
      ->capture_default_str();
  auto* const host = app.add_option("--host", arguments.http.address,
                                    "address to listen on; other than this machine's own only with a token")
                         ->capture_default_str();
  auto* const port = app.add_option("--port", arguments.http.port, "0: any that is free")->capture_default_str();
  add_device_options(app, arguments.devices);
  app.add_option("--groups", arguments.group_count,
                 "groups that the devices form; a model is split over the devices of its group, or of all")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--allocation", arguments.groups.allocation, "how groups are found for models and requests")
      ->check(CLI::IsMember({"dynamic", "static", "round-robin", "random"}))
      ->capture_default_str();
  app.add_option("--place", arguments.places,
                 "MODEL=GROUP[,GROUP...]: where a model is; GROUP+GROUP are joined, as one (default: found by size)");
  app.add_option("--memory", arguments.memory,
                 "GB for all models (default: what the system, or its GPUs, have available)")
      ->check(CLI::PositiveNumber);
  app.add_option("--deadline", arguments.deadline,
                 "seconds that devices wait for one of them in a step; then it is left out")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  app.add_option("--context", arguments.groups.engine.context,
                 "tokens of a text at most; a model that was made for fewer has fewer")
      ->check(CLI::Range(std::int64_t{2}, std::int64_t{1} << 40))
      ->capture_default_str();
  app.add_option("--kv-tokens", arguments.groups.engine.kv_tokens,
                 "tokens of all texts that run at once (default: of 4 contexts)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--max-queue", arguments.groups.engine.most_waiting,
                 "requests that may wait for a model; more get 503")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--max-wait", arguments.max_wait,
                 "seconds to wait before a request begins; who is expected to wait longer gets 503 at once")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  app.add_option("--max-running", arguments.groups.engine.most_running,
                 "requests that share steps: fewer answer faster, more share the reading of the weights")
      ->check(CLI::Range(1, 128))
      ->capture_default_str();
  app.add_option("--max-models", arguments.host.most_models, "models loaded at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--keep-alive", arguments.keep_alive,
                 "seconds that a model stays loaded without requests; below 0: for ever")
      ->capture_default_str();
  app.add_option("--token-file", arguments.token_file, "file with the token that clients must send (or TROIKA_TOKEN)");
  app.add_option("--allow-host", arguments.access.hosts,
                 "name by which this server is reached, besides localhost and addresses");
  app.add_option("--allow-origin", arguments.access.origins,
                 "origin whose web pages may ask, such as https://chat.example.org");
  app.add_option("--alert-first-token", arguments.monitor.limits.first_token_seconds,
                 "seconds to the first token of a request, above which an alert fires")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--alert-errors", arguments.monitor.limits.errors, "share of failed requests, likewise")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--drain", arguments.drain,
                 "seconds to finish what runs after SIGTERM; what hangs is left behind a little later")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_flag("--self-check", arguments.self_check,
               "only print how long devices and links take for something tiny; ends with 3 where one is far too slow");
  app.add_flag("--list", arguments.list, "only print the models");
  app.add_flag("--quiet", arguments.quiet, "say only what is wrong");
  CLI11_PARSE(app, argc, argv);
  try {
    const auto given = arguments.http;
    read_ollama_host(arguments.http);
    if (host->count() > 0) arguments.http.address = given.address;
    if (port->count() > 0) arguments.http.port = given.port;
    return run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "troika-serve: %s\n", error.what());
    return 1;
  }
}
