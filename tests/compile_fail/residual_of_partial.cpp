// SPDX-License-Identifier: Apache-2.0
// x + a term of a sum: x would be added world_size times.
// expect: the stages of a residual must end on the placement they began with: put troika::to<...> last
// errors: 1
#include "program.hpp"

auto wrong(Pipe& pipeline, const Tokens<Replicate>& x, Up& up, Down& down) {
  return pipeline.run(x, residual(up, gelu, down), to<Replicate>);
}
