// SPDX-License-Identifier: Apache-2.0
// expect: compiles
#include "program.hpp"

auto right(Pipe& pipeline, const Tokens<Replicate>& x, Up& up, Down& down) {
  const auto y = pipeline.run(x, residual(up, gelu, down, to<Replicate>), up, gelu, down, to<Shard<0>>, to<Replicate>);
  return y.values()[0];
}
