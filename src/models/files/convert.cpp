// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/convert.hpp>

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <utility>

#include <troika/core/quantize.hpp>
#include <troika/models/files/config.hpp>
#include <troika/models/files/weights.hpp>

#include "../json.hpp"
#include "../text/gguf_vocabulary.hpp"
#include "gguf_config.hpp"
#include "gguf_keys.hpp"
#include "gguf_names.hpp"
#include "gguf_writer.hpp"
#include "tensor_parts.hpp"

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

// One tensor of the file. Where it holds several of the folder's, they follow each other.
struct Planned {
  std::string name;
  std::vector<std::string> sources;
  Shape shape;
  WeightType type;
  std::int64_t head_dim = 0;    // where the halves of each head are interleaved
  std::vector<float> values{};  // those of a tensor that no folder has
};

// Tensors beside those of the model: masks and tables that are worked out anew, and the heads of tasks.
bool is_left_out(std::string_view name, const ModelConfig& config) {
  for (const std::string_view end : {".rotary_emb.inv_freq", "position_ids", ".attn.bias", ".attn.masked_bias"}) {
    if (name.ends_with(end)) return true;
  }
  if (config.is_decoder()) return name == "lm_head.weight" && config.tie_word_embeddings;
  return name.starts_with("pooler.") || name.starts_with("cls.");
}

// What a Gemma 3 sees pictures with.
bool is_of_pictures(std::string_view name, const ModelConfig& config) {
  if (name.starts_with("model.")) name.remove_prefix(6);
  const bool pictures = name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector.");
  return pictures && config.architecture == Architecture::gemma3_text;
}

class Converter {
 public:
  Converter(const std::filesystem::path& folder, const ConvertOptions& options)
      : folder_(folder),
        wanted_(output_type(options.type)),
        config_(ModelConfig::load(folder)),
        weights_(Weights::open(folder)) {
    if (is_gguf_path(folder))
      throw Error(Fault::invalid_argument, folder.string() + " is a GGUF file; converted are Hugging Face folders");
    check_gguf_can_say(config_, folder.string());
    plan();
  }

  Converted operator()(const std::filesystem::path& out, bool replace,
                       const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
    GgufWriter writer(out, replace);
    auto notes = add_keys(writer);
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
    using Parts = std::map<std::int64_t, std::pair<std::string, std::int64_t>>;  // by place: the source, of how many
    std::map<std::pair<std::int64_t, std::string>, Parts> wholes;                // by layer and name
    for (auto& source : weights_.names()) {
      std::string_view name = source;
      if (!config_.is_decoder() && name.starts_with("bert.")) name.remove_prefix(5);
      if (is_of_pictures(name, config_)) ++of_pictures_;
      if (is_left_out(name, config_) || is_of_pictures(name, config_)) continue;
      const auto part = part_of(name, config_);
      auto& parts = wholes[{layer_of(name), part.whole}];
      if (!parts.emplace(part.place, std::pair(source, part.count)).second)
        bad_file(folder_.string() + ": the tensor " + in_quotes(name) + " is there twice");
    }
    for (const auto& [at, parts] : wholes) {
      std::vector<std::string> sources;
      for (const auto& [place, source] : parts) sources.push_back(source.first);
      const auto count = parts.begin()->second.second;
      if (std::ssize(sources) != count || parts.rbegin()->first != count - 1) {
        bad_file(folder_.string() + ": " + in_quotes(at.second) + " of a GGUF file is made of " +
                 std::to_string(count) + " tensors, of which " + std::to_string(sources.size()) +
                 " are there, the first " + in_quotes(sources[0]));
      }
      add(at.second, at.first, std::move(sources));
    }
    for (auto& [name, divisors] : rope_tensors(config_)) {
      tensors_.push_back({name, {}, {std::ssize(divisors)}, WeightType::f32, 0, std::move(divisors)});
    }
  }

  // -1 before the layers, and their number after them.
  std::int64_t layer_of(std::string_view name) const {
    for (const std::string_view layers : {"model.layers.", "encoder.layer."}) {
      if (name.starts_with(layers)) return std::stoll("0" + std::string(name.substr(layers.size(), 6)));
    }
    return name.starts_with("model.norm.") || name == "lm_head.weight" ? config_.layers : -1;
  }

  void add(const std::string& whole, std::int64_t layer, std::vector<std::string> sources) {
    const auto name = gguf_name(whole, config_.architecture);
    if (name.empty())
      unsupported(folder_.string() + ": the tensor " + in_quotes(sources[0]) +
                  " is none that a GGUF file of this model has");
    const auto first = weights_.info(sources[0]).shape;
    const bool stacked = name.find("_exps.") != name.npos;
    std::int64_t rows = 0;
    for (const auto& source : sources) {
      const auto& shape = weights_.info(source).shape;
      const bool fits = shape.dims() == first.dims() && shape.dims() >= 1 && shape.dims() <= 2 &&
                        (stacked ? shape == first && shape.dims() == 2 : shape.dims() == 1 || shape[1] == first[1]);
      if (!fits) unsupported(folder_.string() + ": tensor " + in_quotes(source) + " has shape " + shape.to_string());
      rows += shape[0];
    }
    const auto shape = stacked             ? Shape{std::ssize(sources), first[0], first[1]}
                       : first.dims() == 1 ? Shape{rows}
                                           : Shape{rows, first[1]};
    const bool in_halves = hugging_face_name(name, config_.architecture).rows != HuggingFaceName::as_is;
    if (in_halves && rows % config_.head_dim != 0) {
      bad_file(folder_.string() + ": tensor " + in_quotes(sources[0]) + " has shape " + shape.to_string() +
               ", which is not whole heads of " + std::to_string(config_.head_dim));
    }
    tensors_.push_back(
        {name, std::move(sources), shape, type_of(name, layer, shape), in_halves ? config_.head_dim : 0});
  }

  WeightType type_of(const std::string& name, std::int64_t layer, const Shape& shape) {
    // Small, and read as they are by other programs.
    constexpr std::string_view exact[] = {"ffn_gate_inp.weight", "position_embd.weight", "token_types.weight"};
    const auto ends = [&](std::string_view end) { return name.ends_with(end); };
    if (shape.dims() == 1 || std::ranges::any_of(exact, ends)) return WeightType::f32;
    auto type = wanted_.type;
    if (wanted_.name == "Q4_K_M") {
      const bool output = name == "output.weight" || (name == "token_embd.weight" && config_.tie_word_embeddings);
      constexpr std::string_view sensitive_ends[] = {"attn_v.weight", "attn_qkv.weight", "ffn_down.weight",
                                                     "ffn_down_exps.weight"};
      const bool sensitive = std::ranges::any_of(sensitive_ends, ends);
      // The first and the last eighth of the layers, and every third between.
      const auto eighth = config_.layers / 8;
      const bool chosen = layer < eighth || layer >= 7 * config_.layers / 8 || (layer - eighth) % 3 == 2;
      if (output || (sensitive && chosen)) type = WeightType::q6_k;
    }
    const auto columns = shape[shape.dims() - 1];
    const auto fits = [&](WeightType t) { return columns % layout_of(t).block == 0; };
    if (fits(type)) return type;
    auto instead = type == WeightType::q4_k ? WeightType::q5_0 : WeightType::q8_0;
    if (!fits(instead)) instead = WeightType::f16;
    const auto [note, fresh] = replaced_.try_emplace({type, columns}, Replaced{name, instead, 0});
    note->second.count += 1;
    return instead;
  }

  std::vector<std::string> add_keys(GgufWriter& writer) const {
    auto folder = std::filesystem::absolute(folder_).lexically_normal();
    if (!folder.has_filename()) folder = folder.parent_path();
    const auto embedding = std::ranges::find(tensors_, "token_embd.weight", &Planned::name);
    if (embedding == tensors_.end() || embedding->shape.dims() != 2)
      bad_file(folder_.string() + " has no tensor that is the embedding of tokens");
    const auto rows = embedding->shape[0];
    writer.string("general.architecture", gguf_architecture(config_.architecture));
    writer.string("general.type", "model");
    writer.string("general.name", folder.filename().string());
    writer.u32("general.file_type", wanted_.file_type);
    writer.u32("general.quantization_version", 2);
    auto notes = write_model_keys(writer, config_, rows);
    std::ranges::move(write_vocabulary(writer, folder_, config_, rows), std::back_inserter(notes));
    if (of_pictures_ > 0)
      notes.push_back(std::to_string(of_pictures_) +
                      " tensors, which see pictures, are left out: the file is the model of text");
    return notes;
  }

  template <class Done>
  void write(GgufWriter& writer, const Planned& tensor, Done done) const {
    if (tensor.sources.empty()) {
      writer.write(std::as_bytes(std::span(tensor.values)));
      return done(std::ssize(tensor.values));
    }
    for (const auto& source : tensor.sources) write(writer, tensor, source, done);
  }

  template <class Done>
  void write(GgufWriter& writer, const Planned& tensor, const std::string& source, Done done) const {
    const auto& shape = weights_.info(source).shape;
    const bool vector = shape.dims() == 1;
    const std::int64_t rows = vector ? 1 : shape[0], columns = vector ? shape[0] : shape[1];
    const bool adds_one = config_.norm_adds_one && tensor.name.ends_with("norm.weight");
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
        weights_.read<float>(source, values);
      else
        weights_.read_rows<float>(source, {first, first + count}, values);
      if (adds_one) {
        for (auto& value : values) value += 1;
      }
      if (tensor.head_dim != 0)
        interleave(values, turned, vector ? columns : count, vector ? 1 : columns, tensor.head_dim);
      blocks.resize(row_bytes(tensor.type, std::ssize(values)));
      try {
        quantize(tensor.type, values, blocks.data());
      } catch (const Error& error) {
        bad_file(folder_.string() + ": tensor " + in_quotes(source) + ", from row " + std::to_string(first) +
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

  std::filesystem::path folder_;
  const OutputType& wanted_;
  ModelConfig config_;
  Weights weights_;
  std::vector<Planned> tensors_;
  int of_pictures_ = 0;
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
