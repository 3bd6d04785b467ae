#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Beside programs that split a model as troika does, one process a core: distributed-llama, and llama.cpp on RPC servers, once
with its layers dealt out and once with its matrices split. Round after round in turn, because the speed of a shared machine
changes from minute to minute. Prints the median of each, and of the ratio within a round, for a prompt of 128 tokens and for
decoding after it.

  bench/compare_tensor_parallel.py --model a-Q4_0.gguf --llama-bin llama.cpp/build/bin \\
                                   --dllama distributed-llama/dllama --dllama-model a_q40.m --dllama-tokenizer a.t

Either peer may be left out. The .m file of distributed-llama is to hold weights of the same shape and type."""

import argparse
import contextlib
import functools
import os
import re
import socket
import statistics
import subprocess
import time

from compare_llama import llama_bench, troika

PROMPT = 128  # tokens


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def listens(port):
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


@contextlib.contextmanager
def server(command, port):
    """A program that listens on the port; gone at the end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 30
        # /proc is asked rather than the program: one that serves a single connection would take a question for its client.
        while not listens(port):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{command[0]} does not listen on port {port}")
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def distributed_llama(program, model, tokenizer, tokens, processes):
    ports = [free_port() for _ in range(processes - 1)]
    with contextlib.ExitStack() as workers:
        for port in ports:
            worker = [program, "worker", "--host", "127.0.0.1", "--port", str(port), "--nthreads", "1"]
            workers.enter_context(server(worker, port))
        command = [program, "inference", "--model", model, "--tokenizer", tokenizer, "--buffer-float-type", "q80",
                   "--nthreads", "1", "--max-seq-len", "1024", "--temperature", "0", "--seed", "1",
                   "--prompt", ("the quick brown fox " * 8)[:PROMPT], "--steps", str(PROMPT + tokens)]
        if ports:
            command += ["--workers", *(f"127.0.0.1:{port}" for port in ports)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600,
                                encoding="utf-8", errors="replace").stdout
    counts = re.findall(r"nTokens: (\d+)\s+tokens/s: ([\d.]+)", output[output.find("Evaluation"):])
    if len(counts) != 2:
        raise SystemExit(f"{program} printed no two rates:\n{output}")
    return {f"prompt of {PROMPT}": float(counts[0][1]), "decoding": float(counts[1][1])}


def llama_rpc(folder, model, tokens, processes, split):
    ports = [free_port() for _ in range(processes)]
    with contextlib.ExitStack() as servers:
        for port in ports:
            program = os.path.join(folder, "ggml-rpc-server")
            servers.enter_context(server([program, "-H", "127.0.0.1", "-p", str(port), "-t", "1", "-d", "CPU"], port))
        return llama_bench(os.path.join(folder, "llama-bench"), model, [PROMPT], tokens, 1,
                           ["-rpc", ",".join(f"127.0.0.1:{port}" for port in ports), "-ngl", "99", "-sm", split])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--bin", default="build/cpu/bin", help="folder with troika-bench")
    parser.add_argument("--llama-bin", help="folder with ggml-rpc-server and llama-bench, built with GGML_RPC")
    parser.add_argument("--dllama", help="the program dllama")
    parser.add_argument("--dllama-model", help="its .m file")
    parser.add_argument("--dllama-tokenizer", help="its .t file")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    peers = {}
    if arguments.dllama:
        peers["distributed-llama"] = functools.partial(distributed_llama, arguments.dllama, arguments.dllama_model,
                                                       arguments.dllama_tokenizer, arguments.tokens, cores)
    if arguments.llama_bin:
        for split in ("layer", "tensor"):
            peers[f"llama.cpp -sm {split}"] = functools.partial(llama_rpc, arguments.llama_bin, arguments.model, arguments.tokens,
                                                                cores, split)
    if not peers:
        parser.error("no peer: --dllama or --llama-bin is needed")
    print(f"{cores} processes or ranks of one core, median of {arguments.rounds} rounds; load {os.getloadavg()[0]:.1f}")
    ours, theirs, limits = {}, {}, {}
    for _ in range(arguments.rounds):
        rates, limits = troika(os.path.join(arguments.bin, "troika-bench"), arguments.model, [PROMPT], [1], arguments.tokens,
                               f"{cores}x1")
        for name, run in peers.items():
            for work, rate in run().items():
                theirs.setdefault((work, name), []).append(rate)
                ours.setdefault((work, name), []).append(rates[work])
    print(f"  {'work':<14}  {'peer':<20}  {'troika t/s':>10}  {'peer t/s':>8}  {'ratio':>6}  of troika's limit")
    for (work, name), rates in sorted(theirs.items()):
        own = ours[work, name]
        share, limit = limits[work]
        print(f"  {work:<14}  {name:<20}  {statistics.median(own):>10.1f}  {statistics.median(rates):>8.1f}"
              f"  {statistics.median(a / b for a, b in zip(own, rates)):>5.2f}x  {100 * share:.0f} % of {limit}")


if __name__ == "__main__":
    main()
