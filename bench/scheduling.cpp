// SPDX-License-Identifier: Apache-2.0
// What the scheduler costs around work that does nothing, beside std::async and a plain pool with one lock, in one run.
// The CPU column is that of all threads: on a busy machine it says more than the time.
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include <troika/device/host/topology.hpp>
#include <troika/scheduling/dynamic_allocation.hpp>
#include <troika/scheduling/round_robin.hpp>
#include <troika/scheduling/static_allocation.hpp>
#include <troika/scheduling/task_scheduler.hpp>

namespace {

using namespace troika;

constexpr int batch = 10'000;

// What one writes first: a queue, a mutex, a condition variable.
class PlainPool {
 public:
  explicit PlainPool(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  ~PlainPool() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  template <class F>
  std::future<void> submit(F&& f) {
    auto task = std::make_shared<std::packaged_task<void()>>(std::forward<F>(f));
    auto future = task->get_future();
    {
      std::lock_guard lock(mutex_);
      queue_.emplace_back([task] { (*task)(); });
    }
    wake_.notify_one();
    return future;
  }

 private:
  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;
      auto task = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      task();
    }
  }
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

void per_task(benchmark::State& state, int tasks) {
  state.counters["per_task"] = benchmark::Counter(static_cast<double>(state.iterations()) * tasks,
                                                  benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

template <class A>
void troika_batch(benchmark::State& state) {
  TaskScheduler scheduler{host_devices(static_cast<int>(state.range(0))), A{}};
  std::vector<Task<void>> tasks(batch);
  for (auto _ : state) {
    for (auto& task : tasks) task = scheduler.submit([] {});
    for (auto& task : tasks) task.get();
  }
  per_task(state, batch);
}
void pool_batch(benchmark::State& state) {
  PlainPool pool(static_cast<int>(state.range(0)));
  std::vector<std::future<void>> tasks(batch);
  for (auto _ : state) {
    for (auto& task : tasks) task = pool.submit([] {});
    for (auto& task : tasks) task.get();
  }
  per_task(state, batch);
}
void async_batch(benchmark::State& state) {
  constexpr int fewer = 200;  // each is a thread
  std::vector<std::future<void>> tasks(fewer);
  for (auto _ : state) {
    for (auto& task : tasks) task = std::async(std::launch::async, [] {});
    for (auto& task : tasks) task.get();
  }
  per_task(state, fewer);
}

// Each task after the one before it.
void troika_chain(benchmark::State& state) {
  TaskScheduler scheduler{host_devices(static_cast<int>(state.range(0))), RoundRobin{}};
  for (auto _ : state) {
    auto last = scheduler.submit([] {});
    for (int i = 1; i < batch; ++i) last = scheduler.submit([] {}, {.after = {last}});
    last.get();
  }
  per_task(state, batch);
}

void troika_round_trip(benchmark::State& state) {
  TaskScheduler scheduler{host_devices(static_cast<int>(state.range(0))), RoundRobin{}};
  for (auto _ : state) scheduler.submit([] {}).get();
}
void pool_round_trip(benchmark::State& state) {
  PlainPool pool(static_cast<int>(state.range(0)));
  for (auto _ : state) pool.submit([] {}).get();
}
void async_round_trip(benchmark::State& state) {
  for (auto _ : state) std::async(std::launch::async, [] {}).get();
}

void troika_run_on_every_device(benchmark::State& state) {
  TaskScheduler scheduler{host_devices(static_cast<int>(state.range(0))), StaticAllocation{}};
  for (auto _ : state) scheduler.run_on_every_device([](auto&) {});
}
void pool_run_on_every_thread(benchmark::State& state) {
  const auto threads = static_cast<std::size_t>(state.range(0));
  PlainPool pool(static_cast<int>(threads));
  std::vector<std::future<void>> tasks(threads);
  for (auto _ : state) {
    for (auto& task : tasks) task = pool.submit([] {});
    for (auto& task : tasks) task.get();
  }
}

BENCHMARK(troika_batch<RoundRobin>)->Arg(1)->Arg(2)->Arg(4)->MeasureProcessCPUTime()->UseRealTime();
BENCHMARK(troika_batch<DynamicAllocation>)->Arg(2)->Arg(8)->MeasureProcessCPUTime()->UseRealTime();
BENCHMARK(pool_batch)->Arg(1)->Arg(2)->Arg(4)->MeasureProcessCPUTime()->UseRealTime();
BENCHMARK(async_batch)->MeasureProcessCPUTime()->UseRealTime();
BENCHMARK(troika_chain)->Arg(1)->Arg(2)->MeasureProcessCPUTime()->UseRealTime();
BENCHMARK(troika_round_trip)->Arg(1)->Arg(2)->MeasureProcessCPUTime()->UseRealTime();
BENCHMARK(pool_round_trip)->Arg(1)->Arg(2)->MeasureProcessCPUTime()->UseRealTime();
BENCHMARK(async_round_trip)->MeasureProcessCPUTime()->UseRealTime();
BENCHMARK(troika_run_on_every_device)->Arg(1)->Arg(2)->Arg(4)->Arg(8)->MeasureProcessCPUTime()->UseRealTime();
BENCHMARK(pool_run_on_every_thread)->Arg(1)->Arg(2)->Arg(4)->Arg(8)->MeasureProcessCPUTime()->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
