// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <troika/communication/agreement.hpp>
#include <troika/device/cuda/slices.hpp>

#include "exchange.hpp"

namespace troika::fastest {
namespace {

// Whole numbers whose sums, over the ranks, every type holds exactly.
int value(int rank, std::size_t i, int ranks) {
  const std::size_t most = static_cast<std::size_t>(std::clamp(120 / ranks, 1, 12));
  return static_cast<int>((i * 7 + static_cast<std::size_t>(rank) * 5) % (most + 1));
}

template <class F>
std::vector<std::byte> encoded(DType dtype, std::size_t count, F&& number) {
  std::vector<std::byte> bytes(count * size_of(dtype));
  visit(dtype, [&]<class T>(T) {
    for (std::size_t i = 0; i < count; ++i) {
      T element;
      if constexpr (std::is_integral_v<T>)
        element = static_cast<T>(number(i));
      else
        element = T(static_cast<float>(number(i)));
      std::copy_n(reinterpret_cast<const std::byte*>(&element), sizeof element, bytes.data() + i * sizeof element);
    }
  });
  return bytes;
}

class SelfTest {
  // Number i of what this rank puts in, and of all ranks' together.
  auto own() const {
    return [this](std::size_t i) { return value(me_, i, n_); };
  }
  auto sum() const {
    return [this](std::size_t i) {
      int all = 0;
      for (int r = 0; r < n_; ++r) all += value(r, i, n_);
      return all;
    };
  }

 public:
  SelfTest(DeviceEngine& engine, std::chrono::nanoseconds deadline, DType dtype, std::size_t count)
      : engine_(engine),
        stream_(engine.site().stream),
        me_(engine.site().rank),
        n_(engine.site().world_size),
        deadline_(deadline),
        dtype_(dtype),
        count_(count) {}

  // What differs, or nothing.
  std::string sums() {
    even(Operation::all_reduce, Reduction::sum, count_, own(), count_, sum());
    even(Operation::all_reduce, Reduction::max, count_, own(), count_, [this](std::size_t i) {
      int most = 0;
      for (int r = 0; r < n_; ++r) most = std::max(most, value(r, i, n_));
      return most;
    });
    return wrong_;
  }
  std::string run() {
    const std::size_t ranks = static_cast<std::size_t>(n_), mine = static_cast<std::size_t>(me_);
    const auto of = [&](int rank, std::size_t i) { return value(rank, i, n_); };
    sums();
    const auto gathered = [&](std::size_t i) { return of(static_cast<int>(i / count_), i % count_); };
    even(Operation::all_gather, Reduction::sum, count_, own(), count_ * ranks, gathered);
    even(Operation::reduce_scatter, Reduction::sum, count_ * ranks, own(), count_,
         [&](std::size_t i) { return sum()(mine * count_ + i); });
    even(Operation::broadcast, Reduction::sum, 0, own(), count_, [&](std::size_t i) { return of(n_ - 1, i); });
    even(Operation::all_to_all, Reduction::sum, count_ * ranks, own(), count_ * ranks,
         [&](std::size_t i) { return of(static_cast<int>(i / count_), mine * count_ + i % count_); });
    if (n_ > 1) {
      even(Operation::send, Reduction::sum, count_, own(), count_,
           [&](std::size_t i) { return of((me_ + n_ - 1) % n_, i); });
    }
    uneven();
    return wrong_;
  }

 private:
  Call call(Operation operation, Reduction reduction, std::size_t count) const {
    return {{.operation = operation, .dtype = dtype_, .reduction = reduction, .root = n_ - 1, .count = count},
            0,
            deadline_};
  }

  template <class In, class Wanted>
  void even(Operation operation, Reduction reduction, std::size_t in_count, In&& in, std::size_t out_count,
            Wanted&& wanted) {
    auto from = on_gpu(encoded(dtype_, in_count, in));
    // What does nothing must not look right; a broadcast takes what is there.
    const bool root = operation == Operation::broadcast && me_ == n_ - 1;
    auto to = on_gpu(encoded(dtype_, out_count, [&](std::size_t i) { return root ? in(i) : 101; }));
    exchange(engine_, operation, call(operation, reduction, count_), from.data(), to.data());
    compare(std::string(to_string(operation)) + " (" + std::string(to_string(reduction)) + ")", to,
            encoded(dtype_, out_count, wanted));
  }

  // reduce_scatter and then all_gather of shares that grow with the rank; rank 1 has none, the last the rest.
  void uneven() {
    const auto ranks = static_cast<std::size_t>(n_), mine = static_cast<std::size_t>(me_);
    std::vector<std::size_t> counts(ranks, 0);
    for (std::size_t r = 0; r + 1 < ranks; ++r) counts[r] = r == 1 ? 0 : count_ * (r + 1) / (ranks * ranks + 1);
    counts.back() = count_ - std::accumulate(counts.begin(), counts.end() - 1, std::size_t{0});
    const std::size_t begin = std::accumulate(counts.begin(), counts.begin() + me_, std::size_t{0});
    Call scatter = call(Operation::reduce_scatter, Reduction::sum, count_);
    Call gather = call(Operation::all_gather, Reduction::sum, count_);
    scatter.signature.layout = gather.signature.layout = layout_of(counts);
    auto in = on_gpu(encoded(dtype_, count_, own()));
    auto part = on_gpu(encoded(dtype_, counts[mine], [](std::size_t) { return 101; }));
    auto out = on_gpu(encoded(dtype_, count_, [](std::size_t) { return 101; }));
    engine_.reduce_scatter(scatter, in.data(), part.data(), counts);
    engine_.all_gather(gather, part.data(), out.data(), counts);
    compare("uneven reduce_scatter", part,
            encoded(dtype_, counts[mine], [&](std::size_t i) { return sum()(begin + i); }));
    compare("uneven all_gather", out, encoded(dtype_, count_, sum()));
  }

  CudaDevice::Buffer on_gpu(const std::vector<std::byte>& bytes) {
    auto buffer = stream_.device().allocate(bytes.size() + 1);
    if (!bytes.empty()) cuda::upload_bytes(stream_, bytes.data(), buffer.data(), bytes.size());
    return buffer;
  }
  void compare(const std::string& what, const CudaDevice::Buffer& got, const std::vector<std::byte>& wanted) {
    std::vector<std::byte> bytes(wanted.size());
    if (!bytes.empty()) cuda::download_bytes(stream_, got.data(), bytes.data(), bytes.size());
    stream_.synchronize();
    const auto differs = std::ranges::mismatch(bytes, wanted).in1;
    if (differs == bytes.end() || !wrong_.empty()) return;
    const auto element = static_cast<std::size_t>(differs - bytes.begin()) / size_of(dtype_);
    wrong_ = what + " of " + std::to_string(count_) + " " + std::string(to_string(dtype_)) + " gave rank " +
             std::to_string(me_) + " something wrong, first as element " + std::to_string(element);
  }

  DeviceEngine& engine_;
  CudaStream stream_;
  int me_, n_;
  std::chrono::nanoseconds deadline_;
  DType dtype_;
  std::size_t count_;
  std::string wrong_;
};

}  // namespace

std::string self_test(DeviceEngine& engine, std::chrono::nanoseconds deadline) {
  // The last is one that Peer adds in two shots.
  constexpr std::pair<DType, std::size_t> cases[] = {{DType::f32, 1},     {DType::bf16, 1003}, {DType::f16, 37},
                                                     {DType::i32, 37},    {DType::i8, 37},     {DType::u8, 37},
                                                     {DType::f32, 70'001}};
  std::string wrong;
  const auto note = [&](std::string found) {  // all ranks go through all, whatever one of them finds
    if (wrong.empty()) wrong = std::move(found);
  };
  for (const auto& [dtype, count] : cases) note(SelfTest(engine, deadline, dtype, count).run());
  note(SelfTest(engine, deadline, DType::f32, 70'001).sums());  // which Peer adds in two shots
  return wrong;
}

}  // namespace troika::fastest
