// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <utility>

#include <troika/core/error.hpp>

namespace troika::recording {

Driver* Driver::current = nullptr;

Driver::Driver(Options wanted)
    : options(wanted),
      memory(std::max(wanted.gpus, 0), wanted.memory),
      errors(static_cast<std::size_t>(std::max(wanted.gpus, 0)), cudaSuccess),
      machine(wanted.schedule),
      random_(wanted.schedule.seed),
      thread_([this] { work(); }) {}

Driver::~Driver() {
  {
    std::lock_guard lock(mutex);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Driver::problem(std::string what) { problems.push_back(std::move(what)); }

void Driver::count(const std::string& kind, int more) {
  live[kind] += more;
  if (live[kind] < 0) problem("destroyed more than there were of " + kind);
}

Stream* Driver::find(cudaStream_t stream) {
  for (Stream& known : streams)
    if (&known == stream) return &known;
  problem("a stream that does not exist");
  return nullptr;
}

Stream* Driver::add_stream(int gpu) {
  Stream& stream = streams.emplace_back();
  stream.gpu = gpu;
  stream.actor = actors_++;
  stream.clock = host_clock();
  return &stream;
}
void Driver::remove(Stream& stream) {
  streams.remove_if([&](const Stream& known) { return &known == &stream; });
}

Clock& Driver::host_clock() {
  auto [found, added] = hosts_.try_emplace(std::this_thread::get_id());
  if (added) found->second.first = actors_++;
  return found->second.second;
}

void Driver::add(Stream& stream, Node node) {
  if (!stream.capture) return node.give(*this, stream);
  if (stream.capture->thread != std::this_thread::get_id()) problem("work of another thread is captured");
  stream.capture->nodes.push_back(std::move(node));
}

bool Driver::is_capturing(Stream& stream, const char* call) {
  if (!stream.capture) return false;
  stream.capture->invalid = true;
  problem(std::string(call) + " on a stream that is captured");
  return true;
}

void Driver::give(Stream& stream, Work work) {
  stream.clock.join(host_clock());
  stream.clock.tick(stream.actor);
  work.clock = stream.clock;
  ++stream.given;
  stream.works.push_back(std::move(work));
  changed_.notify_all();
}

void Driver::wait(std::unique_lock<std::mutex>& lock, const std::function<bool()>& done) {
  ++waiting_;
  changed_.notify_all();
  changed_.wait(lock, done);
  --waiting_;
}

void Driver::synchronize(std::unique_lock<std::mutex>& lock, Stream& stream) {
  const auto until = stream.given;
  const Clock clock = stream.clock;
  wait(lock, [&] { return stream.finished >= until; });
  host_clock().join(clock);
}

void Driver::synchronize_gpu(std::unique_lock<std::mutex>& lock, int gpu) {
  const auto idle = [&] {
    return std::ranges::all_of(streams, [&](const Stream& s) { return s.gpu != gpu || s.works.empty(); });
  };
  wait(lock, idle);
  for (Stream& stream : streams)
    if (stream.gpu == gpu) host_clock().join(stream.clock);
}

void Driver::nudge() {
  ++nudges_;
  changed_.notify_all();
}

void Driver::touch(const Stream& stream, const Clock& clock, const void* data, std::size_t bytes, bool writes,
                   const char* what) {
  Memory::Block* const block = memory.holding(data, bytes);
  if (!block || bytes == 0) return;
  const auto begin = static_cast<std::size_t>(static_cast<const std::byte*>(data) - block->data);
  if (const char* other = block->touches.add({begin, begin + bytes, stream.actor, writes, clock, what}))
    problem(std::string(what) + " races with " + other + " on memory that both use");
}

bool Driver::may_work() const {
  if (options.when == When::late && waiting_ == 0 && nudges_ == 0 && !stopping_) return false;
  return std::ranges::any_of(streams, [](const Stream& stream) { return !stream.works.empty(); });
}

std::vector<Stream*> Driver::in_order() {
  std::vector<Stream*> all;
  for (Stream& stream : streams)
    if (!stream.works.empty()) all.push_back(&stream);
  using Order = shim::Schedule::Order;
  if (options.schedule.order == Order::reverse) std::ranges::reverse(all);
  if (options.schedule.order == Order::random) std::ranges::shuffle(all, random_);
  return all;
}

// Without the lock while it works: streams stay where they are, and works are added at their ends.
Step Driver::advance(std::unique_lock<std::mutex>& lock, Stream& stream) {
  Work& work = stream.works.front();
  if (work.ready && !work.ready()) return Step::waited;
  auto& error = errors[static_cast<std::size_t>(stream.gpu)];
  Step step = Step::done;
  if (error == cudaSuccess && work.step) {  // nothing is done after a failure
    std::string failure;
    lock.unlock();
    try {
      step = work.step();
    } catch (const std::exception& e) {
      failure = e.what();
      step = Step::done;
    }
    lock.lock();
    if (!failure.empty()) {
      problem("a kernel failed: " + failure);
      error = cudaErrorLaunchFailure;
    }
  }
  if (step == Step::done) {
    stream.works.pop_front();
    ++stream.finished;
    nudges_ = std::max(0, nudges_ - 1);
    changed_.notify_all();
  }
  return step;
}

void Driver::work() {
  // Deadlines of kernels go by the clock of the wall: threads of the host start them, however long that takes.
  shim::clock = [] {
    return static_cast<std::uint64_t>(
        std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
  };
  std::unique_lock lock(mutex);
  int idle = 0;
  for (;;) {
    changed_.wait(lock, [&] { return may_work() || stopping_; });
    if (!may_work()) return;
    memory.open(true);
    while (may_work()) {
      bool moved = false;
      for (Stream* stream : in_order()) {
        moved = advance(lock, *stream) != Step::waited;
        if (moved) break;  // and choose again
      }
      idle = moved ? 0 : idle + 1;
      // Kernels that wait for others: perhaps the host has still to start those.
      if (idle > 100) changed_.wait_for(lock, std::chrono::milliseconds(1));
    }
    memory.open(false);
  }
}

void Stream::launch(std::unique_ptr<shim::Grid> grid) {
  Driver& driver = *Driver::current;
  std::lock_guard lock(driver.mutex);
  const auto refuse = [](const char* why) {
    throw Error(Fault::device_failed, std::string("a kernel was not started: ") + why);
  };
  int device = 0;
  (void)cudaGetDevice(&device);
  if (driver.call_fails()) refuse("it was made to fail");
  if (driver.errors[static_cast<std::size_t>(gpu)] != cudaSuccess) refuse("the GPU has failed");
  const dim3 blocks = grid->blocks;
  if (device != gpu || blocks.x == 0 || blocks.y == 0 || blocks.z == 0 || blocks.y > 65535 || blocks.z > 65535) {
    driver.problem("a kernel on a stream of GPU " + std::to_string(gpu) + " from a thread on GPU " +
                   std::to_string(device) + ", of " + std::to_string(blocks.x) + " x " + std::to_string(blocks.y) +
                   " x " + std::to_string(blocks.z) + " blocks");
    refuse("invalid");
  }
  const auto start = [blocks, threads = grid->threads, body = grid->body](Driver& on, Stream& stream) {
    ++on.launches;
    const auto kernel = std::make_shared<shim::Grid>(shim::Grid{blocks, threads, body});
    on.give(stream, {.step = [&on, kernel] {
              bool moved = false;
              for (int i = 0; i < 64 && !moved; ++i) moved = on.machine.step(*kernel);
              return kernel->alive == 0 ? Step::done : moved ? Step::moved : Step::waited;
            }});
  };
  driver.add(*this, {"kernel", false, start});
}

Recording::Recording(Options options) : driver_(std::make_unique<Driver>(options)) { Driver::current = driver_.get(); }
Recording::~Recording() {
  driver_.reset();
  Driver::current = nullptr;
}

void Recording::fail(std::int64_t n) {
  std::lock_guard lock(driver_->mutex);
  driver_->failing = driver_->calls + n;
}
bool Recording::failed() const {
  std::lock_guard lock(driver_->mutex);
  return driver_->failing > 0 && driver_->calls >= driver_->failing;
}
std::int64_t Recording::calls() const {
  std::lock_guard lock(driver_->mutex);
  return driver_->calls;
}
std::int64_t Recording::launches() const {
  std::lock_guard lock(driver_->mutex);
  return driver_->launches;
}
std::int64_t Recording::graphs_made() const {
  std::lock_guard lock(driver_->mutex);
  return driver_->graphs_made;
}
std::int64_t Recording::graph_launches() const {
  std::lock_guard lock(driver_->mutex);
  return driver_->graph_launches;
}
std::int64_t Recording::allocations() const {
  std::lock_guard lock(driver_->mutex);
  return driver_->allocations;
}
std::vector<std::string> Recording::live() const {
  std::lock_guard lock(driver_->mutex);
  std::vector<std::string> all;
  for (const auto& [kind, count] : driver_->live)
    if (count != 0) all.push_back(std::to_string(count) + " " + kind);
  return all;
}
std::vector<std::string> Recording::problems() const {
  std::lock_guard lock(driver_->mutex);
  return driver_->problems;
}

}  // namespace troika::recording
