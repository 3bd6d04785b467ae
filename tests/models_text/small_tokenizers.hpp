// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include <troika/models/text/tokenizer.hpp>

// Small tokenizer.json files, one of each kind.
namespace troika::test {

// 0 to 255 are the bytes in order, as GPT-2 spells them; then "he", "ll", "hell", "Ġhe", "<s>", "</s>".
inline std::string byte_level() {
  std::string vocab;
  unsigned other = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    const unsigned c = printable ? byte : other++;
    constexpr char hex[] = "0123456789abcdef";
    vocab += std::string(byte ? ",\"\\u" : "\"\\u") + hex[c >> 12 & 15] + hex[c >> 8 & 15] + hex[c >> 4 & 15] +
             hex[c & 15] + "\":" + std::to_string(byte);
  }
  return R"({"version":"1.0","normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},
    "added_tokens":[{"id":260,"content":"<s>","special":true,"normalized":false},{"id":261,"content":"</s>","special":true,"normalized":false}],
    "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},
      {"SpecialToken":{"id":"</s>","type_id":0}}],"pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[260],"tokens":["<s>"]},"</s>":{"id":"</s>","ids":[261],"tokens":["</s>"]}}},
    "decoder":{"type":"ByteLevel"},
    "model":{"type":"BPE","vocab":{)" +
         vocab + R"(,"he":256,"ll":257,"hell":258,"Ġhe":259},"merges":["h e",["l","l"],"he ll","Ġ he"]}})";
}

inline std::string sentence_piece() {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char hex[] = "0123456789ABCDEF";
    bytes += std::string("\"<0x") + hex[byte >> 4] + hex[byte & 15] + ">\":" + std::to_string(byte + 3) + ",";
  }
  return R"({"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]},
    "added_tokens":[{"id":0,"content":"<unk>","special":true},{"id":1,"content":"<s>","special":true},{"id":2,"content":"</s>","special":true}],
    "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
      "special_tokens":{"<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]}}},
    "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},
      {"type":"Strip","content":" ","start":1,"stop":0}]},
    "model":{"type":"BPE","unk_token":"<unk>","fuse_unk":true,"byte_fallback":true,"vocab":{"<unk>":0,"<s>":1,"</s>":2,)" +
         bytes +
         R"("▁":259,"a":260,"b":261,"ab":262,"▁ab":263,"ba":264,"aa":265,"aaaa":266},"merges":["a b","▁ ab","b a","a a","aa aa"]}})";
}

inline std::string word_piece() {
  return R"({"normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
    "pre_tokenizer":{"type":"BertPreTokenizer"},
    "added_tokens":[{"id":2,"content":"[CLS]","special":true},{"id":3,"content":"[SEP]","special":true},{"id":10,"content":"[MASK]","special":true}],
    "post_processor":{"type":"BertProcessing","sep":["[SEP]",3],"cls":["[CLS]",2]},
    "decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
    "model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":20,"vocab":{
      "[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"un":4,"##happ":5,"##happi":6,"##ly":7,"##y":8,"happi":9,"[MASK]":10,"!":11,"天":12,"u":13,"##u":14}}})";
}

}  // namespace troika::test
