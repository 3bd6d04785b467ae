#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares troika's dequantisation with the PyPI package `gguf`, on blocks of random bytes, bit for bit.

    dequantize_oracle.py PATH/TO/tool_dequantize

Random bytes are every scale that a file can hold, infinities and NaN included (where one NaN is as good as another).
Exits with 77 (skipped) where `gguf` is absent.
"""

import subprocess
import sys

try:
    import gguf
    import numpy as np
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4"]


def main(tool):
    rng = np.random.default_rng(3)
    failures = 0
    for name in TYPES:
        kind = GGMLQuantizationType[name]
        elements, size = GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (20000, size), dtype=np.uint8)
        with np.errstate(all="ignore"):
            expected = gguf.quants.dequantize(blocks, kind).reshape(-1)
        run = subprocess.run([tool, name], input=blocks.tobytes(), capture_output=True, check=True)
        got = np.frombuffer(run.stdout, dtype=np.float32)
        same = got.size == 20000 * elements == expected.size
        differ = -1
        if same:
            equal = (got.view(np.uint32) == np.ascontiguousarray(expected).view(np.uint32)) | (np.isnan(got) & np.isnan(expected))
            differ = int((~equal).sum())
        failures += differ != 0
        print(f"{name}: {expected.size} values, {differ} differ")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
