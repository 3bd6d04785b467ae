// SPDX-License-Identifier: Apache-2.0
#pragma once

// Whether this is a sanitizer build: those have an operator new of their own, and multiply memory and time. Who has the
// compiler's instrumentation without its library says 0.
#ifndef TROIKA_SANITIZED
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TROIKA_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define TROIKA_SANITIZED 1
#endif
#endif
#ifndef TROIKA_SANITIZED
#define TROIKA_SANITIZED 0
#endif
#endif
