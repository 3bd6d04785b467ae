// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace troika::shim {

// A function on a stack of its own, which stops in the middle and goes on later. Only one runs at a time, all on one
// thread of the system. What is on its stack when the fibre is destroyed is not unwound: kernels own nothing.
class Fibre {
 public:
  static constexpr std::size_t stack_bytes = 64 << 10;

  Fibre(std::byte* stack, void (*function)(void*), void* argument);
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  // Runs it until it suspends or ends.
  void resume();
  // Goes back to who resumed it; called by the fibre itself.
  void suspend();

 private:
  static void enter();

  void (*function_)(void*);
  void* argument_;
  void* here_;             // where the fibre stopped
  void* there_ = nullptr;  // where its resumer stopped
  // AddressSanitizer has to know which stack it is on.
  [[maybe_unused]] std::byte* stack_;
  [[maybe_unused]] void* fake_here_ = nullptr;
  [[maybe_unused]] void* fake_there_ = nullptr;
  [[maybe_unused]] const void* resumer_stack_ = nullptr;
  [[maybe_unused]] std::size_t resumer_size_ = 0;
};

}  // namespace troika::shim
