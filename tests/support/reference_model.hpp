// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numbers>
#include <span>
#include <string>
#include <vector>

#include <support/tiny_model.hpp>

// The models once more, in double, in the plainest loops, on one device and without a cache: what the split ones are
// compared with. Written from the papers and the transformers documentation, sharing nothing with include/troika.
class ReferenceModel {
 public:
  using Rows = std::vector<std::vector<double>>;  // (tokens, features)

  explicit ReferenceModel(const TinyModel& model) : m_(model) {}

  // Decoder: the logits of every token.
  Rows logits(std::span<const std::int32_t> ids) const {
    Rows x;
    for (const auto id : ids) {
      x.push_back(row(tensor("model.embed_tokens.weight"), id));
      if (m_.gemma)
        for (auto& value : x.back()) value *= std::sqrt(static_cast<double>(m_.hidden));
    }
    for (std::int64_t i = 0; i < m_.layers; ++i) {
      const std::string layer = "model.layers." + std::to_string(i);
      Rows normed;
      for (const auto& token : x) normed.push_back(rms_norm(token, layer + ".input_layernorm.weight"));
      auto attended = decoder_attention(normed, layer + ".self_attn.", m_.gemma && i % 2 == 1 ? 0 : m_.window);
      if (m_.gemma)
        for (auto& token : attended) token = rms_norm(token, layer + ".post_attention_layernorm.weight");
      accumulate(x, attended);
      for (auto& token : x) {
        const auto n = rms_norm(
            token, layer + (m_.gemma ? ".pre_feedforward_layernorm.weight" : ".post_attention_layernorm.weight"));
        auto down = m_.experts ? mixture(n, layer + ".mlp.") : mlp(n, layer + ".mlp.");
        if (m_.gemma) down = rms_norm(down, layer + ".post_feedforward_layernorm.weight");
        for (std::size_t j = 0; j < token.size(); ++j) token[j] += down[j];
      }
    }
    Rows result;
    for (const auto& token : x) {
      const auto n = rms_norm(token, "model.norm.weight");
      result.push_back(product(n, m_.tied ? "model.embed_tokens" : "lm_head"));
      if (m_.gemma)
        for (auto& logit : result.back()) logit = m_.logit_cap * std::tanh(logit / m_.logit_cap);
    }
    return result;
  }

  // The most likely token, again and again, each time over the whole sequence.
  std::vector<std::int32_t> greedy(std::vector<std::int32_t> ids, int count, std::int32_t end = -1) const {
    std::vector<std::int32_t> drawn;
    for (int i = 0; i < count; ++i) {
      const auto last = logits(ids).back();
      const auto token = static_cast<std::int32_t>(std::ranges::max_element(last) - last.begin());
      if (token == end) break;
      ids.push_back(token);
      drawn.push_back(token);
    }
    return drawn;
  }

  // Encoder: the last hidden state.
  Rows hidden_state(std::span<const std::int32_t> ids) const {
    Rows x;
    for (std::size_t t = 0; t < ids.size(); ++t) {
      auto token = row(tensor("embeddings.word_embeddings.weight"), ids[t]);
      const auto position = row(tensor("embeddings.position_embeddings.weight"), static_cast<std::int64_t>(t));
      const auto type = row(tensor("embeddings.token_type_embeddings.weight"), 0);
      for (std::size_t j = 0; j < token.size(); ++j) token[j] += position[j] + type[j];
      x.push_back(layer_norm(token, "embeddings.LayerNorm"));
    }
    for (std::int64_t i = 0; i < m_.layers; ++i) {
      const std::string layer = "encoder.layer." + std::to_string(i), self = layer + ".attention.self.";
      Rows q, k, v;
      for (const auto& token : x) {
        q.push_back(product(token, self + "query", true));
        k.push_back(product(token, self + "key", true));
        v.push_back(product(token, self + "value", true));
      }
      const auto mixed = attend(q, k, v, m_.hidden / m_.heads, static_cast<double>(m_.hidden / m_.heads),
                                [&](std::size_t, std::size_t) { return true; });
      for (std::size_t t = 0; t < x.size(); ++t) {
        const auto out = product(mixed[t], layer + ".attention.output.dense", true);
        for (std::size_t j = 0; j < out.size(); ++j) x[t][j] += out[j];
        x[t] = layer_norm(x[t], layer + ".attention.output.LayerNorm");
        auto up = product(x[t], layer + ".intermediate.dense", true);
        for (auto& value : up) value *= 0.5 * std::erfc(-value / std::numbers::sqrt2);
        const auto down = product(up, layer + ".output.dense", true);
        for (std::size_t j = 0; j < down.size(); ++j) x[t][j] += down[j];
        x[t] = layer_norm(x[t], layer + ".output.LayerNorm");
      }
    }
    return x;
  }

 private:
  const TinyModel::Values& tensor(const std::string& name) const { return m_.tensors.at(name); }

  static std::vector<double> row(const TinyModel::Values& matrix, std::int64_t index) {
    std::vector<double> result;
    for (std::int64_t j = 0; j < matrix.shape[1]; ++j) result.push_back(matrix(index, j));
    return result;
  }
  std::vector<double> product(const std::vector<double>& x, const std::string& name, bool bias = false) const {
    const auto& w = tensor(name + ".weight");
    std::vector<double> y;
    for (std::int64_t i = 0; i < w.shape[0]; ++i) {
      double sum = bias ? tensor(name + ".bias")[i] : 0;
      for (std::size_t j = 0; j < x.size(); ++j) sum += w(i, static_cast<std::int64_t>(j)) * x[j];
      y.push_back(sum);
    }
    return y;
  }
  std::vector<double> rms_norm(std::span<const double> x, const std::string& name) const {
    double squares = 0;
    for (const double value : x) squares += value * value;
    const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + 1e-5);
    std::vector<double> y;
    for (std::size_t j = 0; j < x.size(); ++j) {
      y.push_back(x[j] * scale * (tensor(name)[static_cast<std::int64_t>(j)] + (m_.gemma ? 1 : 0)));
    }
    return y;
  }
  std::vector<double> layer_norm(const std::vector<double>& x, const std::string& name) const {
    double mean = 0, variance = 0;
    for (const double value : x) mean += value / static_cast<double>(x.size());
    for (const double value : x) variance += (value - mean) * (value - mean) / static_cast<double>(x.size());
    std::vector<double> y;
    for (std::size_t j = 0; j < x.size(); ++j) {
      const auto i = static_cast<std::int64_t>(j);
      y.push_back((x[j] - mean) / std::sqrt(variance + 1e-12) * tensor(name + ".weight")[i] +
                  tensor(name + ".bias")[i]);
    }
    return y;
  }
  static void accumulate(Rows& x, const Rows& y) {
    for (std::size_t t = 0; t < x.size(); ++t)
      for (std::size_t j = 0; j < x[t].size(); ++j) x[t][j] += y[t][j];
  }

  double frequency(std::int64_t pair, std::int64_t dim) const {
    const double plain = std::pow(10000.0, -2.0 * static_cast<double>(pair) / static_cast<double>(dim));
    if (!m_.llama3) return plain;
    const double factor = 8, low = 1, high = 4, original = 32, wavelength = 2 * std::numbers::pi / plain;
    if (wavelength < original / high) return plain;
    if (wavelength > original / low) return plain / factor;
    const double smooth = (original / wavelength - low) / (high - low);
    return (1 - smooth) * plain / factor + smooth * plain;
  }

  // Head by head: norm (Qwen3), then rotation of the pairs (j, j + dim / 2).
  void prepare(std::vector<double>& x, std::size_t position, const std::string& norm) const {
    const auto dim = static_cast<std::size_t>(m_.head_dim);
    for (std::size_t head = 0; head * dim < x.size(); ++head) {
      const std::span part(x.data() + head * dim, dim);
      if (m_.qk_norm) std::ranges::copy(rms_norm(part, norm), part.begin());
      for (std::size_t j = 0; j < dim / 2; ++j) {
        const double angle = static_cast<double>(position) * frequency(static_cast<std::int64_t>(j), m_.head_dim);
        const double a = part[j], b = part[j + dim / 2];
        part[j] = a * std::cos(angle) - b * std::sin(angle);
        part[j + dim / 2] = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }

  std::vector<double> mlp(const std::vector<double>& x, const std::string& name) const {
    auto gate = product(x, name + "gate_proj");
    const auto up = product(x, name + "up_proj");
    for (std::size_t j = 0; j < gate.size(); ++j) {
      const double g = gate[j], tanh = std::tanh(std::sqrt(2 / std::numbers::pi) * (g + 0.044715 * g * g * g));
      gate[j] = up[j] * (m_.gemma ? g / 2 * (1 + tanh) : g / (1 + std::exp(-g)));
    }
    return product(gate, name + "down_proj");
  }

  // Every expert's answer, weighed by the softmax over the scores of the best.
  std::vector<double> mixture(const std::vector<double>& x, const std::string& name) const {
    const auto scores = product(x, name + "gate");
    std::vector<double> sorted(scores);
    std::ranges::sort(sorted, std::greater<>());
    const double least = sorted[static_cast<std::size_t>(m_.used_experts) - 1];
    double total = 0;
    std::vector<double> sum(x.size(), 0.0);
    for (std::size_t e = 0; e < scores.size(); ++e) {
      if (scores[e] < least) continue;
      const auto answer = mlp(x, name + "experts." + std::to_string(e) + ".");
      total += std::exp(scores[e]);
      for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += std::exp(scores[e]) * answer[j];
    }
    for (auto& value : sum) value /= total;
    return sum;
  }

  Rows decoder_attention(const Rows& x, const std::string& name, std::int64_t window) const {
    Rows q, k, v;
    for (std::size_t t = 0; t < x.size(); ++t) {
      q.push_back(product(x[t], name + "q_proj", m_.qkv_bias));
      k.push_back(product(x[t], name + "k_proj", m_.qkv_bias));
      v.push_back(product(x[t], name + "v_proj", m_.qkv_bias));
      prepare(q[t], t, name + "q_norm.weight");
      prepare(k[t], t, name + "k_norm.weight");
    }
    const auto sees = [&](std::size_t query, std::size_t key) {
      return key <= query && (window == 0 || query - key < static_cast<std::size_t>(window));
    };
    Rows result;
    for (const auto& token :
         attend(q, k, v, m_.head_dim, m_.gemma ? m_.query_scalar : static_cast<double>(m_.head_dim), sees))
      result.push_back(product(token, name + "o_proj"));
    return result;
  }

  template <class Sees>
  Rows attend(const Rows& q, const Rows& k, const Rows& v, std::int64_t head_dim, double scalar, Sees sees) const {
    const auto dim = static_cast<std::size_t>(head_dim);
    const auto group = static_cast<std::size_t>(m_.heads / m_.kv_heads);
    Rows result(q.size(), std::vector<double>(q[0].size(), 0.0));
    for (std::size_t t = 0; t < q.size(); ++t) {
      for (std::size_t head = 0; head < static_cast<std::size_t>(m_.heads); ++head) {
        const std::size_t kv = head / group * dim;
        std::vector<double> weights;
        double total = 0;
        for (std::size_t s = 0; s < k.size(); ++s) {
          double dot = 0;
          for (std::size_t j = 0; j < dim; ++j) dot += q[t][head * dim + j] * k[s][kv + j];
          double score = dot / std::sqrt(scalar);
          if (m_.gemma) score = m_.attention_cap * std::tanh(score / m_.attention_cap);
          weights.push_back(sees(t, s) ? std::exp(score) : 0.0);
          total += weights.back();
        }
        for (std::size_t s = 0; s < k.size(); ++s) {
          for (std::size_t j = 0; j < dim; ++j) result[t][head * dim + j] += weights[s] / total * v[s][kv + j];
        }
      }
    }
    return result;
  }

  const TinyModel& m_;
};

// Largest difference, relative to the largest logit.
inline double distance(std::span<const float> logits, std::span<const double> reference) {
  if (logits.size() != reference.size()) return INFINITY;
  double difference = 0, largest = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    difference = std::max(difference, std::abs(double{logits[i]} - reference[i]));
    largest = std::max(largest, std::abs(reference[i]));
  }
  return std::isfinite(difference) ? difference / largest : INFINITY;
}
