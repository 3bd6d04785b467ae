// SPDX-License-Identifier: Apache-2.0
#include <troika/models/text/tokenizer.hpp>

#include <troika/models/files/gguf.hpp>

#include "../json.hpp"
#include "tokenizer_parts.hpp"
#include "unicode.hpp"

namespace troika::models {
namespace {

constexpr std::size_t max_tokenizer_bytes = std::size_t{256} << 20;

TokenModel read_model(const Fields& model) {
  // Older files do not name the model's type.
  const auto type = model.string("type", model.has("merges") ? "BPE" : "WordPiece");
  if (type == "BPE") return Bpe(model);
  if (type == "WordPiece") return WordPiece(model);
  unsupported(model.where() + ": the model " + in_quotes(type) + " is not supported; supported are BPE, WordPiece");
}

std::int32_t known_id(const Json& value, const Vocabulary& vocabulary, const std::string& where) {
  const auto id =
      static_cast<std::int32_t>(to_integer(value, 0, vocabulary.size() - 1, where + ": a special token's id"));
  if (!vocabulary.has(id))
    bad_file(where + ": a special token has the id " + std::to_string(id) + ", which no token has");
  return id;
}

// The ids that go around a text: the "post_processor" of a tokenizer.json.
void read_post_processor(const Fields& processor, const Vocabulary& vocabulary, std::vector<std::int32_t>& all_before,
                         std::vector<std::int32_t>& all_after) {
  const auto type = processor.string("type");
  std::vector<std::int32_t> before, after;
  if (type == "Sequence") {
    for (const auto& item : processor.array("processors")) {
      read_post_processor({item, processor.where()}, vocabulary, all_before, all_after);
    }
  } else if (type == "TemplateProcessing") {
    bool passed = false;  // the text itself
    for (const auto& item : processor.array("single")) {
      const Fields piece(item, processor.where() + ": single");
      if (piece.has("Sequence")) {
        if (passed) unsupported(processor.where() + ": a template that has the text twice is not supported");
        passed = true;
        continue;
      }
      const auto name = piece.object("SpecialToken").string("id");
      const Fields special = processor.object("special_tokens").object(name.c_str());
      for (const auto& id : special.array("ids"))
        (passed ? after : before).push_back(known_id(id, vocabulary, special.where()));
    }
    if (!passed) bad_file(processor.where() + ": the template has no place for the text");
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    const auto id_of = [&](const char* key) {
      const auto& pair = processor.array(key);
      if (pair.size() != 2) processor.fail(key, "must be a token and its id");
      return known_id(pair[1], vocabulary, processor.where() + ": " + key);
    };
    before.push_back(id_of("cls"));
    after.push_back(id_of("sep"));
  } else if (type != "ByteLevel") {  // that one only moves offsets
    unsupported(
        processor.where() + ": the post-processor " + in_quotes(type) +
        " is not supported; supported are Sequence, TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel");
  }
  all_before.insert(all_before.begin(), before.begin(), before.end());
  all_after.insert(all_after.end(), after.begin(), after.end());
}

}  // namespace

TokenizerParts::TokenizerParts(const Fields& file) : TokenizerParts(read_model(file.object("model"))) {
  if (file.has("normalizer")) normalizer = Normalizer(file.object("normalizer"));
  if (file.has("pre_tokenizer")) pre_tokenizer = PreTokenizer(file.object("pre_tokenizer"));
  if (file.has("decoder")) decoder = Decoder(file.object("decoder"));
  if (file.has("added_tokens")) {
    added = AddedTokens(file.get("added_tokens"), file.where() + ": added_tokens", normalizer, vocabulary);
  }
  gap = known_gap_tokens(vocabulary);
  if (file.has("post_processor")) read_post_processor(file.object("post_processor"), vocabulary, before, after);
}

Tokenizer::Tokenizer(std::unique_ptr<const TokenizerParts> parts) : parts_(std::move(parts)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  if (is_gguf_path(path)) {
    const auto parts = open_gguf_parts(path);  // the first has the metadata
    return from_gguf(parts[0].metadata());
  }
  const auto file = path / "tokenizer.json";
  if (!is_there(file)) bad_file(path.string() + " has no tokenizer.json");
  const Json document = read_json(file, max_tokenizer_bytes);
  return Tokenizer(std::make_unique<const TokenizerParts>(Fields(document, file.string())));
}

Tokenizer Tokenizer::parse(std::string_view json, const std::string& origin) {
  const Json document = parse_json(json, origin);
  return Tokenizer(std::make_unique<const TokenizerParts>(Fields(document, origin)));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool add_special) const {
  if (const auto at = unicode::find_invalid(text); at != unicode::npos) {
    throw Error(Fault::invalid_argument,
                "the text is not UTF-8: byte " + std::to_string(at) + " begins no valid character");
  }
  const auto& parts = *parts_;
  std::vector<std::int32_t> ids;
  if (add_special) ids = parts.before;
  for (const auto& raw : parts.added.split_raw(text)) {
    if (raw.id >= 0) {
      ids.push_back(raw.id);
      continue;
    }
    const auto normalized = parts.normalizer(std::string(raw.text));
    for (const auto& part : parts.added.split_normalized(normalized)) {
      if (part.id >= 0) {
        ids.push_back(part.id);
        continue;
      }
      const bool at_start = raw.text.data() == text.data() && part.text.data() == normalized.data();
      for (const auto& piece : parts.pre_tokenizer({std::string(part.text), at_start})) {
        std::visit([&](const auto& model) { model.encode(piece.text, ids); }, parts.model);
      }
    }
  }
  if (add_special) ids.insert(ids.end(), parts.after.begin(), parts.after.end());
  return ids;
}

const std::optional<GapTokens>& Tokenizer::gap_tokens() const { return parts_->gap; }

std::vector<std::int32_t> Tokenizer::encode_gap(std::string_view before, std::string_view after) const {
  const auto& gap = parts_->gap;
  if (!gap) unsupported("this vocabulary has no tokens for a gap between texts");
  auto ids = parts_->before;
  const auto add = [&](std::int32_t mark, std::string_view text) {
    ids.push_back(mark);
    const auto more = encode(text, false);
    ids.insert(ids.end(), more.begin(), more.end());
  };
  add(gap->prefix, before);
  add(gap->suffix, after);
  ids.push_back(gap->middle);
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const auto id : ids) {
    parts_->check(id);
    if (!parts_->vocabulary.has(id) || (skip_special && parts_->added.is_special(id))) continue;
    const auto* spelling = parts_->added.spelling(id);
    tokens.push_back(spelling != nullptr ? *spelling : parts_->vocabulary.token(id));
  }
  return parts_->decoder(std::move(tokens));
}

std::string Tokenizer::bytes_of(std::int32_t id) const {
  parts_->check(id);
  if (!parts_->vocabulary.has(id) || parts_->added.is_special(id)) return {};
  const auto* spelling = parts_->added.spelling(id);
  return parts_->decoder.bytes_of(spelling != nullptr ? *spelling : parts_->vocabulary.token(id));
}

std::int32_t Tokenizer::vocab_size() const { return parts_->vocabulary.size(); }

std::optional<std::int32_t> Tokenizer::id_of(std::string_view token) const { return parts_->vocabulary.find(token); }

const std::string& Tokenizer::token_of(std::int32_t id) const {
  parts_->check(id);
  return parts_->vocabulary.token(id);
}

bool Tokenizer::is_special(std::int32_t id) const {
  parts_->check(id);
  return parts_->added.is_special(id);
}

}  // namespace troika::models
