// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace troika::shim {

// What the words of kernels/language.cuh say of a warp's matrices. `number`: of the 16 bits of an element.
void multiply_add(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                  float (*number)(std::uint16_t bits));
void load_matrices(std::uint32_t (&to)[4], const void* row, bool transposed);

}  // namespace troika::shim
