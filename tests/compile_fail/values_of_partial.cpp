// SPDX-License-Identifier: Apache-2.0
// Without the last to<>, a rank would read its own term for the sum.
// expect: only a Replicate tensor can be read: put troika::to<troika::Replicate> before it
// errors: 1
#include "program.hpp"

auto wrong(Pipe& pipeline, const Tokens<Replicate>& x, Up& up, Down& down) {
  return pipeline.run(x, up, gelu, down).values()[0];
}
