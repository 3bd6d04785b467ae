// SPDX-License-Identifier: Apache-2.0
// gelu of a sum is not the sum of gelus.
// expect: this stage does not accept this placement: put troika::to<...> before it
// errors: 1
#include "program.hpp"

auto wrong(Pipe& pipeline, const Tokens<Replicate>& x, Up& up, Down& down) {
  return pipeline.run(x, up, gelu, down, gelu);
}
