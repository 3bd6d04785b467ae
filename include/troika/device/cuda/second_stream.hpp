// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

namespace troika {

class CudaStream;
namespace cuda {
class Queue;
}

// The second stream of a device, in which ranks exchange what the device has computed while it computes more, for as long
// as this lives: then the stream waits for all that was given to the second one, so that whoever gets memory back by the
// order of the stream comes after that, too. Not in a step of graphs.
class CudaSecondStream {
 public:
  explicit CudaSecondStream(const CudaStream& stream);
  CudaSecondStream(const CudaSecondStream&) = delete;
  CudaSecondStream& operator=(const CudaSecondStream&) = delete;
  ~CudaSecondStream();

  // What this is given from here on comes after all that the stream was given so far.
  void follow();
  // What the stream is given from here on comes after all that this was given so far.
  void lead();
  // f(), whose work goes here: every CudaStream of the device is this one meanwhile.
  template <class F>
  void give(F&& f) {
    const Scope scope(*this);
    std::forward<F>(f)();
  }

 private:
  struct Scope {
    explicit Scope(CudaSecondStream& of) : second(of) { second.enter(true); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() { second.enter(false); }
    CudaSecondStream& second;
  };

  void enter(bool on) noexcept;

  cuda::Queue* queue_;
  bool ahead_ = false;  // it was given something that the stream does not wait for
};

}  // namespace troika
