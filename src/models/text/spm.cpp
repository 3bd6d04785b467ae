// SPDX-License-Identifier: Apache-2.0
#include "spm.hpp"

#include <queue>
#include <utility>

#include "unicode.hpp"

namespace troika::models {
namespace {

// -1 for what does not spell a byte.
int byte_of(std::string_view token) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const auto high = digits.find(token[3]), low = digits.find(token[4]);
  return high == digits.npos || low == digits.npos ? -1 : static_cast<int>(high * 16 + low);
}

}  // namespace

Spm::Spm(Vocabulary vocabulary, std::vector<float> scores, std::vector<TokenKind> kinds,
         std::optional<std::int32_t> unknown, const std::string& where)
    : vocabulary_(std::move(vocabulary)), scores_(std::move(scores)), kinds_(std::move(kinds)), unknown_(unknown) {
  std::array<std::int32_t, 256> bytes;
  bytes.fill(-1);
  int known = 0;
  for (std::int32_t id = 0; id < vocabulary_.size(); ++id) {
    if (!vocabulary_.has(id) || kind(id) != TokenKind::byte) continue;
    const int byte = byte_of(vocabulary_.token(id));
    if (byte < 0) {
      bad_file(where + ": token " + std::to_string(id) + " is of the kind byte, but is spelled " +
               in_quotes(vocabulary_.token(id)) + "; valid are <0x00> to <0xFF>");
    }
    bytes[static_cast<std::size_t>(byte)] = id;
    ++known;  // no spelling is there twice
  }
  if (known == 256) bytes_ = bytes;
}

std::optional<std::int32_t> Spm::find(std::string_view text) const {
  if (text.size() > vocabulary_.longest()) return std::nullopt;
  const auto id = vocabulary_.find(text);
  if (!id || kind(*id) == TokenKind::control || kind(*id) == TokenKind::unknown || kind(*id) == TokenKind::byte)
    return std::nullopt;
  return id;
}

void Spm::encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
  struct Symbol {
    std::string_view text;        // empty once merged into its left neighbour
    std::int32_t previous, next;  // -1 at the ends
  };
  struct Candidate {
    float score;
    std::int32_t left, id;
    std::size_t bytes;
    bool operator<(const Candidate& other) const {  // the queue's top is the highest score, then the leftmost
      return score != other.score ? score < other.score : left > other.left;
    }
  };
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  for (std::size_t at = 0; at < piece.size();) {
    const auto begin = at;
    unicode::next(piece, at);
    const auto i = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({piece.substr(begin, at - begin), i - 1, at < piece.size() ? i + 1 : -1});
  }
  const auto symbol = [&](std::int32_t i) -> Symbol& { return symbols[static_cast<std::size_t>(i)]; };

  std::priority_queue<Candidate> queue;
  const auto offer = [&](std::int32_t left) {
    if (left < 0 || symbol(left).next < 0) return;
    // Neighbours are neighbours in the text too.
    const std::string_view both(symbol(left).text.data(),
                                symbol(left).text.size() + symbol(symbol(left).next).text.size());
    if (const auto id = find(both)) queue.push({scores_[static_cast<std::size_t>(*id)], left, *id, both.size()});
  };
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(symbols.size()); ++i) offer(i);

  Seams seams;
  while (!queue.empty()) {
    const auto top = queue.top();
    queue.pop();
    auto& left = symbol(top.left);
    if (left.text.empty() || left.next < 0) continue;
    auto& right = symbol(left.next);
    if (left.text.size() + right.text.size() != top.bytes) continue;  // one of the two has grown since
    if (kind(top.id) == TokenKind::unused) seams[top.id] = left.text.size();
    left.text = std::string_view(left.text.data(), top.bytes);
    right.text = {};
    left.next = right.next;
    if (right.next >= 0) symbol(right.next).previous = top.left;
    offer(left.previous);
    offer(top.left);
  }
  bool after_unknown = false;
  for (std::int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbol(i).next)
    emit(symbol(i).text, seams, after_unknown, ids);
}

void Spm::emit(std::string_view text, const Seams& seams, bool& after_unknown, std::vector<std::int32_t>& ids) const {
  // A stack of its own: a hostile vocabulary nests unused tokens as deeply as a token is long.
  std::vector<std::string_view> rest{text};
  while (!rest.empty()) {
    const auto part = rest.back();
    rest.pop_back();
    const auto id = find(part);
    if (id) {
      const auto seam = kind(*id) == TokenKind::unused ? seams.find(*id) : seams.end();
      if (seam != seams.end()) {
        rest.push_back(part.substr(seam->second));
        rest.push_back(part.substr(0, seam->second));
        continue;
      }
      ids.push_back(*id);
    } else if (bytes_) {
      for (const char c : part) ids.push_back((*bytes_)[static_cast<unsigned char>(c)]);
    } else if (unknown_ && !after_unknown) {
      ids.push_back(*unknown_);
    }
    after_unknown = !id && !bytes_;
  }
}

}  // namespace troika::models
