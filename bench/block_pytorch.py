#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One Llama block in Troika and in PyTorch: both take turns, and one table shows medians.

Usage: bench/block_pytorch.py [--bin build/cpu/bin] [--width 2048] [--rounds 5] [--tokens 1,128,512] [--dtypes f32,bf16]

n ranks of one core each stand beside PyTorch with n threads. With bf16 both multiply bf16 where the processor can.
Quantised types (q8_0, q4_0, q4_k) stand beside PyTorch in bf16, which has none. Exits with 77 where torch is absent.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
HEAD_DIM = 64


class Block:
    """The block of bench/block.cpp."""

    def __init__(self, width, tokens, dtype):
        heads = width // HEAD_DIM
        self.heads, self.kv_heads, self.tokens = heads, heads // 4, tokens
        self.cached = 511 if tokens == 1 else 0

        def weight(rows, columns):
            return ((torch.rand(rows, columns) * 2 - 1) * 1.7 / columns**0.5).to(dtype)

        kv = self.kv_heads * HEAD_DIM
        self.query, self.key, self.value = weight(width, width), weight(kv, width), weight(kv, width)
        self.output = weight(width, width)
        self.gate, self.up, self.down = weight(4 * width, width), weight(4 * width, width), weight(width, 4 * width)
        self.norm = torch.ones(width, dtype=dtype)
        end = self.cached + tokens
        frequency = 10000.0 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        angles = torch.outer(torch.arange(self.cached, end), torch.cat([frequency, frequency]))
        self.cos, self.sin = angles.cos().to(dtype), angles.sin().to(dtype)
        self.keys = torch.zeros(1, self.kv_heads, end, HEAD_DIM, dtype=dtype)
        self.values = torch.zeros_like(self.keys)
        self.x = (torch.rand(tokens, width) * 2 - 1).to(dtype)

    def rotated(self, x):
        low, high = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat([-high, low], dim=-1) * self.sin

    def split(self, x, heads):
        return x.view(1, self.tokens, heads, HEAD_DIM).transpose(1, 2)

    def __call__(self):
        x = self.x
        h = F.rms_norm(x, self.norm.shape, self.norm, 1e-5)
        query = self.rotated(self.split(F.linear(h, self.query), self.heads))
        self.keys[:, :, self.cached :] = self.rotated(self.split(F.linear(h, self.key), self.kv_heads))
        self.values[:, :, self.cached :] = self.split(F.linear(h, self.value), self.kv_heads)
        mixed = F.scaled_dot_product_attention(query, self.keys, self.values, is_causal=self.tokens > 1,
                                               enable_gqa=True)
        x = x + F.linear(mixed.transpose(1, 2).reshape(self.tokens, -1), self.output)
        h = F.rms_norm(x, self.norm.shape, self.norm, 1e-5)
        return x + F.linear(F.silu(F.linear(h, self.gate)) * F.linear(h, self.up), self.down)


def pytorch_ms(block, threads):
    torch.set_num_threads(threads)
    times = []
    with torch.inference_mode():
        block()
        begin = time.perf_counter()
        while len(times) < 3 or time.perf_counter() - begin < 0.3:
            start = time.perf_counter()
            block()
            times.append((time.perf_counter() - start) * 1e3)
    time.sleep(0.1)  # its threads spin for a while
    return statistics.median(times)


def troika_run(program, name):
    done = subprocess.run([program, f"--benchmark_filter=^{name}/manual_time$", "--benchmark_format=json",
                           "--benchmark_min_time=0.3"], capture_output=True, text=True, timeout=600)
    runs = json.loads(done.stdout)["benchmarks"] if done.returncode == 0 else []
    if not runs or runs[0].get("error_occurred"):
        sys.exit(f"{program} could not run {name}: {runs[0]['error_message'] if runs else done.stderr}")
    return runs[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default="build/cpu/bin")
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", default="1,128,512")
    parser.add_argument("--dtypes", default="f32,bf16")
    args = parser.parse_args()
    program = os.path.join(args.bin, "bench_block")
    if not os.path.exists(program):
        sys.exit(f"{program} is missing; build with TROIKA_BUILD_BENCHMARKS=ON")
    cases = [(dtype, int(tokens)) for dtype in args.dtypes.split(",") for tokens in args.tokens.split(",")]
    ours = {(case, n): [] for case in cases for n in (1, 2)}
    theirs = {(case, n): [] for case in cases for n in (1, 2)}
    for _ in range(args.rounds):
        for case in cases:
            block = Block(args.width, case[1], DTYPES.get(case[0], torch.bfloat16))
            for n in (1, 2):
                theirs[case, n].append(pytorch_ms(block, n))
                ours[case, n].append(troika_run(program, f"block/{args.width}/{case[0]}/{case[1]}/{n}"))

    def median(case, n, field="real_time"):
        return statistics.median(run[field] for run in ours[case, n])

    print(f"Llama block, width {args.width}, milliseconds, median of {args.rounds} rounds in turns; "
          f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    print(f"{'':12}  {'one core':^28}  {'two cores':^28}  {'Troika, two cores':^21}  {'one core':>8}")
    print(f"{'type tokens':12}  {'PyTorch':>9} {'Troika':>9} {'ratio':>8}  {'PyTorch':>9} {'Troika':>9} {'ratio':>8}  "
          f"{'speed-up':>10} {'all_reduce':>10}  {'of peak':>8}")
    for case in cases:
        row = f"{case[0]:5}{case[1]:7}"
        for n in (1, 2):
            torch_ms, troika_ms = statistics.median(theirs[case, n]), median(case, n)
            row += f"  {torch_ms:9.2f} {troika_ms:9.2f} {troika_ms / torch_ms:8.2f}"
        speed_up = median(case, 1) / median(case, 2)
        share, of_peak = median(case, 2, "all_reduce"), median(case, 1, "of_peak")
        print(f"{row}  {speed_up:10.2f} {share:10.1%}  {of_peak:8.1%}")


if __name__ == "__main__":
    main()
