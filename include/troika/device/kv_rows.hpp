// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include <troika/core/shape.hpp>
#include <troika/device/device.hpp>
#include <troika/device/tensor.hpp>

namespace troika {

// How the keys and values of a cache are stored. q8 is 8 bits with one scale, a float, for each head of a token.
enum class KvType : std::uint8_t { f32, bf16, f16, q8 };

inline constexpr std::array kv_types{KvType::f32, KvType::bf16, KvType::f16, KvType::q8};

constexpr std::string_view to_string(KvType type) {
  constexpr std::string_view names[] = {"f32", "bf16", "f16", "q8"};
  return names[static_cast<std::size_t>(type)];
}
// The rows of a page of a cache that several sequences share. Attention reads keys in blocks that end where pages do.
inline constexpr std::int64_t kv_page = 128;

// Of an element; the scales of q8 come on top.
constexpr std::int64_t bytes_of(KvType type) { return type == KvType::f32 ? 4 : type == KvType::q8 ? 1 : 2; }

// Keys or values of one sequence as they are stored, (tokens, heads, head_dim): row after row, or in pages of kv_page
// rows that lie anywhere. Pass by value.
struct KvView {
  KvType type = KvType::f32;
  const std::uint8_t* data = nullptr;
  const float* scales = nullptr;  // (tokens, heads), of q8
  Shape shape{};
  const std::int32_t* pages = nullptr;  // of token t: pages[t / kv_page]; null: row t

  KvView() = default;
  KvView(KvType t, const std::uint8_t* d, const float* s, Shape extents, const std::int32_t* p = nullptr)
      : type(t), data(d), scales(s), shape(extents), pages(p) {}
  KvView(View<const float> floats)
      : data(reinterpret_cast<const std::uint8_t*>(floats.data())), shape(floats.shape()) {}

  // Where a token's row is; the tokens after it follow up to the end of its page.
  std::int64_t row(std::int64_t token) const {
    return pages ? pages[token / kv_page] * kv_page + token % kv_page : token;
  }
};

// Owns such rows in a device's memory; undefined until written by store(). Moves only.
template <Device D>
class KvRows {
 public:
  KvRows(D& device, KvType type, const Shape& shape)
      : type_(type), shape_(shape), data_(device, shape.with(2, shape[2] * bytes_of(type))) {
    if (type == KvType::q8) scales_ = {device, {shape[0], shape[1]}};
  }

  KvType type() const { return type_; }
  const Shape& shape() const { return shape_; }
  std::int64_t bytes() const {
    return data_.count() + (type_ == KvType::q8 ? shape_[0] * shape_[1] * static_cast<std::int64_t>(sizeof(float)) : 0);
  }
  std::uint8_t* data() { return data_.data(); }
  float* scales() { return scales_.data(); }
  // The first `tokens` of them, or of those on the pages.
  KvView first(std::int64_t tokens, const std::int32_t* pages = nullptr) const {
    return {type_, data_.data(), scales_.data(), shape_.with(0, tokens), pages};
  }

 private:
  KvType type_;
  Shape shape_;
  Tensor<std::uint8_t, D> data_;
  Tensor<float, D> scales_;
};

}  // namespace troika
