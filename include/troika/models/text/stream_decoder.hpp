// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <troika/models/text/tokenizer.hpp>

namespace troika::models {

// Turns ids into text while they are still being generated. A token may be half a character: its text waits until the
// rest has come, so that each piece is whole UTF-8. The pieces add up to Tokenizer::decode of all ids.
// One for each stream of tokens; holds a reference to the tokenizer.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}

  // The text that can be shown now, perhaps none.
  std::string add(std::int32_t id);
  // What is still held back, at the end of the stream: a character that was never completed is U+FFFD.
  std::string finish();

 private:
  std::string beyond_shown(const std::string& text) const;
  void restart_from(std::size_t first);

  const Tokenizer* tokenizer_;
  bool skip_special_;
  // A window over the ids: those before shown_ids_ were shown as the text shown_, and stay as context for the rest.
  std::vector<std::int32_t> ids_;
  std::size_t shown_ids_ = 0;
  std::string shown_;
};

}  // namespace troika::models
