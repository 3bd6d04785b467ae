// SPDX-License-Identifier: Apache-2.0
#include "gguf_vocabulary.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>

#include <troika/models/text/tokenizer.hpp>

#include "../json.hpp"
#include "pre_tokenizer_kinds.hpp"
#include "spm.hpp"

namespace troika::models {
namespace {

constexpr std::size_t max_bytes = std::size_t{256} << 20;

// A component without the fields that have no say, so that those of a file can be compared with those of a kind.
Json essence(const Json& step) {
  const auto type = step.value("type", std::string());
  Json result{{"type", type}};
  const auto keep = [&](const char* key, const Json& otherwise) {
    result[key] = step.contains(key) ? step[key] : otherwise;
  };
  if (type == "ByteLevel") keep("add_prefix_space", true), keep("use_regex", true);
  if (type == "Digits") keep("individual_digits", false);
  if (type == "Split") keep("pattern", nullptr), keep("behavior", nullptr), keep("invert", false);
  if (type == "Metaspace") keep("prepend_scheme", "always");
  if (type == "Replace") keep("pattern", nullptr), keep("content", nullptr);
  if (type == "BertNormalizer") {
    keep("clean_text", true), keep("handle_chinese_chars", true), keep("lowercase", true);
    keep("strip_accents", result["lowercase"]);
    if (result["strip_accents"].is_null()) result["strip_accents"] = result["lowercase"];
  }
  return result;
}

// The members of a Sequence, or the component alone; none of null.
std::vector<Json> members(const Json& document, const char* key, const char* list) {
  std::vector<Json> result;
  if (!document.contains(key) || document[key].is_null()) return result;
  const auto& component = document[key];
  if (component.value("type", std::string()) != "Sequence") return {essence(component)};
  if (component.contains(list))
    for (const auto& step : component[list]) result.push_back(essence(step));
  return result;
}

std::string first_name(const PreTokenizerKind& kind) {
  const auto names = kind.names.substr(1);
  return std::string(names.substr(0, names.find(' ')));
}

class VocabularyWriter {
 public:
  VocabularyWriter(GgufWriter& writer, const std::filesystem::path& folder, const ModelConfig& config,
                   std::int64_t rows)
      : writer_(writer),
        folder_(folder),
        config_(config),
        tokenizer_(Tokenizer::load(folder)),
        file_((folder / "tokenizer.json").string()),
        document_(read_json(folder / "tokenizer.json", max_bytes)),
        model_(document_.at("model")),
        rows_(rows) {
    if (tokenizer_.vocab_size() > rows) {
      bad_file(file_ + " has " + std::to_string(tokenizer_.vocab_size()) + " tokens; the model has rows for " +
               std::to_string(rows));
    }
    kinds_.assign(static_cast<std::size_t>(rows), static_cast<std::int32_t>(TokenKind::normal));
    for (std::int64_t id = 0; id < rows; ++id) {
      const bool there = id < tokenizer_.vocab_size() && !tokenizer_.token_of(static_cast<std::int32_t>(id)).empty();
      tokens_.push_back(there ? tokenizer_.token_of(static_cast<std::int32_t>(id)) : "[PAD" + std::to_string(id) + "]");
      if (!there) kind(id) = static_cast<std::int32_t>(TokenKind::unused);
    }
    read_added_tokens();
  }

  std::vector<std::string> operator()() {
    const auto type = model_.value("type", std::string("BPE"));
    if (type == "WordPiece")
      word_piece();
    else if (type != "BPE")
      unsupported(file_ + ": a tokenizer of type " + in_quotes(type) +
                  " is not converted; converted are BPE and WordPiece");
    else if (model_.value("byte_fallback", false))
      sentence_piece();
    else
      byte_level();
    if (type == "WordPiece")
      ends_of_word_piece();
    else
      special_tokens();
    chat_template();
    return std::move(notes_);
  }

 private:
  static std::string name(const char* key) { return std::string("tokenizer.ggml.") + key; }
  std::int32_t& kind(std::int64_t id) { return kinds_[static_cast<std::size_t>(id)]; }

  void read_added_tokens() {
    if (!document_.contains("added_tokens")) return;
    for (const auto& token : document_["added_tokens"]) {
      const auto id = token.at("id").get<std::int64_t>();  // Tokenizer::load has checked the list
      kind(id) =
          static_cast<std::int32_t>(token.value("special", false) ? TokenKind::control : TokenKind::user_defined);
      for (const char* flag : {"lstrip", "rstrip", "single_word"}) {
        if (token.value(flag, false)) {
          notes_.push_back("the token " + in_quotes(tokens_[static_cast<std::size_t>(id)]) + " has " + flag +
                           ", which GGUF files do not say: texts around it may be cut otherwise");
        }
      }
    }
  }

  void byte_level() {
    const auto steps = members(document_, "pre_tokenizer", "pretokenizers");
    const auto normalizer = members(document_, "normalizer", "normalizers");
    const auto* known = std::ranges::find_if(pre_tokenizer_kinds, [&](const auto& candidate) {
      const auto wanted = candidate.steps();
      const bool nfc = normalizer.size() == 1 && normalizer[0] == Json{{"type", "NFC"}};
      return (candidate.nfc ? nfc : normalizer.empty()) && std::ranges::equal(steps, wanted, {}, {}, essence);
    });
    if (known == std::end(pre_tokenizer_kinds)) {
      unsupported(
          file_ +
          ": GGUF files have no name that is known here for the way that this tokenizer cuts texts; known are " +
          pre_tokenizer_names());
    }
    writer_.string(name("model"), "gpt2");
    writer_.string(name("pre"), first_name(*known));
    write_tokens(tokens_);
    std::vector<std::string> merges;
    for (const auto& merge : model_.at("merges")) {
      merges.push_back(merge.is_string() ? merge.get<std::string>()
                                         : merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>());
    }
    writer_.strings(name("merges"), merges);
  }

  // SentencePiece's BPE merges what has the highest score; merges by rank are that with the rank, negative, as the
  // score.
  void sentence_piece() {
    const auto steps = members(document_, "pre_tokenizer", "pretokenizers");
    const auto normalizer = members(document_, "normalizer", "normalizers");
    // Gemma's cuts at spaces, of which its normalizer leaves none.
    const Json space{{"String", " "}};
    const Json no_spaces{{"type", "Replace"}, {"pattern", space}, {"content", space_mark}};
    const bool nothing_cut = !steps.empty() && steps[0]["type"] == "Split" && steps[0]["pattern"] == space &&
                             std::ranges::find(normalizer, no_spaces) != normalizer.end();
    if (!steps.empty() && (steps.size() > 1 || (steps[0]["type"] != "Metaspace" && !nothing_cut))) {
      unsupported(file_ +
                  ": a tokenizer with byte_fallback and this pre_tokenizer is not converted; converted are none, "
                  "Metaspace, and a Split at spaces where the normalizer replaces all");
    }
    std::vector<float> scores(tokens_.size(), 0.0f);
    std::vector<bool> scored(tokens_.size());
    std::int64_t rank = 0;
    for (const auto& merge : model_.at("merges")) {
      auto text = merge.is_string() ? merge.get<std::string>()
                                    : merge.at(0).get<std::string>() + merge.at(1).get<std::string>();
      if (merge.is_string()) std::erase(text, ' ');
      ++rank;
      const auto id = tokenizer_.id_of(text);
      if (!id || scored[static_cast<std::size_t>(*id)]) continue;
      scored[static_cast<std::size_t>(*id)] = true;
      scores[static_cast<std::size_t>(*id)] = -static_cast<float>(rank);
    }
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      if (tokens_[id].size() == 6 && tokens_[id].starts_with("<0x") && tokens_[id].ends_with('>')) {
        kinds_[id] = static_cast<std::int32_t>(TokenKind::byte);
      }
    }
    if (const auto unknown = model_.value("unk_token", Json()); unknown.is_string()) {
      if (const auto id = tokenizer_.id_of(unknown.get<std::string>())) {
        kind(*id) = static_cast<std::int32_t>(TokenKind::unknown);
        writer_.u32(name("unknown_token_id"), *id);
      }
    }
    bool prefix = false;
    for (const auto& step : normalizer) prefix |= step["type"] == "Prepend";
    for (const auto& step : steps) prefix |= step.value("prepend_scheme", "never") != "never";
    writer_.string(name("model"), "llama");
    writer_.string(name("pre"), "default");
    write_tokens(tokens_);
    writer_.f32s(name("scores"), scores);
    writer_.boolean(name("add_space_prefix"), prefix);
  }

  // GGUF files spell pieces as SentencePiece would: "▁word" for "word", "piece" for "##piece".
  void word_piece() {
    const auto steps = members(document_, "pre_tokenizer", "pretokenizers");
    const auto normalizer = members(document_, "normalizer", "normalizers");
    const bool bert = normalizer.size() == 1 && normalizer[0]["type"] == "BertNormalizer" &&
                      normalizer[0]["clean_text"] == true && normalizer[0]["handle_chinese_chars"] == true;
    if (!bert || steps != std::vector<Json>{Json{{"type", "BertPreTokenizer"}}}) {
      unsupported(file_ +
                  ": a WordPiece with this normalizer or pre_tokenizer is not converted; converted is "
                  "BertNormalizer with clean_text and handle_chinese_chars, with BertPreTokenizer");
    }
    constexpr std::string_view continues = "##";
    if (model_.value("continuing_subword_prefix", std::string(continues)) != continues ||
        model_.value("max_input_chars_per_word", 100) != 100) {
      unsupported(file_ +
                  ": a WordPiece with another continuing_subword_prefix than ## or another "
                  "max_input_chars_per_word than 100 is not converted");
    }
    auto spelled = tokens_;
    for (std::size_t id = 0; id < spelled.size(); ++id) {
      auto& token = spelled[id];
      if (kinds_[id] == static_cast<std::int32_t>(TokenKind::control)) continue;
      if (!token.starts_with(continues)) {
        token.insert(0, space_mark);
        continue;
      }
      token.erase(0, continues.size());
      if (token.empty() || token.starts_with(space_mark))
        unsupported(file_ + ": the token " + in_quotes(tokens_[id]) + " has no spelling in a GGUF file");
    }
    writer_.string(name("model"), "bert");
    writer_.string(name("pre"), "default");
    write_tokens(spelled);
    writer_.boolean(name("normalizer.lowercase"), normalizer[0]["lowercase"].get<bool>());
    writer_.boolean(name("normalizer.strip_accents"), normalizer[0]["strip_accents"].get<bool>());
  }

  void write_tokens(const std::vector<std::string>& spelled) {
    writer_.strings(name("tokens"), spelled);
    writer_.i32s(name("token_type"), kinds_);
  }

  // What goes around a text, seen on one: at most one token at each end.
  std::pair<std::optional<std::int32_t>, std::optional<std::int32_t>> ends_of_text() const {
    const auto text = tokenizer_.encode("a", false), whole = tokenizer_.encode("a", true);
    const auto at = std::search(whole.begin(), whole.end(), text.begin(), text.end());
    const bool found = at != whole.end();  // else the text is nothing to this tokenizer
    const std::vector<std::int32_t> before(whole.begin(), at), after(found ? at + std::ssize(text) : at, whole.end());
    if (before.size() > 1 || after.size() > 1) {
      unsupported(file_ + ": " + std::to_string(before.size()) + " tokens before a text and " +
                  std::to_string(after.size()) + " after it are not converted; GGUF files know one at each end");
    }
    const auto first = [](const std::vector<std::int32_t>& ids) {
      return ids.empty() ? std::nullopt : std::optional(ids[0]);
    };
    return {first(before), first(after)};
  }

  // [CLS] and [SEP].
  void ends_of_word_piece() {
    const auto [begin, end] = ends_of_text();
    const auto role = [&](const char* key, std::optional<std::int32_t> id) {
      if (id) writer_.u32(name(key), *id);
    };
    role("bos_token_id", begin);
    role("seperator_token_id", end);  // spelled so in the format
    role("unknown_token_id", tokenizer_.id_of(model_.value("unk_token", std::string("[UNK]"))));
    role("padding_token_id", config_.pad_token_id);
    role("mask_token_id", tokenizer_.id_of("[MASK]"));
    writer_.boolean(name("add_bos_token"), begin.has_value());
    writer_.boolean(name("add_sep_token"), end.has_value());
  }

  void special_tokens() {
    const auto [before, after] = ends_of_text();
    const auto ends = after ? std::vector{*after} : config_.eos_token_ids;
    const auto bos = before ? before : config_.bos_token_id;
    if (bos) writer_.u32(name("bos_token_id"), *bos);
    if (!ends.empty()) writer_.u32(name("eos_token_id"), ends[0]);
    for (const auto id : config_.eos_token_ids) {
      if (id < 0 || id >= rows_)
        bad_file(folder_.string() + ": eos_token_id " + std::to_string(id) + " is no token; ids are 0 to " +
                 std::to_string(rows_ - 1));
    }
    // Further tokens that end an answer: of a turn, and of a message.
    bool turn = false, message = false;
    for (const auto id : config_.eos_token_ids) {
      if (id == ends[0]) continue;
      const bool eom = tokens_[static_cast<std::size_t>(id)].find("eom") != std::string::npos;
      auto& taken = eom ? message : turn;
      if (taken)
        notes_.push_back("the token " + std::to_string(id) +
                         " ends an answer too, for which GGUF files have no further key");
      else
        writer_.u32(name(eom ? "eom_token_id" : "eot_token_id"), id);
      taken = true;
    }
    if (const auto pad = config_.pad_token_id) writer_.u32(name("padding_token_id"), *pad);
    writer_.boolean(name("add_bos_token"), before.has_value());
    writer_.boolean(name("add_eos_token"), after.has_value());
  }

  void chat_template() {
    const auto apart = folder_ / "chat_template.jinja", list = folder_ / "tokenizer_config.json";
    if (is_there(apart)) {
      std::ifstream file(apart, std::ios::binary);
      writer_.string("tokenizer.chat_template", std::string((std::istreambuf_iterator<char>(file)), {}));
    } else if (is_there(list)) {
      const Json document = read_json(list, max_bytes);
      if (document.is_object() && document.contains("chat_template") && document["chat_template"].is_string()) {
        writer_.string("tokenizer.chat_template", document["chat_template"].get<std::string>());
      }
    }
  }

  GgufWriter& writer_;
  std::filesystem::path folder_;
  const ModelConfig& config_;
  Tokenizer tokenizer_;
  std::string file_;
  Json document_;
  const Json& model_;
  std::int64_t rows_;
  std::vector<std::string> tokens_, notes_;
  std::vector<std::int32_t> kinds_;
};

}  // namespace

std::vector<std::string> write_vocabulary(GgufWriter& writer, const std::filesystem::path& folder,
                                          const ModelConfig& config, std::int64_t rows) {
  try {
    return VocabularyWriter(writer, folder, config, rows)();
  } catch (const Json::exception& error) {  // what the tokenizer itself does not look at
    bad_file((folder / "tokenizer.json").string() + ": " + error.what());
  }
}

}  // namespace troika::models
