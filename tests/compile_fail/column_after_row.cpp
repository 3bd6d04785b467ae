// SPDX-License-Identifier: Apache-2.0
// The forgotten all_reduce between two blocks.
// expect: this stage does not accept this placement: put troika::to<...> before it
// errors: 1
#include "program.hpp"

auto wrong(Pipe& pipeline, const Tokens<Replicate>& x, Up& up, Down& down) {
  return pipeline.run(x, up, gelu, down, up, gelu, down, to<Replicate>);
}
