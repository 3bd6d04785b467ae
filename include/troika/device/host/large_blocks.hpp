// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#if defined(__linux__)
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace troika::detail {

inline constexpr std::size_t huge_page = std::size_t{2} << 20;

// Fresh pages of the system, which nobody touched before: they will lie on the NUMA node of the thread that writes them
// first. They start where a huge page may, and are on huge pages where the system has them: reading weights once then
// misses fewer entries of page tables. Null where there is no memory.
inline std::byte* map_large(std::size_t bytes) {
  if (bytes > SIZE_MAX / 2) return nullptr;
#if defined(__linux__)
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t size = (bytes + page - 1) / page * page;
  void* const map = mmap(nullptr, size + huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  const std::size_t before = (huge_page - reinterpret_cast<std::uintptr_t>(map) % huge_page) % huge_page;
  auto* const data = static_cast<std::byte*>(map) + before;
  if (before > 0) munmap(map, before);
  if (before < huge_page) munmap(data + size, huge_page - before);
  madvise(data, size, MADV_HUGEPAGE);  // only a wish
  return data;
#else
  return static_cast<std::byte*>(std::aligned_alloc(huge_page, (bytes + huge_page - 1) / huge_page * huge_page));
#endif
}

inline void unmap_large(std::byte* data, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(__linux__)
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  munmap(data, (bytes + page - 1) / page * page);
#else
  std::free(data);
#endif
}

// Pages of this block that are not touched yet will lie on this node, or in turn on these nodes; elsewhere only when
// they are full. 0, or the errno of the refusal.
inline int bind_to_nodes([[maybe_unused]] std::byte* data, [[maybe_unused]] std::size_t bytes,
                         const std::vector<int>& nodes) {
  if (nodes.empty()) return 0;
#if defined(__linux__)
  constexpr std::size_t bits = 8 * sizeof(unsigned long);
  std::vector<unsigned long> mask(static_cast<std::size_t>(nodes.back()) / bits + 1);
  for (const int node : nodes)
    mask[static_cast<std::size_t>(node) / bits] |= 1ul << (static_cast<std::size_t>(node) % bits);
  const int policy = nodes.size() == 1 ? MPOL_PREFERRED : MPOL_INTERLEAVE;
  // The kernel takes one bit less than it is told.
  const long result = syscall(SYS_mbind, data, bytes, policy, mask.data(), mask.size() * bits + 1, 0u);
  return result == 0 ? 0 : errno;
#else
  return ENOSYS;
#endif
}

}  // namespace troika::detail
