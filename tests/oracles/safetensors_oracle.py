#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares troika's reader of safetensors with files that the PyPI package `safetensors` wrote.

    safetensors_oracle.py PATH/TO/tool_weights

Single and sharded folders, every type that numpy has and bfloat16, shapes from scalars to four dimensions, empty tensors.
Exits with 77 (skipped) where `safetensors` or `numpy` is absent.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import zlib

try:
    import numpy as np
    import safetensors
    from safetensors.numpy import save_file
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

READABLE = {"F32": np.float32, "F16": np.float16, "BF16": None, "I32": np.int32, "I8": np.int8, "U8": np.uint8}


def line(name, dtype, array, floats):
    readable = dtype in READABLE
    raw = str(zlib.crc32(array.tobytes())) if readable else "-"
    values = str(zlib.crc32(floats.astype(np.float32).tobytes())) if floats is not None else "-"
    columns = raw if array.ndim == 2 else "-"
    return "\t".join([name, dtype, "(" + ", ".join(map(str, array.shape)) + ")", raw, columns, values])


def with_bf16(path, tensors):
    """numpy has no bfloat16: the package writes U16, and the header is written again with the other name."""
    save_file(tensors, str(path), metadata={"format": "pt"})
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    for entry in header.values():
        if entry.get("dtype") == "U16":
            entry["dtype"] = "BF16"
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length:])


def tensors(seed):
    rng = np.random.default_rng(seed)
    shapes = [(), (1,), (7,), (5, 3), (64, 33), (1, 9), (9, 1), (2, 3, 4), (2, 1, 3, 5), (0,), (0, 4), (4, 0)]
    kinds = [("F32", np.float32), ("F16", np.float16), ("BF16", np.uint16), ("I32", np.int32), ("I8", np.int8), ("U8", np.uint8),
             ("F64", np.float64), ("I64", np.int64), ("BOOL", np.bool_), ("I16", np.int16), ("U32", np.uint32), ("U64", np.uint64)]
    arrays, lines = {}, []
    for dtype, kind in kinds:
        for i, shape in enumerate(shapes):
            name = f"layer.{i}.{dtype.lower()}"
            # Any bits but those of a NaN, whose payload a conversion may change.
            size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
            array = np.frombuffer(rng.bytes(size), dtype=kind).reshape(shape).copy()
            if dtype == "BOOL":
                array = rng.integers(0, 2, shape).astype(np.bool_)
            floats = None
            if dtype in ("F32", "F16"):
                array = np.where(np.isnan(array), kind(1), array).astype(kind)
                floats = array
            if dtype == "BF16":
                floats = (array.astype(np.uint32) << 16).view(np.float32) if array.ndim else np.array(int(array) << 16, np.uint32).view(np.float32)
                array = np.where(np.isnan(floats), np.uint16(0x3F80), array).astype(np.uint16)
                floats = (np.atleast_1d(array).astype(np.uint32) << 16).view(np.float32)
            arrays[name] = array
            lines.append(line(name, dtype, array, floats))
    return arrays, sorted(lines)


def check(tool, what, folder, expected):
    result = subprocess.run([tool, str(folder)], capture_output=True, text=True, timeout=60)
    got = result.stdout.splitlines()
    ok = result.returncode == 0 and got == expected
    print(f"{'ok  ' if ok else 'FAIL'} {what}: {len(expected)} tensors")
    if not ok:
        print("    ", result.stderr.strip())
        for want, have in [(w, h) for w, h in zip(expected, got + [""] * len(expected)) if w != h][:5]:
            print(f"     expected {want}\n     got      {have}")
    return ok


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    tool, good = sys.argv[1], True
    with tempfile.TemporaryDirectory() as temp:
        single = pathlib.Path(temp) / "single"
        single.mkdir()
        arrays, lines = tensors(1)
        with_bf16(single / "model.safetensors", arrays)
        good &= check(tool, "a single file", single, lines)

        sharded = pathlib.Path(temp) / "sharded"
        sharded.mkdir()
        names = sorted(arrays)
        weight_map = {}
        for part in range(3):
            file = f"model-{part + 1:05}-of-00003.safetensors"
            with_bf16(sharded / file, {n: arrays[n] for n in names[part::3]})
            weight_map.update({n: file for n in names[part::3]})
        (sharded / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
        good &= check(tool, "three shards", sharded, lines)
    print(f"compared with safetensors {safetensors.__version__}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
