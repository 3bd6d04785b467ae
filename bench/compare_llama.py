#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Beside llama.cpp, on the same GGUF files: troika-bench and llama-bench in turn, round after round, because the speed of
a shared machine changes from minute to minute. Prints the median of each and of the ratio within a round.

  bench/compare_llama.py --llama-bin llama.cpp/build/bin --model a-Q4_0.gguf b-Q8_0.gguf

Troika runs one rank a core, llama.cpp one process with one thread a core, which is its best use of them."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile


def troika(program, model, prompts, batches, tokens, world):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "result.json")
        subprocess.run([program, "--model", model, "--worlds", world, "--prompts", ",".join(map(str, prompts)),
                        "--batches", ",".join(map(str, batches)), "--tokens", str(tokens), "--repeats", "1", "--json", path],
                       check=True, stdout=subprocess.DEVNULL)
        with open(path) as file:
            result = json.load(file)
    rates = {row["work"]: row["tokens_per_second"] for row in result["rows"]}
    limits = {row["work"]: (row["of_limit"], row["limit"]) for row in result["rows"]}
    return rates, limits


def llama_bench(program, model, prompts, tokens, threads, more=()):
    output = subprocess.run([program, "-m", model, "-p", ",".join(map(str, prompts)), "-n", str(tokens), "-t", str(threads),
                             "-r", "1", "-o", "json", *more], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return {f"prompt of {row['n_prompt']}" if row["n_prompt"] else "decoding": row["avg_ts"] for row in json.loads(output)}


def llama_batches(program, model, batches, threads):
    """Its decoding of as many sequences at once, after prompts of 1 token."""
    most = max(batches)
    output = subprocess.run([program, "-m", model, "-c", str(64 * most), "-npp", "1", "-ntg", "8",
                             "-npl", ",".join(map(str, batches)), "-t", str(threads), "--output-format", "jsonl"],
                            check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode()
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {f"{row['pl']} sequences": row["speed_tg"] for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-bin", required=True, help="folder with llama-bench and llama-batched-bench")
    parser.add_argument("--model", required=True, nargs="+", help="GGUF files that both take")
    parser.add_argument("--bin", default="build/cpu/bin", help="folder with troika-bench")
    parser.add_argument("--prompts", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    program = {name: os.path.join(arguments.llama_bin, name) for name in ("llama-bench", "llama-batched-bench")}
    print(f"{cores} cores, median of {arguments.rounds} rounds; load {os.getloadavg()[0]:.1f}")
    for model in arguments.model:
        ours, theirs, limits = {}, {}, {}
        for done in range(arguments.rounds):
            if sys.stderr.isatty():
                print(f"\r{os.path.basename(model)}: round {done + 1} of {arguments.rounds}", end="", file=sys.stderr)
            rates, limits = troika(os.path.join(arguments.bin, "troika-bench"), model, arguments.prompts, arguments.batches,
                                   arguments.tokens, f"{cores}x1")
            peer = llama_bench(program["llama-bench"], model, arguments.prompts, arguments.tokens, cores)
            peer.update(llama_batches(program["llama-batched-bench"], model, arguments.batches, cores))
            for work, rate in rates.items():
                ours.setdefault(work, []).append(rate)
                theirs.setdefault(work, []).append(peer[work])
        print(f"\r\n{os.path.basename(model)}\n  {'work':<18}  {'troika t/s':>10}  {'llama.cpp t/s':>13}  {'ratio':>6}  of its limit")
        for work, rates in ours.items():
            ratio = statistics.median(a / b for a, b in zip(rates, theirs[work]))
            share, limit = limits[work]
            print(f"  {work:<18}  {statistics.median(rates):>10.1f}  {statistics.median(theirs[work]):>13.1f}  {ratio:>5.2f}x"
                  f"  {100 * share:.0f} % of {limit}")


if __name__ == "__main__":
    main()
