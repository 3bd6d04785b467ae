// SPDX-License-Identifier: Apache-2.0
// ctest: --types
//
// A Hugging Face folder as a GGUF file: troika-convert FOLDER FILE.gguf --type Q4_0
#include <CLI/CLI.hpp>

#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>

#include <troika/core/error.hpp>
#include <troika/models/files/config.hpp>
#include <troika/models/files/convert.hpp>
#include <troika/version.hpp>

#include "run/progress_bar.hpp"

int main(int argc, char** argv) {
  namespace models = troika::models;
  std::string folder, out;
  models::ConvertOptions options;
  bool list = false;
  std::string names;
  for (const auto name : models::architecture_names) names += (names.empty() ? "" : ", ") + std::string(name);
  CLI::App app{"Writes a Hugging Face folder as a GGUF file: " + names + "."};
  app.add_option("folder", folder, "with config.json, tokenizer.json and safetensors");
  app.add_option("file", out, "the GGUF file to write");
  app.add_option("--type", options.type, "of the matrices; --types lists them")->capture_default_str();
  app.add_flag("--types", list, "print the types and end");
  app.add_flag("--force", options.replace, "replace a file that is there");
  CLI11_PARSE(app, argc, argv);
  try {
    if (list) {
      for (const auto name : models::gguf_output_types()) std::printf("%s\n", std::string(name).c_str());
      return 0;
    }
    troika::expects(!folder.empty() && !out.empty(),
                    "troika-convert needs a folder and the name of a file; --help says more");
    std::optional<ProgressBar> bar;
    const auto result = models::convert_to_gguf(folder, out, options, [&](std::uint64_t done, std::uint64_t total) {
      if (!bar) bar.emplace("converting", total);
      bar->advance(done);
    });
    bar.reset();
    for (const auto& note : result.notes) std::printf("%s\n", note.c_str());
    std::printf("%s: %s, %.1f MB\n", out.c_str(), options.type.c_str(), static_cast<double>(result.bytes) / 1e6);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "troika-convert: %s\n", error.what());
    return 1;
  }
}
