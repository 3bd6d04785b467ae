// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/device/kv_rows.hpp>

namespace troika::serving {

// Who uses which pages of a KvMemory, and what full pages hold, so that a text that begins as an earlier one did reads
// that one's keys and values instead of computing them (as vLLM's prefix caching does, arXiv 2309.06180). A page that
// nobody uses any more is remembered until its place is needed; the one unused for the longest time goes first.
//
// A page is known by its tokens and the page before it, compared token by token: no hash decides what a request reads.
// Pages of one text are given back together, later ones first, so a page goes before the page that it follows.
// Not thread-safe.
class PagePool {
 public:
  static constexpr std::int32_t none = -1;

  explicit PagePool(std::int64_t pages) : pages_(static_cast<std::size_t>(pages)) {
    expects(pages >= 1, [&] { return "a pool has at least 1 page, not " + std::to_string(pages); });
    for (auto page = static_cast<std::int32_t>(pages - 1); page >= 0; --page) empty_.push_back(page);
  }

  std::int64_t size() const { return static_cast<std::int64_t>(pages_.size()); }
  // Pages that can be taken: empty ones, and those that are only remembered.
  std::int64_t available() const { return static_cast<std::int64_t>(empty_.size() + unused_.size()); }
  std::int64_t used() const { return size() - available(); }

  // A page of one's own, whose content is nobody's any more. Nothing when all are in use.
  std::optional<std::int32_t> take() {
    if (empty_.empty()) {
      if (unused_.empty()) return std::nullopt;
      const auto oldest = unused_.front();
      unused_.pop_front();
      forget(oldest);
      empty_.push_back(oldest);
    }
    const auto page = empty_.back();
    empty_.pop_back();
    at(page).users = 1;
    return page;
  }

  // The pages that hold the beginning of a text, each now used once more. Whole pages only, and never the text's last
  // token: that one is computed, for its logits.
  std::vector<std::int32_t> find(std::span<const std::int32_t> text) {
    std::vector<std::int32_t> found;
    auto before = none;
    while (text.size() > page_tokens) {
      const auto page = known(before, text.first(page_tokens));
      if (page == none) break;
      use(page);
      found.push_back(page);
      before = page;
      text = text.subspan(page_tokens);
    }
    return found;
  }

  // Remembers that `page`, which the caller uses, holds these tokens after the page `before` (or none). Gives the page
  // to use from now on: another one, where that holds the same already; then `page` is given back.
  std::int32_t remember(std::int32_t before, std::span<const std::int32_t> tokens, std::int32_t page) {
    expects(tokens.size() == page_tokens, "only full pages are remembered");
    if (const auto same = known(before, tokens); same != none) {
      if (same == page) return page;
      use(same);
      give_back(page);
      return same;
    }
    if (at(page).is_known) return page;
    at(page).before = before;
    at(page).tokens.assign(tokens.begin(), tokens.end());
    at(page).is_known = true;
    by_content_.emplace(hash(before, tokens), page);
    return page;
  }

  // The pages of one text, in its order.
  void give_back(std::span<const std::int32_t> text_pages) {
    for (auto i = text_pages.size(); i > 0; --i) give_back(text_pages[i - 1]);
  }

 private:
  static constexpr std::size_t page_tokens = kv_page;

  struct Page {
    int users = 0;
    bool is_known = false;  // others may find it
    std::int32_t before = none;
    std::vector<std::int32_t> tokens{};
    std::list<std::int32_t>::iterator unused{};  // where it is known and nobody uses it
  };

  Page& at(std::int32_t page) { return pages_[static_cast<std::size_t>(page)]; }

  void use(std::int32_t page) {
    if (at(page).users++ == 0) unused_.erase(at(page).unused);
  }
  void give_back(std::int32_t page) {
    if (--at(page).users > 0) return;
    if (at(page).is_known)
      at(page).unused = unused_.insert(unused_.end(), page);
    else
      empty_.push_back(page);
  }
  void forget(std::int32_t page) {
    const auto [first, last] = by_content_.equal_range(hash(at(page).before, at(page).tokens));
    by_content_.erase(std::find_if(first, last, [&](const auto& item) { return item.second == page; }));
    at(page).is_known = false;
    at(page).tokens.clear();
  }

  std::int32_t known(std::int32_t before, std::span<const std::int32_t> tokens) {
    const auto [first, last] = by_content_.equal_range(hash(before, tokens));
    const auto found = std::find_if(first, last, [&](const auto& item) {
      return at(item.second).before == before && std::ranges::equal(at(item.second).tokens, tokens);
    });
    return found == last ? none : found->second;
  }
  static std::uint64_t hash(std::int32_t before, std::span<const std::int32_t> tokens) {
    std::uint64_t h = 0xcbf29ce484222325u ^ static_cast<std::uint32_t>(before);  // FNV-1a over whole tokens
    for (const auto token : tokens) h = (h ^ static_cast<std::uint32_t>(token)) * 0x100000001b3u;
    return h;
  }

  std::vector<Page> pages_;
  std::vector<std::int32_t> empty_;
  std::list<std::int32_t> unused_;  // known, and used by nobody; the longest unused first
  std::unordered_multimap<std::uint64_t, std::int32_t> by_content_;
};

}  // namespace troika::serving
