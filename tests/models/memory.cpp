// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#if defined(__GLIBC__)
#include <malloc.h>
#endif
#include <sys/wait.h>
#include <unistd.h>

#include <support/catch.hpp>
#include <support/sanitizers.hpp>
#include <support/spmd.hpp>
#include <support/temp_folder.hpp>

#include <troika/models/decoder.hpp>

#if !TROIKA_SANITIZED
namespace {

// Kilobytes, from /proc/self/status; the peak counts pages of mapped files too.
std::optional<std::uint64_t> memory_of_this_process(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::stoull(line.substr(field.size() + 1));
  }
  return std::nullopt;
}

// A Llama of about 250 MB in f32 whose sizes are no powers of two. The weights are zeros, as a hole in the file.
void write_large_model(const std::filesystem::path& folder) {
  constexpr std::int64_t hidden = 1120, intermediate = 2800, layers = 4, vocab = 7000, heads = 14, kv_heads = 7,
                         dim = 80;
  std::ofstream(folder / "config.json")
      << R"({"model_type":"llama","hidden_size":1120,"intermediate_size":2800,"num_hidden_layers":4,)"
      << R"("num_attention_heads":14,"num_key_value_heads":7,"head_dim":80,"vocab_size":7000,)"
      << R"("max_position_embeddings":64,"rms_norm_eps":1e-5,"hidden_act":"silu","tie_word_embeddings":false})";
  std::string header = "{";
  std::uint64_t end = 0;
  const auto add = [&](const std::string& name, std::int64_t rows, std::int64_t columns) {
    const auto begin = end;
    end += static_cast<std::uint64_t>(rows * (columns ? columns : 1)) * sizeof(float);
    header += (begin ? ",\"" : "\"") + name + ".weight\":{\"dtype\":\"F32\",\"shape\":[" + std::to_string(rows) +
              (columns ? "," + std::to_string(columns) : "") + "],\"data_offsets\":[" + std::to_string(begin) + "," +
              std::to_string(end) + "]}";
  };
  add("model.embed_tokens", vocab, hidden);
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i);
    add(layer + ".input_layernorm", hidden, 0);
    add(layer + ".self_attn.q_proj", heads * dim, hidden);
    add(layer + ".self_attn.k_proj", kv_heads * dim, hidden);
    add(layer + ".self_attn.v_proj", kv_heads * dim, hidden);
    add(layer + ".self_attn.o_proj", hidden, heads * dim);
    add(layer + ".post_attention_layernorm", hidden, 0);
    add(layer + ".mlp.gate_proj", intermediate, hidden);
    add(layer + ".mlp.up_proj", intermediate, hidden);
    add(layer + ".mlp.down_proj", hidden, intermediate);
  }
  add("model.norm", hidden, 0);
  add("lm_head", vocab, hidden);
  header += "}";
  const std::uint64_t size = header.size();
  const auto path = folder / "model.safetensors";
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&size), sizeof size);
  file << header;
  file.close();
  std::filesystem::resize_file(path, sizeof size + header.size() + end);
}

struct Measured {
  std::uint64_t weights = 0, resident = 0, reserved = 0;  // bytes
};

// Loads the model on `world` ranks in a process of its own; gives how far its memory rose above where it began, and
// what the devices took.
Measured load(const std::filesystem::path& folder, int world) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const auto child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    Measured measured;
    try {
#if defined(__GLIBC__)
      ::malloc_trim(0);  // what earlier tests left on the heap would be used again and not show
#endif
      const auto before = memory_of_this_process("VmRSS");
      const auto config = troika::models::ModelConfig::load(folder);
      const auto weights = troika::models::Weights::open(folder);
      const auto reserved = spmd(world, [&](auto& pipeline) {
        const troika::models::Decoder decoder(pipeline, config, weights, {.context = 16});
        pipeline.communication().barrier();  // until then nobody lets go of its part
        return pipeline.device().memory_reserved();
      });
      const auto peak = memory_of_this_process("VmHWM");
      measured.weights = weights.total_bytes();
      if (before && peak) measured.resident = (*peak - *before) * 1024;
      for (const auto bytes : reserved) measured.reserved += bytes;
    } catch (...) {
      measured = {};
    }
    const auto written = ::write(ends[1], &measured, sizeof measured);
    ::_exit(written == sizeof measured ? 0 : 1);
  }
  ::close(ends[1]);
  Measured measured;
  const auto got = ::read(ends[0], &measured, sizeof measured);
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  REQUIRE(got == static_cast<ssize_t>(sizeof measured));
  REQUIRE(measured.weights > 0);
  return measured;
}

}  // namespace

TEST_CASE("loading a model never takes more than 1.1 times its weights, over all ranks") {
  if (!memory_of_this_process("VmHWM")) TROIKA_SKIP("this system does not tell the peak of a process's memory");
  const troika::test::TempFolder folder;
  write_large_model(folder.path());
  for (const int world : {1, 2, 3, 5}) {
    const auto measured = load(folder.path(), world);
    INFO(world << " ranks, weights of " << measured.weights << " bytes");
    CHECK(measured.weights > 200'000'000);
    CHECK(measured.resident >= measured.weights * 95 / 100);  // else nothing was measured
    CHECK(measured.resident <= measured.weights * 110 / 100);
    CHECK(measured.reserved <= measured.weights * 110 / 100);  // address space, and what a memory limit counts
  }
}
#endif
