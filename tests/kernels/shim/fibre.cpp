// SPDX-License-Identifier: Apache-2.0
#include "fibre.hpp"

#include <support/sanitizers.hpp>

#include <cstdint>
#include <cstdlib>

#if TROIKA_SANITIZED
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Saves what a function must keep (the x86-64 System V ABI), stores the stack pointer at *from and goes on at `to`.
extern "C" void troika_shim_switch(void** from, void* to);
asm(R"(
.pushsection .text
.p2align 4
.type troika_shim_switch,@function
troika_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size troika_shim_switch,.-troika_shim_switch
.popsection
)");

namespace troika::shim {

namespace {
Fibre* entering = nullptr;  // handed to a fibre that runs for the first time
}

Fibre::Fibre(std::byte* stack, void (*function)(void*), void* argument)
    : function_(function), argument_(argument), stack_(stack) {
#if TROIKA_SANITIZED
  __asan_unpoison_memory_region(stack, stack_bytes);  // of the fibre that had it before
#endif
  auto* top = reinterpret_cast<std::uintptr_t*>(stack + stack_bytes);
  *--top = 0;  // a return address that is none; keeps the stack aligned as after a call
  *--top = reinterpret_cast<std::uintptr_t>(&Fibre::enter);
  for (int i = 0; i < 6; ++i) *--top = 0;
  here_ = top;
}

void Fibre::enter() {
  Fibre& self = *entering;
#if TROIKA_SANITIZED
  __sanitizer_finish_switch_fiber(nullptr, &self.resumer_stack_, &self.resumer_size_);
#endif
  self.function_(self.argument_);
  self.suspend();
  std::abort();  // nobody resumes what has ended
}

void Fibre::resume() {
  entering = this;
#if TROIKA_SANITIZED
  __sanitizer_start_switch_fiber(&fake_there_, stack_, stack_bytes);
#endif
  troika_shim_switch(&there_, here_);
#if TROIKA_SANITIZED
  __sanitizer_finish_switch_fiber(fake_there_, nullptr, nullptr);
#endif
}

void Fibre::suspend() {
#if TROIKA_SANITIZED
  __sanitizer_start_switch_fiber(&fake_here_, resumer_stack_, resumer_size_);
#endif
  troika_shim_switch(&here_, there_);
#if TROIKA_SANITIZED
  __sanitizer_finish_switch_fiber(fake_here_, &resumer_stack_, &resumer_size_);
#endif
}

}  // namespace troika::shim
