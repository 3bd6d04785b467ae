#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The shapes of bench_linear in PyTorch, beside troika: linear_pytorch.py build/cpu/bin/bench_linear

One thread each, on one core, in turns; medians of the time that the thread itself spent, so that other programs disturb
less. PyTorch multiplies bf16 and f16 weights with activations of the same type; so does troika with bf16 where the
processor can, and with f32 activations else.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def torch_rounds(torch, tokens, rows, columns, dtype, seconds):
    x = torch.rand(tokens, columns, dtype=dtype)
    w = torch.rand(rows, columns, dtype=dtype)
    times = []
    with torch.no_grad():
        torch.nn.functional.linear(x, w)
        end = time.monotonic() + seconds
        while len(times) < 3 or time.monotonic() < end:
            start = time.thread_time()
            torch.nn.functional.linear(x, w)
            times.append((time.thread_time() - start) * 1e3)
    return statistics.median(times)


def troika_rounds(binary, seconds):
    command = [binary, "--benchmark_format=json", "--benchmark_filter=/b?f(16|32)/", f"--benchmark_min_time={seconds}"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    result = {}
    for entry in report["benchmarks"]:
        name, *arguments = entry["name"].split("/")[1:]  # linear/f32/tokens:1/out:4096/in:4096/manual_time
        sizes = tuple(int(part.split(":")[1]) for part in arguments[:3])
        result[(name, *sizes)] = (entry["real_time"], entry["fraction_of_peak"])
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", help="bench_linear, as built")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each shape and round")
    options = parser.parse_args()
    try:
        import torch
    except ImportError:
        print("PyTorch is not importable here; nothing to compare with")
        return
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    dtypes = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}

    ours, theirs = {}, {}
    for _ in range(options.rounds):
        for shape, (milliseconds, fraction) in troika_rounds(options.binary, options.seconds).items():
            ours.setdefault(shape, []).append((milliseconds, fraction))
            name, tokens, rows, columns = shape
            spent = torch_rounds(torch, tokens, rows, columns, dtypes[name], options.seconds)
            theirs.setdefault(shape, []).append(spent)

    print(f"linear on one core, PyTorch {torch.__version__}, medians of {options.rounds} rounds")
    print(f"{'weights':8}{'tokens':>7}{'out x in':>12}{'troika ms':>11}{'PyTorch ms':>12}{'ratio':>8}{'of peak':>9}")
    for (name, tokens, rows, columns), rounds in ours.items():
        mine = statistics.median(milliseconds for milliseconds, _ in rounds)
        other = statistics.median(theirs[(name, tokens, rows, columns)])
        fraction = statistics.median(fraction for _, fraction in rounds)
        print(f"{name:8}{tokens:7}{f'{rows} x {columns}':>12}{mine:11.2f}{other:12.2f}{mine / other:8.2f}{fraction:9.0%}")


if __name__ == "__main__":
    sys.exit(main())
