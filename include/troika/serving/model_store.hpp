// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <troika/observe/log.hpp>

namespace troika::serving {

struct StoredModel {
  std::string name;            // with its tag: "qwen3-0.6b:latest"
  std::filesystem::path path;  // a GGUF file (the first of its parts) or a Hugging Face folder
  std::uint64_t bytes = 0;
  std::chrono::system_clock::time_point modified{};
  std::string digest{};        // 64 hexadecimal digits of size and samples of the files, or of Ollama's manifest
  std::string format{};        // "gguf" or "safetensors"
  std::string family{};        // "llama"
  std::string quantization{};  // "Q4_K", the type that most of its bytes have
  std::uint64_t parameters = 0;
  std::int64_t context = 0;
  bool is_decoder = true;
  // Of Ollama's own store alone: a template in Go's language, a system message and options (a JSON object) for requests
  // that have none
  std::string template_text{}, system{}, options{}, license{};

  std::string parameter_size() const;  // "1.2B"
};

// The models in a folder: GGUF files and Hugging Face folders, each under its own name without the ending, and the tag
// "latest" where the name has none; or one model, where the path is one; or the models of Ollama's own store
// (~/.ollama/models), which is only read. Names are told apart without case. What cannot be read, or is no model that
// troika runs, is left out, and the log says why. All members may be called from any thread.
class ModelStore {
 public:
  // Error{bad_file} when there is nothing at the path.
  explicit ModelStore(std::filesystem::path path, Log log = {});

  std::vector<StoredModel> list() const;  // as the folder is now; the newest first
  std::optional<StoredModel> find(std::string_view name) const;
  bool is_ollama() const { return ollama_; }

  // By links where the file system has them. Error{invalid_argument} when the source is not there, or the name cannot
  // be that of a file in the folder, or the store is Ollama's; what has that name is replaced.
  void copy(std::string_view source, std::string_view destination) const;
  // Of the files in the folder only: what a link points to stays. Error{invalid_argument} when it is not there.
  void remove(std::string_view name) const;

  // As it is shown: with its tag.
  static std::string full_name(std::string_view name);
  static bool same_name(std::string_view a, std::string_view b);

 private:
  struct Known {
    std::filesystem::file_time_type time{};
    std::uint64_t bytes = 0;
    std::optional<StoredModel> model{};  // empty: not one that runs
  };
  std::optional<StoredModel> read(const std::filesystem::path& path) const;
  void check_writable(const char* what) const;

  std::filesystem::path path_;
  bool single_ = false, ollama_ = false;
  Log log_;
  mutable std::mutex mutex_;
  mutable std::map<std::filesystem::path, Known> known_;
};

}  // namespace troika::serving
