#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares troika's quantisation with the PyPI package `gguf`.

    quantize_oracle.py PATH/TO/tool_quantize

The types that `gguf` makes must have the same bytes; of the K types, which it only reads, what it reads must be near the
numbers: the squared error at most 1.05 times that of plain rounding to even steps. Exits with 77 (skipped) where `gguf` is absent.
"""

import subprocess
import sys

try:
    import gguf
    import numpy as np
    from gguf.constants import GGMLQuantizationType
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

SAME = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]


def inputs(rng):
    """Blocks of 256: normal numbers of many sizes, one-sided ones, outliers, ties, constants, zeros, tiny numbers."""
    rows = 4000
    x = rng.normal(size=(rows, 256)).astype(np.float32)
    x *= np.exp(rng.uniform(-12, 6, (rows, 1))).astype(np.float32)
    x[500:800] = np.abs(x[500:800])
    x[800:1000] = -np.abs(x[800:1000])
    x[1000:1200, ::37] *= 30
    x[1200:1500] = rng.integers(-40, 41, (300, 256)) / 8  # many lie between two steps
    x[1500:1510] = 0.75
    x[1510:1520] = 0
    x[1520:1530, 1:] = 0
    x[1530:1600] *= np.float32(1e-7)
    return x


def plain_error(x, group, levels, symmetric):
    """Squared error of rounding each group to `levels` even steps, scales unrounded."""
    g = x.astype(np.float64).reshape(-1, group)
    low = -np.abs(g).max(1, keepdims=True) if symmetric else np.minimum(g.min(1, keepdims=True), 0)
    high = np.abs(g).max(1, keepdims=True) if symmetric else g.max(1, keepdims=True)
    step = np.where(high > low, (high - low) / (levels - 1), 1)
    return ((np.rint((g - low) / step) * step + low - g) ** 2).sum()


def main(tool):
    x = inputs(np.random.default_rng(5))
    failures = 0

    def made(name, values):
        run = subprocess.run([tool, name], input=values.tobytes(), capture_output=True, check=True)
        return np.frombuffer(run.stdout, dtype=np.uint8)

    for name in SAME:
        expected = gguf.quants.quantize(x, GGMLQuantizationType[name])
        expected = np.ascontiguousarray(expected).view(np.uint8).reshape(-1)
        got = made(name, x)
        differ = int((got != expected).sum()) if got.size == expected.size else -1
        failures += differ != 0
        print(f"{name}: {expected.size} bytes, {differ} differ")
    # Rows of one size, so that they count alike, and without those whose groups differ most: there the rounding of the
    # scales is the larger part.
    x = np.concatenate([x[:1000], x[1200:1500]])
    x /= np.abs(x).max(1, keepdims=True)
    for name, group, levels, symmetric in [("Q4_K", 32, 16, False), ("Q6_K", 16, 64, True)]:
        got = gguf.quants.dequantize(made(name, x).reshape(x.shape[0], -1), GGMLQuantizationType[name])
        error, plain = float(((got - x) ** 2).sum()), plain_error(x, group, levels, symmetric)
        ok = bool(np.isfinite(got).all()) and error < 1.05 * plain
        failures += not ok
        print(f"{name}: squared error {error:.4g}, of plain rounding {plain:.4g}: {'ok' if ok else 'FAIL'}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
