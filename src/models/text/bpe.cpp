// SPDX-License-Identifier: Apache-2.0
#include "bpe.hpp"

#include <queue>

#include "unicode.hpp"

namespace troika::models {
namespace {

std::string byte_token(unsigned byte) {
  constexpr char hex[] = "0123456789ABCDEF";
  return std::string("<0x") + hex[byte >> 4] + hex[byte & 15] + ">";
}

}  // namespace

Bpe::Bpe(const Fields& model)
    : vocabulary_(model, "vocab"),
      prefix_(model.string("continuing_subword_prefix", "")),
      suffix_(model.string("end_of_word_suffix", "")),
      fuse_unknown_(model.boolean("fuse_unk", false)),
      byte_fallback_(model.boolean("byte_fallback", false)),
      ignore_merges_(model.boolean("ignore_merges", false)) {
  if (model.has("unk_token")) {
    unknown_ = vocabulary_.find(model.string("unk_token"));
    if (!unknown_)
      model.fail("unk_token", "is " + in_quotes(model.string("unk_token")) + ", which the vocabulary lacks");
  }
  for (unsigned byte = 0; byte < 256; ++byte) byte_ids_[byte] = vocabulary_.find(byte_token(byte));
  read_merges(model);
}

void Bpe::read_merges(const Fields& model) {
  const auto& list = model.array("merges");
  merges_.reserve(list.size());
  std::int32_t rank = 0;
  for (const auto& item : list) {
    const auto here = [&] { return model.where() + ": merge " + std::to_string(rank) + " "; };
    std::string_view left, right;
    if (item.is_string()) {
      const std::string_view text = item.get_ref<const std::string&>();
      const auto space = text.find(' ');
      if (rank == 0 && text.starts_with("#version")) continue;
      if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
        bad_file(here() + in_quotes(text) + " is not two tokens with a space between them");
      }
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else if (item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string()) {
      left = item[0].get_ref<const std::string&>();
      right = item[1].get_ref<const std::string&>();
    } else {
      bad_file(here() + "must be a string or a pair of strings, not " + shown(item));
    }
    add_merge(left, right, rank, model.where());
    ++rank;
  }
}

void Bpe::add_merge(std::string_view left, std::string_view right, std::int32_t rank, const std::string& where) {
  const auto here = [&] { return where + ": merge " + std::to_string(rank) + " "; };
  const auto known = [&](std::string_view token) {
    const auto id = vocabulary_.find(token);
    if (!id) bad_file(here() + "names the token " + in_quotes(token) + ", which the vocabulary lacks");
    return *id;
  };
  if (!right.starts_with(prefix_)) {
    bad_file(here() + "names the token " + in_quotes(right) + ", which does not begin with the prefix " +
             in_quotes(prefix_));
  }
  if (left.empty() || right.size() == prefix_.size()) bad_file(here() + "has an empty token");
  const auto result = known(std::string(left) + std::string(right.substr(prefix_.size())));
  merges_[pair_of(known(left), known(right))] = {rank, result};
}

Bpe::Bpe(Vocabulary vocabulary, std::span<const std::string_view> merges, bool ignore_merges, const std::string& where)
    : vocabulary_(std::move(vocabulary)), ignore_merges_(ignore_merges) {
  merges_.reserve(merges.size());
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const auto space = merges[i].find(' ');
    if (space == std::string_view::npos || merges[i].find(' ', space + 1) != std::string_view::npos) {
      bad_file(where + ": merge " + std::to_string(i) + " " + in_quotes(merges[i]) +
               " is not two tokens with a space between them");
    }
    add_merge(merges[i].substr(0, space), merges[i].substr(space + 1), static_cast<std::int32_t>(i), where);
  }
}

void Bpe::encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
  if (ignore_merges_) {
    if (const auto id = vocabulary_.find(piece)) {
      ids.push_back(*id);
      return;
    }
  }
  merge(characters(piece), ids);
}

// The tokens of the single characters: those without one become bytes or the unknown token, or vanish.
std::vector<std::int32_t> Bpe::characters(std::string_view piece) const {
  std::vector<std::int32_t> symbols;
  symbols.reserve(piece.size());
  bool pending = false;  // an unknown token that a following one may fuse with
  const auto bytes_known = [&](std::string_view text) {
    for (const char c : text) {
      if (!byte_ids_[static_cast<unsigned char>(c)]) return false;
    }
    return true;
  };
  std::string spelled;
  for (std::size_t at = 0; at < piece.size();) {
    const auto begin = at;
    unicode::next(piece, at);
    std::string_view text = piece.substr(begin, at - begin);
    if (!prefix_.empty() || !suffix_.empty()) {
      spelled.assign(begin != 0 ? prefix_ : "");
      spelled += text;
      if (at == piece.size()) spelled += suffix_;
      text = spelled;
    }
    if (const auto id = vocabulary_.find(text)) {
      if (pending) symbols.push_back(*unknown_);
      pending = false;
      symbols.push_back(*id);
    } else if (byte_fallback_ && bytes_known(text)) {
      for (const char c : text) symbols.push_back(*byte_ids_[static_cast<unsigned char>(c)]);
    } else if (unknown_) {
      if (pending && !fuse_unknown_) symbols.push_back(*unknown_);
      pending = true;
    }
  }
  if (pending) symbols.push_back(*unknown_);
  return symbols;
}

void Bpe::merge(const std::vector<std::int32_t>& symbols, std::vector<std::int32_t>& ids) const {
  struct Node {
    std::int32_t id, previous, next;  // next is -1 at the end, id is -1 once merged into its left neighbour
  };
  struct Candidate {
    std::int32_t rank, at, result;
    bool operator<(const Candidate& other) const {  // the queue's top is the lowest rank, then the leftmost
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  if (symbols.size() < 2) {
    ids.insert(ids.end(), symbols.begin(), symbols.end());
    return;
  }
  const auto count = static_cast<std::int32_t>(symbols.size());
  std::vector<Node> nodes(symbols.size());
  for (std::int32_t i = 0; i < count; ++i) {
    nodes[static_cast<std::size_t>(i)] = {symbols[static_cast<std::size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1};
  }
  const auto node = [&](std::int32_t i) -> Node& { return nodes[static_cast<std::size_t>(i)]; };

  std::vector<Candidate> storage;
  storage.reserve(symbols.size());
  const auto offer = [&](std::int32_t left, auto&& push) {
    if (left < 0 || node(left).next < 0) return;
    const auto found = merges_.find(pair_of(node(left).id, node(node(left).next).id));
    if (found != merges_.end()) push(Candidate{found->second.rank, left, found->second.result});
  };
  for (std::int32_t i = 0; i < count; ++i) offer(i, [&](Candidate c) { storage.push_back(c); });
  std::priority_queue<Candidate> queue(std::less<Candidate>{}, std::move(storage));

  while (!queue.empty()) {
    const auto top = queue.top();
    queue.pop();
    auto& left = node(top.at);
    if (left.id < 0 || left.next < 0) continue;
    auto& right = node(left.next);
    // The pair may have changed since it was queued.
    const auto found = merges_.find(pair_of(left.id, right.id));
    if (found == merges_.end() || found->second.result != top.result) continue;
    left.id = top.result;
    right.id = -1;
    left.next = right.next;
    if (right.next >= 0) node(right.next).previous = top.at;
    offer(left.previous, [&](Candidate c) { queue.push(c); });
    offer(top.at, [&](Candidate c) { queue.push(c); });
  }
  for (std::int32_t i = 0; i >= 0; i = node(i).next) ids.push_back(node(i).id);
}

}  // namespace troika::models
