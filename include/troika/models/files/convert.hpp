// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troika::models {

struct ConvertOptions {
  std::string type = "Q8_0";  // of the matrices; one of gguf_output_types()
  bool replace = false;       // a file of that name may be there
};

struct Converted {
  std::vector<std::string> notes;  // what is not as it was asked for, a sentence each
  std::uint64_t bytes = 0;         // of the file
};

// F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q6_K: all matrices of that type. Q4_K_M: Q4_K, but Q6_K for the
// output and for half of the value and down projections, which matter most.
std::span<const std::string_view> gguf_output_types();

// Writes a Hugging Face folder of any Architecture, with its tokenizer, as one GGUF file with the names, keys, shapes
// and order of rows that llama.cpp's converter gives them. Vectors, routers and tables of positions stay f32; rows that
// are no whole blocks of a type get the next better one that fits. `notes` says so, and what else of the folder GGUF
// files have no key for; what changes the answers of the model and has no key is an Error{unsupported} that names it
// and what is converted. Reads and writes piece by piece, a few MiB at a time. The file appears when it is whole.
// `progress` gets the numbers of elements that are done since the last call, of `total`. Error names what cannot be
// converted, or the system's reason why the file cannot be written.
Converted convert_to_gguf(const std::filesystem::path& folder, const std::filesystem::path& out,
                          const ConvertOptions& options = {},
                          const std::function<void(std::uint64_t done, std::uint64_t total)>& progress = {});

}  // namespace troika::models
