// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>

#include <troika/models/files/gguf_metadata.hpp>

#include "pre_tokenizer_kinds.hpp"
#include "tokenizer_parts.hpp"
#include "unicode.hpp"

// Tokenizers from the metadata of GGUF files ("tokenizer.ggml.*"). They say less than a tokenizer.json: how a text is
// cut follows from names, whose meaning is what the tokenizer.json of those models says.
namespace troika::models {
namespace {

std::string name(const char* key) { return std::string("tokenizer.ggml.") + key; }

class GgufTokenizer {
 public:
  explicit GgufTokenizer(const GgufMetadata& metadata)
      : metadata_(metadata),
        where_(metadata.origin() + ": " + name("tokens")),
        tokens_(metadata.strings(name("tokens"))) {
    if (tokens_.empty() || tokens_.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
      metadata.fail(name("tokens"), "has " + std::to_string(tokens_.size()) + " tokens; valid are 1 to 2^31 - 1");
    }
    kinds_.assign(tokens_.size(), TokenKind::normal);
    if (metadata.contains(name("token_type"))) {
      const auto kinds = metadata.integers(name("token_type"), 0, 6);  // 0: undefined
      check_size("token_type", kinds.size());
      for (std::size_t i = 0; i < kinds.size(); ++i) {
        if (kinds[i] != 0) kinds_[i] = static_cast<TokenKind>(kinds[i]);
      }
    }
  }

  std::unique_ptr<TokenizerParts> operator()();

 private:
  using Parts = TokenizerParts;
  std::unique_ptr<Parts> byte_level();
  std::unique_ptr<Parts> sentence_piece();
  std::unique_ptr<Parts> word_piece();

  void check_size(const char* key, std::size_t size) const {
    if (size == tokens_.size()) return;
    metadata_.fail(name(key),
                   "has " + std::to_string(size) + " elements for " + std::to_string(tokens_.size()) + " tokens");
  }
  // The token that the metadata give a role, perhaps none.
  std::optional<std::int32_t> id(const char* key) const {
    const auto none = std::int64_t{std::numeric_limits<std::uint32_t>::max()};
    const auto value = metadata_.integer(name(key), -1, none, -1);
    if (value == -1 || value == none) return std::nullopt;
    if (value >= std::ssize(tokens_) || tokens_[static_cast<std::size_t>(value)].empty()) {
      metadata_.fail(name(key), "is " + std::to_string(value) + ", which is no token; ids are 0 to " +
                                    std::to_string(tokens_.size() - 1));
    }
    return static_cast<std::int32_t>(value);
  }
  std::optional<std::int32_t> id(const char* key, const char* otherwise) const {
    const auto known = id(key);
    return known ? known : id(otherwise);
  }
  std::optional<std::int32_t> id(const char* key, const char* otherwise, std::string_view spelled,
                                 const Vocabulary& vocabulary) const {
    const auto known = id(key, otherwise);
    return known ? known : vocabulary.find(spelled);
  }
  // The role's token goes to one end of a text where the file says so.
  void surround(const char* flag, bool otherwise, std::optional<std::int32_t> token,
                std::vector<std::int32_t>& end) const {
    const bool wanted = metadata_.boolean(name(flag), otherwise);
    if (wanted && token)
      end.push_back(*token);
    else if (wanted && metadata_.contains(name(flag)))
      metadata_.fail(name(flag), "is true, but no key names that token");
  }
  // Tokens that are found in the text as they are spelled, before anything else happens to it.
  void add_special(Parts& parts) const {
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      const bool special = kinds_[i] == TokenKind::control || kinds_[i] == TokenKind::unknown;
      if (tokens_[i].empty() || (!special && kinds_[i] != TokenKind::user_defined)) continue;
      const auto token = static_cast<std::int32_t>(i);
      parts.added.add(std::string(tokens_[i]), token, {.special = special}, parts.normalizer, parts.vocabulary, where_);
    }
  }
  // All but the tokens that users added: those are found where texts have them as they are spelled, and nowhere else.
  Vocabulary vocabulary_of_model() const {
    auto tokens = tokens_;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (kinds_[i] == TokenKind::user_defined) tokens[i] = {};
    }
    return {tokens, where_};
  }
  template <class Component>
  Component component(const Json& json) const {
    return Component(Fields(json, where_));
  }

  const GgufMetadata& metadata_;
  std::string where_;
  std::vector<std::string_view> tokens_;
  std::vector<TokenKind> kinds_;
  std::vector<std::string> spelled_;  // what tokens_ refers to where that is not the file
};

std::unique_ptr<TokenizerParts> GgufTokenizer::operator()() {
  const auto model = metadata_.string(name("model"));
  auto parts = model == "gpt2"    ? byte_level()
               : model == "llama" ? sentence_piece()
               : model == "bert"  ? word_piece()
                                  : nullptr;
  if (parts == nullptr) {
    unsupported(metadata_.origin() + ": the key " + in_quotes(name("model")) + " is " + in_quotes(model) +
                "; supported are gpt2 (byte-level BPE), llama (SentencePiece BPE), bert (WordPiece)");
  }
  add_special(*parts);
  parts->gap = known_gap_tokens(parts->vocabulary);
  const auto prefix = id("fim_pre_token_id", "prefix_token_id"), suffix = id("fim_suf_token_id", "suffix_token_id"),
             middle = id("fim_mid_token_id", "middle_token_id");
  if (prefix && suffix && middle) parts->gap = gap_tokens(*prefix, *suffix, *middle, parts->vocabulary);
  if (parts->gap) {
    for (const char* end : {"fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id"})
      if (const auto token = id(end)) parts->gap->ends.push_back(*token);
  }
  return parts;
}

std::unique_ptr<TokenizerParts> GgufTokenizer::byte_level() {
  const auto pre = metadata_.string(name("pre"), "");
  const auto spaced = " " + std::string(pre) + " ";
  const auto* kind = std::ranges::find_if(
      pre_tokenizer_kinds, [&](const auto& k) { return k.names.find(spaced) != std::string_view::npos; });
  if (pre.empty() || pre.find(' ') != std::string_view::npos || kind == std::end(pre_tokenizer_kinds)) {
    unsupported(metadata_.origin() + ": the pre-tokenizer (" + name("pre") + ") " + in_quotes(pre) +
                " is not supported; supported are " + pre_tokenizer_names());
  }
  auto parts = std::make_unique<Parts>(Bpe(vocabulary_of_model(), metadata_.strings(name("merges")),
                                           kind->ignore_merges, metadata_.origin() + ": " + name("merges")));
  parts->pre_tokenizer = component<PreTokenizer>({{"type", "Sequence"}, {"pretokenizers", kind->steps()}});
  if (kind->nfc) parts->normalizer = component<Normalizer>({{"type", "NFC"}});
  parts->decoder = component<Decoder>({{"type", "ByteLevel"}});
  surround("add_bos_token", kind->add_bos, id("bos_token_id"), parts->before);
  surround("add_eos_token", false, id("eos_token_id"), parts->after);
  return parts;
}

std::unique_ptr<TokenizerParts> GgufTokenizer::sentence_piece() {
  if (metadata_.boolean(name("remove_extra_whitespaces"), false)) {
    unsupported(metadata_.origin() + ": the key " + in_quotes(name("remove_extra_whitespaces")) +
                " is true; supported is false");
  }
  auto scores = metadata_.floats(name("scores"));
  check_size("scores", scores.size());
  auto parts = std::make_unique<Parts>(
      Spm(Vocabulary(tokens_, where_), std::move(scores), kinds_, id("unknown_token_id"), where_));
  const std::string mark(space_mark);
  const Json replace{{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", mark}};
  const Json back{{"type", "Replace"}, {"pattern", {{"String", mark}}}, {"content", " "}};
  Json before = Json::array({replace});
  Json after = Json::array({back, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (metadata_.boolean(name("add_space_prefix"), true)) {
    before.insert(before.begin(), Json{{"type", "Prepend"}, {"prepend", mark}});
    after.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  parts->normalizer = component<Normalizer>({{"type", "Sequence"}, {"normalizers", before}});
  parts->decoder = component<Decoder>({{"type", "Sequence"}, {"decoders", after}});
  surround("add_bos_token", true, id("bos_token_id"), parts->before);
  surround("add_eos_token", false, id("eos_token_id"), parts->after);
  return parts;
}

// GGUF files spell WordPiece's tokens as SentencePiece would: "▁word" for "word", "piece" for "##piece".
std::unique_ptr<TokenizerParts> GgufTokenizer::word_piece() {
  if (std::ranges::any_of(tokens_, [](auto token) { return token.starts_with(space_mark); })) {
    spelled_.reserve(tokens_.size());
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      auto& token = tokens_[i];
      if (kinds_[i] == TokenKind::control || kinds_[i] == TokenKind::unknown || token.empty()) continue;
      if (token.starts_with(space_mark))
        token.remove_prefix(space_mark.size());
      else
        token = spelled_.emplace_back("##" + std::string(token));
    }
  }
  auto vocabulary = vocabulary_of_model();
  const auto unknown = id("unknown_token_id", "unknown_token_id", "[UNK]", vocabulary);
  if (!unknown)
    bad_file(metadata_.origin() + " has no key " + in_quotes(name("unknown_token_id")) + ", and no token [UNK]");
  const auto begin = id("cls_token_id", "bos_token_id", "[CLS]", vocabulary);
  const auto end = id("seperator_token_id", "eos_token_id", "[SEP]", vocabulary);  // spelled so in the format
  auto parts = std::make_unique<Parts>(WordPiece(std::move(vocabulary), *unknown));
  const bool lowercase = metadata_.boolean(name("normalizer.lowercase"), true);
  parts->normalizer =
      component<Normalizer>({{"type", "BertNormalizer"},
                             {"lowercase", lowercase},
                             {"strip_accents", metadata_.boolean(name("normalizer.strip_accents"), lowercase)}});
  parts->pre_tokenizer = component<PreTokenizer>({{"type", "BertPreTokenizer"}});
  parts->decoder = component<Decoder>({{"type", "WordPiece"}});
  surround("add_bos_token", true, begin, parts->before);
  surround("add_sep_token", true, end, parts->after);
  return parts;
}

}  // namespace

Tokenizer Tokenizer::from_gguf(const GgufMetadata& metadata) { return Tokenizer(GgufTokenizer(metadata)()); }

}  // namespace troika::models
