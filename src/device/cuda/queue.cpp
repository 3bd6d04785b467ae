// SPDX-License-Identifier: Apache-2.0
#include "queue.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include <troika/core/error.hpp>
#include <troika/observe/gpus.hpp>

#include "graphs.hpp"
#include "products.hpp"

namespace troika::cuda {

Queue::Stream::Stream(int gpu, bool first) {
  check(cudaSetDevice(gpu), "cudaSetDevice");
  int lowest = 0, highest = 0;
  if (first) check(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "cudaDeviceGetStreamPriorityRange");
  // Not in the order of the legacy default stream, which waits for all others.
  check(cudaStreamCreateWithPriority(&handle, cudaStreamNonBlocking, highest), "cudaStreamCreateWithPriority");
}
Queue::Stream::~Stream() { (void)cudaStreamDestroy(handle); }

Queue::Queue(int gpu, std::shared_ptr<CudaPool> memory, std::shared_ptr<CudaPool> pinned)
    : gpu_(gpu),
      memory_(std::move(memory)),
      pinned_(std::move(pinned)),
      stream_(gpu),
      products_(std::make_unique<Products>(*memory_)) {
  check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, gpu), "cudaDeviceGetAttribute");
  for (std::size_t i = 0; i < arrays_kept; ++i)
    arrays_.push_back({pinned_->allocate(array_bytes), memory_->allocate(array_bytes)});
}

Queue::~Queue() {
  (void)cudaSetDevice(gpu_);
  (void)cudaStreamSynchronize(stream_.handle);  // before what it uses goes
  synchronize_second();
}

cudaStream_t Queue::stream() {
  check(cudaSetDevice(gpu_), "cudaSetDevice");
  if (in_graphs() && !capturing_) begin_capture();
  return current();
}

cudaStream_t Queue::direct() {
  if (graphs_) graphs_->interrupt();
  check(cudaSetDevice(gpu_), "cudaSetDevice");
  submit();
  return current();
}

Queue::Second& Queue::second() {
  expects(!graphs_, "a step of graphs has one stream");
  check(cudaSetDevice(gpu_), "cudaSetDevice");
  if (!second_) second_.emplace(gpu_);
  return *second_;
}
void Queue::follow() {
  Second& after = second();
  after.stream_done.record(stream_.handle);
  after.stream_done.hold(after.stream.handle);
}
void Queue::lead() {
  Second& before = second();
  before.second_done.record(before.stream.handle);
  before.second_done.hold(stream_.handle);
}
void Queue::synchronize_second() noexcept {
  if (second_) (void)cudaStreamSynchronize(second_->stream.handle);
}

void Queue::keep_pace() {
  if (in_graphs() || ++counted_ < counted_at_once) return;
  wait_for_pace();
  count_pace();
}
void Queue::wait_for_pace() {
  for (int looks = 0; !pace_[next_pace_].done(); ++looks) {
    check_guards();
    if (looks < 100)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}
void Queue::count_pace() {
  counted_ = 0;
  pace_[next_pace_].record(current());
  next_pace_ = (next_pace_ + 1) % kept_ahead;
}

void Queue::begin_step(Graphs& graphs) {
  wait_for_pace();
  graphs_ = &graphs;
}
bool Queue::in_graphs() const { return graphs_ && graphs_->captures(); }
bool Queue::end_piece() {
  const bool in_pieces = graphs_ && graphs_->in_pieces();
  if (in_pieces) submit();
  return in_pieces;
}
void Queue::give_collective() {
  if (graphs_) graphs_->collect();
  collective_ = in_graphs();
}

void Queue::begin_capture() {
  memory_->hold();
  pinned_->hold();
  check(cudaStreamBeginCapture(stream_.handle, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  capturing_ = true;
}

bool Queue::prepare() {
  if (!capturing_) return false;
  cudaGraph_t captured = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_.handle, &captured);
  const std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, decltype(&cudaGraphDestroy)> graph(captured,
                                                                                               &cudaGraphDestroy);
  capturing_ = false;
  check(ended, "cudaStreamEndCapture");
  prepared_ = graphs_->executable(captured, stream_.handle);
  return collective_;
}

void Queue::launch() {
  if (prepared_) {
    check(cudaGraphLaunch(prepared_, stream_.handle), "cudaGraphLaunch");
    count_pace();
  }
  prepared_ = nullptr;
  for (Array& array : arrays_) {
    if (!array.captured) continue;
    array.captured = false;
    array.copied.record(stream_.handle);
  }
  end_capture();
}

bool Queue::submit() {
  if (!capturing_) return false;
  prepare();
  launch();
  return true;
}

void Queue::end_capture() noexcept {
  collective_ = false;
  memory_->let_go();
  pinned_->let_go();
}

void Queue::end_step() noexcept {
  if (capturing_) {
    cudaGraph_t unfinished = nullptr;
    (void)cudaStreamEndCapture(stream_.handle, &unfinished);
    if (unfinished) (void)cudaGraphDestroy(unfinished);
    (void)cudaGetLastError();
  }
  capturing_ = false;
  prepared_ = nullptr;
  for (Array& array : arrays_)
    if (std::exchange(array.captured, false)) array.bytes = SIZE_MAX;
  end_capture();
  graphs_ = nullptr;
}

void Queue::synchronize() {
  check(cudaStreamSynchronize(direct()), "cudaStreamSynchronize");
  check_guards();
}

void Queue::check_guards() {
  for (const auto& weak : guards_)
    if (const auto guard = weak.lock()) guard->check();
}

void Queue::guard(std::weak_ptr<StreamGuard> guard) {
  std::erase_if(guards_, [](const auto& old) { return old.expired(); });
  guards_.push_back(std::move(guard));
}

// The one that was not used for longest. What a captured copy will read stays as it is until that is launched.
Queue::Array& Queue::array_to_fill() {
  Array* oldest = nullptr;
  for (Array& array : arrays_)
    if (!array.captured && (!oldest || array.used < oldest->used)) oldest = &array;
  if (oldest) return *oldest;
  arrays_.push_back({pinned_->allocate(array_bytes), memory_->allocate(array_bytes)});
  return arrays_.back();
}

const std::byte* Queue::find_array(std::span<const std::byte> values) {
  ++uses_;
  for (Array& array : arrays_) {
    if (array.bytes == values.size() && std::memcmp(array.host.data(), values.data(), values.size()) == 0) {
      array.used = uses_;
      return array.device.data();
    }
  }
  const auto on = stream();
  Array& array = array_to_fill();
  // The kernels that read what was there come before the copy, in the stream.
  array.copied.synchronize();
  array.bytes = SIZE_MAX;  // nothing is found here if what follows fails
  if (array.host.bytes() < values.size()) array.host = pinned_->allocate(values.size());
  if (array.device.bytes() < values.size()) array.device = memory_->allocate(values.size());
  std::memcpy(array.host.data(), values.data(), values.size());
  check(cudaMemcpyAsync(array.device.data(), array.host.data(), values.size(), cudaMemcpyHostToDevice, on),
        "cudaMemcpyAsync");
  array.captured = capturing_;
  if (!capturing_) array.copied.record(on);
  array.bytes = values.size();
  array.used = uses_;
  return array.device.data();
}

Queue::Angles Queue::angles(const RotaryTable& table) {
  auto found = std::ranges::find(tables_, table.identity(), &Table::identity);
  if (found == tables_.end()) {
    if (tables_.size() == tables_kept) tables_.erase(tables_.begin());
    const std::size_t bytes = static_cast<std::size_t>(table.positions() * (table.head_dim() / 2)) * sizeof(float);
    Table copied{table.identity(), memory_->allocate_exact(bytes), memory_->allocate_exact(bytes)};
    submit();  // what is in no pinned memory is not captured
    const auto on = stream_.handle;
    for (const auto& [to, from] : {std::pair(copied.cos.data(), table.cos(0)), {copied.sin.data(), table.sin(0)}})
      check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, on), "cudaMemcpyAsync");
    check(cudaStreamSynchronize(on), "cudaStreamSynchronize");  // the table may go
    tables_.push_back(std::move(copied));
    found = tables_.end() - 1;
  }
  return {reinterpret_cast<const float*>(found->cos.data()), reinterpret_cast<const float*>(found->sin.data())};
}

}  // namespace troika::cuda

namespace troika {

namespace {
std::string name_of(int gpu, int virtual_rank, int virtual_ranks) {
  return "cuda:" + std::to_string(gpu) + (virtual_ranks > 1 ? "/" + std::to_string(virtual_rank) : "");
}
// "0000:3B:00.0", its place on the bus, which NVML knows GPUs by, too; the numbers of the two differ.
std::string bus_of(int gpu) {
  std::array<char, 32> name{};
  cuda::check(cudaDeviceGetPCIBusId(name.data(), static_cast<int>(name.size()), gpu), "cudaDeviceGetPCIBusId");
  return name.data();
}
}  // namespace

CudaDevice::CudaDevice(int index, CudaOptions options, int gpu, int virtual_rank)
    : index_(index),
      gpu_(gpu),
      name_(name_of(gpu, virtual_rank, options.virtual_ranks)),
      bus_(bus_of(gpu)),
      options_(std::move(options)),
      memory_(std::make_shared<CudaPool>(gpu, CudaPool::Kind::device, options_.memory_limit)),
      pinned_(std::make_shared<CudaPool>(gpu, CudaPool::Kind::pinned, SIZE_MAX)),
      queue_(std::make_shared<cuda::Queue>(gpu, memory_, pinned_)) {
  if (!options_.nvml) options_.nvml = std::make_shared<Gpus>();
}

DeviceCondition CudaDevice::condition() const {
  const auto reading = options_.nvml->read(bus_);
  if (!reading) return {};
  DeviceCondition condition{.lost = reading->lost,
                            .slowed = reading->slowed.value_or(false),
                            .utilisation = reading->utilisation.value_or(0)};
  if (reading->memory && reading->memory_used)
    condition.free_memory = *reading->memory - std::min(*reading->memory, *reading->memory_used);
  return condition;
}

CudaDevice::Buffer CudaDevice::allocate(std::size_t bytes) {
  try {
    return memory_->allocate(bytes);
  } catch (const Error& error) {
    // What work that is captured has given back is free once it is launched.
    if (error.fault() != Fault::out_of_memory || !queue_->submit()) throw;
  }
  return memory_->allocate(bytes);
}

void CudaStream::synchronize() { device_->queue().synchronize(); }
void CudaStream::guard(std::weak_ptr<StreamGuard> guard) { device_->queue().guard(std::move(guard)); }
bool CudaStream::in_step() const { return device_->queue().in_step(); }
void CudaStream::keep_pace() { device_->queue().keep_pace(); }
bool CudaStream::end_piece() { return device_->queue().end_piece(); }
void* CudaStream::native() const { return cuda::stream_of(*this); }

CudaSecondStream::CudaSecondStream(const CudaStream& stream) : queue_(&stream.device().queue()) { follow(); }
CudaSecondStream::~CudaSecondStream() {
  if (!ahead_) return;
  try {
    lead();
  } catch (...) {  // what failed is known already; what it works on must not go before it is done
    queue_->synchronize_second();
  }
}
void CudaSecondStream::follow() { queue_->follow(); }
void CudaSecondStream::lead() {
  queue_->lead();
  ahead_ = false;
}
void CudaSecondStream::enter(bool on) noexcept {
  ahead_ = ahead_ || on;
  queue_->enter(on);
}

int cuda_device_count() {
  int count = 0;  // a runtime without a driver leaves it as it is
  const auto error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver) return 0;
  cuda::check(error, "cudaGetDeviceCount");
  return count;
}

std::vector<int> cuda_gpus(std::vector<int> gpus) {
  int count = 0;
  cuda::check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  if (gpus.empty())
    for (int gpu = 0; gpu < count; ++gpu) gpus.push_back(gpu);
  if (gpus.empty()) throw Error(Fault::unsupported, "no GPU: the driver has none that this process may use");
  const auto valid = [&] { return "; valid are 0 to " + std::to_string(count - 1) + ", each once"; };
  for (auto gpu = gpus.begin(); gpu != gpus.end(); ++gpu) {
    expects(*gpu >= 0 && *gpu < count, [&] { return "there is no GPU " + std::to_string(*gpu) + valid(); });
    expects(std::find(gpus.begin(), gpu, *gpu) == gpu,
            [&] { return "GPU " + std::to_string(*gpu) + " is named twice" + valid(); });
  }
  return gpus;
}

std::vector<CudaDevice> cuda_devices(CudaOptions options, std::vector<int> gpus) {
  gpus = cuda_gpus(std::move(gpus));
  expects(options.virtual_ranks >= 1,
          [&] { return "each GPU is shared by 1 device or more, not " + std::to_string(options.virtual_ranks); });
  if (!options.nvml) options.nvml = std::make_shared<Gpus>();
  std::vector<CudaDevice> devices;
  for (const int gpu : gpus) {
    for (int i = 0; i < options.virtual_ranks; ++i)
      devices.emplace_back(static_cast<int>(devices.size()), options, gpu, i);
  }
  return devices;
}

}  // namespace troika
