// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/convert.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numbers>
#include <utility>

#include <troika/core/quantize.hpp>
#include <troika/models/files/config.hpp>
#include <troika/models/files/weights.hpp>

#include "../json.hpp"
#include "../text/gguf_vocabulary.hpp"
#include "gguf_names.hpp"
#include "gguf_writer.hpp"

namespace troika::models {
namespace {

struct OutputType {
  std::string_view name;
  WeightType type;
  int file_type;  // the number that llama.cpp gives a file of mostly this type
};
constexpr OutputType output_types[] = {
    {"F32", WeightType::f32, 0},      {"F16", WeightType::f16, 1},   {"BF16", WeightType::bf16, 32},
    {"Q8_0", WeightType::q8_0, 7},    {"Q4_0", WeightType::q4_0, 2}, {"Q4_1", WeightType::q4_1, 3},
    {"Q5_0", WeightType::q5_0, 8},    {"Q5_1", WeightType::q5_1, 9}, {"Q4_K", WeightType::q4_k, 14},
    {"Q4_K_M", WeightType::q4_k, 15}, {"Q6_K", WeightType::q6_k, 18}};

const OutputType& output_type(const std::string& name) {
  const auto* found = std::ranges::find(output_types, name, &OutputType::name);
  if (found != std::end(output_types)) return *found;
  std::string names;
  for (const auto& type : output_types) names += (names.empty() ? "" : ", ") + std::string(type.name);
  throw Error(Fault::invalid_argument, "no GGUF file of type " + in_quotes(name) + " is made; valid are " + names);
}

struct Planned {
  std::string source, name;
  Shape shape;
  WeightType type;
  std::int64_t head_dim = 0;  // where the halves of each head are interleaved
};

class Converter {
 public:
  Converter(const std::filesystem::path& folder, const ConvertOptions& options)
      : folder_(folder),
        wanted_(output_type(options.type)),
        config_(ModelConfig::load(folder)),
        weights_(Weights::open(folder)) {
    if (is_gguf_path(folder))
      throw Error(Fault::invalid_argument, folder.string() + " is a GGUF file; converted are Hugging Face folders");
    using A = Architecture;
    constexpr A converted[] = {A::llama, A::mistral, A::qwen2, A::qwen3};
    if (std::ranges::find(converted, config_.architecture) == std::end(converted)) {
      unsupported(folder.string() + ": a model of type " + std::string(to_string(config_.architecture)) +
                  " is not converted; converted are llama, mistral, qwen2, qwen3");
    }
    if (config_.sliding_window > 0 &&
        std::ranges::find(config_.sliding_layers, false) != config_.sliding_layers.end()) {
      unsupported(folder.string() + ": windows of attention in some layers only are not converted");
    }
    if (config_.long_rope)
      unsupported(folder.string() +
                  ": rope_scaling of the type longrope is not converted; converted are default, linear and llama3");
    plan();
  }

  Converted operator()(const std::filesystem::path& out, bool replace,
                       const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
    GgufWriter writer(out, replace);
    add_keys(writer);
    auto notes = write_vocabulary(writer, folder_, config_, weights_.info("model.embed_tokens.weight").shape[0]);
    for (const auto& [wanted, replaced] : replaced_) {
      const std::string type(to_string(wanted.first)), block = std::to_string(layout_of(wanted.first).block);
      notes.push_back(std::to_string(replaced.count) + " matrices (the first is " + replaced.first + ") are " +
                      std::string(to_string(replaced.instead)) + ": rows of " + std::to_string(wanted.second) +
                      " are not whole blocks of " + block + ", which " + type + " has");
    }
    std::uint64_t total = 0;
    for (const auto& tensor : tensors_) {
      writer.tensor(tensor.name, tensor.shape, tensor.type);
      total += static_cast<std::uint64_t>(tensor.shape.count());
    }
    for (const auto& tensor : tensors_) {
      write(writer, tensor, [&](std::int64_t done) {
        if (progress) progress(static_cast<std::uint64_t>(done), total);
      });
    }
    return {std::move(notes), writer.finish()};
  }

 private:
  // The tensors in the order of the layers, and what each becomes.
  void plan() {
    std::vector<std::pair<std::int64_t, std::string>> names;  // of which layer
    for (auto& name : weights_.names()) {
      if (name == "lm_head.weight" && config_.tie_word_embeddings) continue;
      if (name.ends_with(".rotary_emb.inv_freq")) continue;  // of old files, and worked out anew
      constexpr std::string_view layers = "model.layers.";
      const bool last = name == "model.norm.weight" || name == "lm_head.weight";
      const std::int64_t layer = name.starts_with(layers) ? std::stoll("0" + name.substr(layers.size(), 6))
                                 : last                   ? config_.layers
                                                          : -1;
      names.emplace_back(layer, std::move(name));
    }
    std::ranges::sort(names);
    for (auto& [layer, source] : names) {
      const auto name = gguf_name(source, config_.architecture);
      if (name.empty())
        unsupported(folder_.string() + ": the tensor " + in_quotes(source) +
                    " is none that a GGUF file of this model has");
      const auto& info = weights_.info(source);
      if (info.shape.dims() < 1 || info.shape.dims() > 2)
        unsupported(folder_.string() + ": tensor " + in_quotes(source) + " has shape " + info.shape.to_string());
      const auto rows = hugging_face_name(name, config_.architecture).rows;
      tensors_.push_back({source, name, info.shape, type_of(name, layer, info.shape),
                          rows == HuggingFaceName::as_is ? 0 : config_.head_dim});
      if (tensors_.back().head_dim != 0 && info.shape[0] % config_.head_dim != 0) {
        bad_file(folder_.string() + ": tensor " + in_quotes(source) + " has shape " + info.shape.to_string() +
                 ", which is not whole heads of " + std::to_string(config_.head_dim));
      }
    }
    if (config_.rope_scaling) tensors_.push_back({"", "rope_freqs.weight", {config_.head_dim / 2}, WeightType::f32});
  }

  WeightType type_of(const std::string& name, std::int64_t layer, const Shape& shape) {
    if (shape.dims() != 2) return WeightType::f32;
    auto type = wanted_.type;
    if (wanted_.name == "Q4_K_M") {
      const bool output = name == "output.weight" || (name == "token_embd.weight" && config_.tie_word_embeddings);
      const bool sensitive = name.ends_with("attn_v.weight") || name.ends_with("ffn_down.weight");
      // The first and the last eighth of the layers, and every third between.
      const auto eighth = config_.layers / 8;
      const bool chosen = layer < eighth || layer >= 7 * config_.layers / 8 || (layer - eighth) % 3 == 2;
      if (output || (sensitive && chosen)) type = WeightType::q6_k;
    }
    const auto fits = [&](WeightType t) { return shape[1] % layout_of(t).block == 0; };
    if (fits(type)) return type;
    auto instead = type == WeightType::q4_k ? WeightType::q5_0 : WeightType::q8_0;
    if (!fits(instead)) instead = WeightType::f16;
    const auto [note, fresh] = replaced_.try_emplace({type, shape[1]}, Replaced{name, instead, 0});
    note->second.count += 1;
    return instead;
  }

  void add_keys(GgufWriter& writer) const {
    const auto& c = config_;
    const std::string architecture(c.architecture == Architecture::mistral ? "llama" : to_string(c.architecture));
    const auto key = [&](const char* name) { return architecture + "." + name; };
    auto folder = std::filesystem::absolute(folder_).lexically_normal();
    if (!folder.has_filename()) folder = folder.parent_path();
    writer.string("general.architecture", architecture);
    writer.string("general.type", "model");
    writer.string("general.name", folder.filename().string());
    writer.u32("general.file_type", wanted_.file_type);
    writer.u32("general.quantization_version", 2);
    writer.u32(key("vocab_size"), weights_.info("model.embed_tokens.weight").shape[0]);
    writer.u32(key("block_count"), c.layers);
    writer.u32(key("context_length"), c.max_position_embeddings);
    writer.u32(key("embedding_length"), c.hidden_size);
    writer.u32(key("feed_forward_length"), c.intermediate_size);
    writer.u32(key("attention.head_count"), c.heads);
    writer.u32(key("attention.head_count_kv"), c.kv_heads);
    writer.u32(key("attention.key_length"), c.head_dim);
    writer.u32(key("attention.value_length"), c.head_dim);
    writer.f32(key("attention.layer_norm_rms_epsilon"), c.norm_eps);
    writer.f32(key("rope.freq_base"), c.rope_theta);
    writer.u32(key("rope.dimension_count"), c.rotary_dim);
    if (c.rope_factor != 1) {
      writer.string(key("rope.scaling.type"), "linear");
      writer.f32(key("rope.scaling.factor"), c.rope_factor);
    }
    if (c.sliding_window > 0) writer.u32(key("attention.sliding_window"), c.sliding_window);
  }

  template <class Done>
  void write(GgufWriter& writer, const Planned& tensor, Done done) const {
    if (tensor.source.empty()) {
      const auto divisors = rope_divisors();
      writer.write(std::as_bytes(std::span(divisors)));
      return done(std::ssize(divisors));
    }
    const bool vector = tensor.shape.dims() == 1;
    const std::int64_t rows = vector ? 1 : tensor.shape[0], columns = vector ? tensor.shape[0] : tensor.shape[1];
    // Whole heads at a time where rows change their places; about a MiB of floats otherwise.
    const std::int64_t heads = std::max<std::int64_t>(1, tensor.head_dim);
    const std::int64_t some =
        vector ? 1 : std::max<std::int64_t>(1, (1 << 18) / std::max<std::int64_t>(1, columns) / heads) * heads;
    std::vector<float> values, turned;
    std::vector<std::byte> blocks;
    for (std::int64_t first = 0; first < rows; first += some) {
      const std::int64_t count = std::min(some, rows - first);
      values.resize(static_cast<std::size_t>(count * columns));
      if (vector)
        weights_.read<float>(tensor.source, values);
      else
        weights_.read_rows<float>(tensor.source, {first, first + count}, values);
      if (tensor.head_dim != 0)
        interleave(values, turned, vector ? columns : count, vector ? 1 : columns, tensor.head_dim);
      blocks.resize(row_bytes(tensor.type, std::ssize(values)));
      try {
        quantize(tensor.type, values, blocks.data());
      } catch (const Error& error) {
        bad_file(folder_.string() + ": tensor " + in_quotes(tensor.source) + ", from row " + std::to_string(first) +
                 " on: " + error.what());
      }
      writer.write(blocks);
      done(count * columns);
    }
  }

  // Each head's rows (2, half) become (half, 2): GGUF rotates neighbours, Hugging Face halves.
  static void interleave(std::vector<float>& values, std::vector<float>& turned, std::int64_t rows,
                         std::int64_t columns, std::int64_t head_dim) {
    turned.resize(values.size());
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t in = row % head_dim, from = row - in + in % 2 * (head_dim / 2) + in / 2;
      std::copy_n(values.begin() + from * columns, columns, turned.begin() + row * columns);
    }
    values.swap(turned);
  }

  // What Llama 3's stretching divides each rotary frequency by.
  std::vector<float> rope_divisors() const {
    const auto& scaling = *config_.rope_scaling;
    const auto original = static_cast<double>(scaling.original_max_position_embeddings);
    std::vector<float> divisors;
    for (std::int64_t i = 0; i < config_.head_dim / 2; ++i) {
      const double wavelength =
          2 * std::numbers::pi *
          std::pow(config_.rope_theta, 2.0 * static_cast<double>(i) / static_cast<double>(config_.head_dim));
      double divisor = scaling.factor;
      if (wavelength < original / scaling.high_freq_factor) {
        divisor = 1;
      } else if (wavelength <= original / scaling.low_freq_factor) {
        const double smooth =
            (original / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
        divisor = 1 / ((1 - smooth) / scaling.factor + smooth);
      }
      divisors.push_back(static_cast<float>(divisor));
    }
    return divisors;
  }

  std::filesystem::path folder_;
  const OutputType& wanted_;
  ModelConfig config_;
  Weights weights_;
  std::vector<Planned> tensors_;
  struct Replaced {
    std::string first;
    WeightType instead;
    int count;
  };
  std::map<std::pair<WeightType, std::int64_t>, Replaced> replaced_;  // by wanted type and length of a row
};

}  // namespace

std::span<const std::string_view> gguf_output_types() {
  static constexpr auto names = [] {
    std::array<std::string_view, std::size(output_types)> list;
    std::ranges::transform(output_types, list.begin(), &OutputType::name);
    return list;
  }();
  return names;
}

Converted convert_to_gguf(const std::filesystem::path& folder, const std::filesystem::path& out,
                          const ConvertOptions& options,
                          const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  return Converter(folder, options)(out, options.replace, progress);
}

}  // namespace troika::models
