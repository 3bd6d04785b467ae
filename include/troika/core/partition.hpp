// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>

namespace troika {

// Half-open range of indices along one dimension.
struct Range {
  std::int64_t begin = 0, end = 0;
  constexpr std::int64_t size() const { return end - begin; }
  constexpr bool empty() const { return end <= begin; }
  constexpr bool operator==(const Range&) const = default;
};

// How one dimension is divided over the ranks: a range each, in rank order, some perhaps empty. Immutable; a copy costs
// one reference count. Ranges are disjoint, except in a partition made by `covering` (replicated KV heads).
class Partition {
 public:
  Partition() : Partition(0, {Range{}}) {}

  // Sizes as equal as whole units of `align` allow; the lower ranks take the remainder. Ranks past the units get
  // nothing.
  static Partition even(std::int64_t extent, int parts, std::int64_t align = 1) {
    check_parts(parts);
    return weighted(extent, std::vector<double>(static_cast<std::size_t>(parts), 1.0), align);
  }

  // Sizes in proportion to the weights, in whole units of `align`, by largest remainder. A zero weight takes nothing.
  static Partition weighted(std::int64_t extent, std::span<const double> weights, std::int64_t align = 1) {
    check_parts(static_cast<int>(weights.size()));
    expects(extent >= 0, [&] { return "cannot split a negative extent: " + std::to_string(extent); });
    expects(align >= 1 && extent % align == 0, [&] {
      return "an extent of " + std::to_string(extent) + " cannot be split in blocks of " + std::to_string(align) +
             "; valid extents are multiples of " + std::to_string(align);
    });
    double total = 0;
    for (const double weight : weights) {
      expects(std::isfinite(weight) && weight >= 0,
              [&] { return "a weight must be finite and not negative, not " + std::to_string(weight); });
      total += weight;
    }
    expects(total > 0 && std::isfinite(total), "at least one weight must be above zero, and their sum finite");

    const std::int64_t units = extent / align;
    std::vector<std::int64_t> sizes(weights.size());
    std::vector<std::pair<double, std::size_t>> remainders;
    std::int64_t given = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const double ideal = static_cast<double>(units) * (weights[i] / total);
      sizes[i] = std::min(static_cast<std::int64_t>(ideal), units - given);
      given += sizes[i];
      if (weights[i] > 0) remainders.emplace_back(static_cast<double>(sizes[i]) - ideal, i);
    }
    std::ranges::sort(remainders);  // largest remainder first, lower rank first among equals
    for (std::size_t i = 0; given < units; i = (i + 1) % remainders.size(), ++given) ++sizes[remainders[i].second];
    for (auto& size : sizes) size *= align;
    return by_hand(extent, sizes, align);
  }

  // The caller states every size; they must add up, in whole units of `align`.
  static Partition by_hand(std::int64_t extent, std::span<const std::int64_t> sizes, std::int64_t align = 1) {
    check_parts(static_cast<int>(sizes.size()));
    std::vector<Range> ranges;
    std::int64_t begin = 0;
    for (const auto size : sizes) {
      expects(size >= 0 && size % align == 0 && size <= extent - begin, [&] {
        return "a share of " + std::to_string(size) + " does not fit: shares are multiples of " +
               std::to_string(align) + " that add up to " + std::to_string(extent);
      });
      ranges.push_back({begin, begin + size});
      begin += size;
    }
    expects(begin == extent, [&] {
      return "shares add up to " + std::to_string(begin) + ", not to the extent " + std::to_string(extent);
    });
    return {extent, std::move(ranges)};
  }

  // The same split counted in smaller units: heads -> features.
  Partition scaled(std::int64_t factor) const {
    const auto scale = [factor](std::vector<Range> ranges) {
      for (auto& range : ranges) range = {range.begin * factor, range.end * factor};
      return ranges;
    };
    Partition result(extent_ * factor, scale(*ranges_));
    if (pieces_ != ranges_) result.pieces_ = std::make_shared<const std::vector<Range>>(scale(*pieces_));
    return result;
  }

  // The groups of `group` consecutive units that each rank's range touches: query heads -> the KV heads they read. A
  // group that is cut by a boundary, or shared because there are more ranks than groups, is held by each rank that
  // needs it.
  Partition covering(std::int64_t group) const {
    expects(group >= 1 && extent_ % group == 0,
            [&] { return std::to_string(extent_) + " units do not form groups of " + std::to_string(group); });
    std::vector<Range> ranges;
    std::int64_t last = 0;
    for (const auto& range : *ranges_) {
      ranges.push_back(range.empty() ? Range{last, last} : Range{range.begin / group, (range.end + group - 1) / group});
      last = ranges.back().end;
    }
    return {extent_ / group, std::move(ranges)};
  }

  // The same for fewer ranks: each takes as many of these ranges, one after the other, and remembers them as its
  // pieces.
  Partition joined(int parts) const {
    expects(parts >= 1 && this->parts() % parts == 0, [&] {
      return std::to_string(this->parts()) + " parts cannot be joined to " + std::to_string(parts) + " equal groups";
    });
    const auto each = ranges_->size() / static_cast<std::size_t>(parts);
    std::vector<Range> ranges;
    for (std::size_t i = 0; i < ranges_->size(); i += each) {
      ranges.push_back({(*ranges_)[i].begin, (*ranges_)[i + each - 1].end});
    }
    Partition result(extent_, std::move(ranges));
    result.pieces_ = ranges_;
    return result;
  }
  // What a rank's range is made of: one piece, unless the partition was joined.
  std::span<const Range> pieces(int rank) const {
    const auto each = pieces_->size() / ranges_->size();
    return std::span<const Range>(*pieces_).subspan(static_cast<std::size_t>(rank) * each, each);
  }

  std::int64_t extent() const { return extent_; }
  int parts() const { return static_cast<int>(ranges_->size()); }
  const Range& operator[](int rank) const { return (*ranges_)[static_cast<std::size_t>(rank)]; }
  std::span<const Range> ranges() const { return *ranges_; }
  bool operator==(const Partition& other) const {
    return extent_ == other.extent_ && (ranges_ == other.ranges_ || *ranges_ == *other.ranges_);
  }
  // No index is held twice.
  bool is_disjoint() const {
    std::int64_t held = 0;
    for (const auto& range : *ranges_) held += range.size();
    return held == extent_;
  }

  std::string to_string() const {
    std::string text;
    for (const auto& range : *ranges_) {
      text += (text.empty() ? "" : " | ") +
              (range.empty() ? "-" : std::to_string(range.begin) + ".." + std::to_string(range.end - 1));
    }
    return text;
  }

 private:
  Partition(std::int64_t extent, std::vector<Range> ranges)
      : extent_(extent), ranges_(std::make_shared<const std::vector<Range>>(std::move(ranges))), pieces_(ranges_) {}

  static void check_parts(int parts) {
    expects(parts >= 1, [&] { return "cannot split over " + std::to_string(parts) + " ranks; at least 1 is needed"; });
  }

  std::int64_t extent_;
  std::shared_ptr<const std::vector<Range>> ranges_, pieces_;
};

// How much of each split each rank takes: one weight a rank, as an allocation states them.
struct Shares {
  // Invariant shares cut into so many pieces whatever the number of ranks, of which each rank takes as many, so that
  // sums over pieces can be the same for every number of ranks.
  static constexpr int invariant_pieces = 8;

  std::vector<double> weights;
  bool invariant = false;

  int world_size() const { return static_cast<int>(weights.size()); }
  int pieces() const { return invariant ? invariant_pieces : world_size(); }
  // `extent` indices in whole blocks of `align`. Invariant shares are those of 1, 2, 4 or 8 ranks that take the same.
  Partition partition(std::int64_t extent, std::int64_t align = 1) const {
    if (!invariant) return Partition::weighted(extent, weights, align);
    check_invariant();
    return Partition::even(extent, invariant_pieces, align).joined(world_size());
  }
  void check_invariant() const {
    expects(world_size() >= 1 && invariant_pieces % world_size() == 0, [&] {
      return "invariant devices give the same bits on 1, 2, 4 or 8 ranks, not on " + std::to_string(world_size());
    });
    expects(std::ranges::all_of(weights, [&](double weight) { return weight == weights[0] && weight > 0; }), [&] {
      std::string text;
      for (const double weight : weights) text += (text.empty() ? "" : ", ") + std::to_string(weight);
      return "invariant devices take equal shares, not " + text;
    });
  }
};

}  // namespace troika
