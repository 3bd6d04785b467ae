// SPDX-License-Identifier: Apache-2.0
#include <troika/models/text/stream_decoder.hpp>

#include <span>

#include "unicode.hpp"

namespace troika::models {
namespace {

constexpr std::string_view replacement = "\xef\xbf\xbd";

// A character is at most four bytes, so one that is still open begins in the last three tokens. More tokens than this
// that end in no character are not text, and are shown as they are: the window stays short.
constexpr std::size_t longest_character = 4, max_waiting = 16;

}  // namespace

std::string StreamDecoder::add(std::int32_t id) {
  // A token without text is no context either; and an id that is not in the vocabulary must not stay in the window.
  if (tokenizer_->is_special(id) && skip_special_) return {};
  ids_.push_back(id);
  const auto text = tokenizer_->decode(ids_, skip_special_);
  if (!text.ends_with(replacement)) {
    if (text.size() <= shown_.size()) return {};
    auto piece = beyond_shown(text);
    restart_from(shown_ids_);
    return piece;
  }
  if (ids_.size() - shown_ids_ < max_waiting) return {};
  const auto settled = ids_.size() - (longest_character - 1);
  auto piece = beyond_shown(tokenizer_->decode(std::span(ids_).first(settled), skip_special_));
  const std::vector<std::int32_t> open(ids_.end() - (longest_character - 1), ids_.end());
  ids_.resize(settled);
  restart_from(shown_ids_);
  ids_.insert(ids_.end(), open.begin(), open.end());
  return piece;
}

std::string StreamDecoder::finish() {
  auto piece = beyond_shown(tokenizer_->decode(ids_, skip_special_));
  ids_.clear();
  shown_ids_ = 0;
  shown_.clear();
  return piece;
}

// What `text` adds to shown_. Usually shown_ is its beginning; where a broken byte undid characters already shown, the
// same number of characters is left out.
std::string StreamDecoder::beyond_shown(const std::string& text) const {
  if (text.starts_with(shown_)) return text.substr(shown_.size());
  std::size_t at = 0;
  for (std::size_t left = unicode::count(shown_); left > 0 && at < text.size(); --left) unicode::next(text, at);
  return text.substr(at);
}

// All ids of the window are shown now; those from `first` on stay as context for the next.
void StreamDecoder::restart_from(std::size_t first) {
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(first));
  shown_ids_ = ids_.size();
  shown_ = tokenizer_->decode(ids_, skip_special_);
}

}  // namespace troika::models
