#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Beside llama.cpp's server, on the same GGUF files, under the same load of troika-stress over HTTP: the two take turns,
round after round, because the speed of a shared machine changes from minute to minute. Prints the median of each and of
the ratio within a round.

  bench/compare_server.py --llama-server llama.cpp/build/bin/llama-server --model a-Q4_0.gguf b-Q8_0.gguf

troika-serve runs one rank a core, llama-server one thread a core, which is its best use of them; both have memory for 8
texts of 1024 tokens. Answers have their full length whatever is drawn."""

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

STREAMS, CONTEXT = 8, 1024
NO_TEXT = "The model produced output that does not match the expected Content-only format"
# What is put on a server: name, mix of troika-stress, requests, how many at once
LOADS = [("8 requests", "1:{prompt}/{answer}", STREAMS, STREAMS),
         ("decoding 1", "1:4/{answer}", 1, 1),
         ("decoding 8", "1:4/{answer}", STREAMS, STREAMS)]


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextlib.contextmanager
def process(command, log):
    running = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_until_ready(url, running, log):
    for _ in range(600):
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        if running.poll() is not None:
            break
        time.sleep(0.2)
    log.seek(0)
    sys.exit("a server did not start:\n" + log.read().decode(errors="replace")[-2000:])


@contextlib.contextmanager
def troika(arguments, model, cores):
    with tempfile.TemporaryFile() as log:
        port = free_port()
        with process([os.path.join(arguments.bin, "troika-serve"), "--models", model, "--port", str(port), "--devices", str(cores),
                      "--context", str(CONTEXT), "--kv-tokens", str(STREAMS * CONTEXT), "--quiet"], log) as running:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, running, log)
            with urllib.request.urlopen(url + "/v1/models") as answer:
                yield url, json.load(answer)["data"][0]["id"]


@contextlib.contextmanager
def llama(arguments, model, cores):
    with tempfile.TemporaryFile() as log:
        port = free_port()
        with process([arguments.llama_server, "-m", model, "--host", "127.0.0.1", "--port", str(port), "-t", str(cores), "-np",
                      str(STREAMS), "-c", str(STREAMS * CONTEXT), *arguments.llama_options.split()], log) as running:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url + "/health", running, log)
            yield url, "any"


def measure(arguments, url, name, mix, requests, at_once):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "result.json")
        ran = subprocess.run([os.path.join(arguments.bin, "troika-stress"), "--url", url, "--model", name, "--mix", mix, "--requests",
                              str(requests), "--concurrency", str(at_once), "--repeats", "1", "--budget", "0", "--json", path],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        with contextlib.suppress(FileNotFoundError), open(path) as file:
            (result,) = json.load(file)
            # llama-server ends an answer that is no UTF-8 with an error, after its last token. Random weights write such.
            complete = result["answered"] + sum(count for error, count in result["errors"].items() if NO_TEXT in error)
            if complete == requests and result["answered"] > 0:
                return result
        sys.exit(f"a load on {url} failed:\n{ran.stdout.decode()}")


def figures(arguments, server, model, cores):
    """What one server gets in one round: {(load, what): value}; more is better only where `what` is in tokens/s."""
    got = {}
    with server(arguments, model, cores) as (url, name):
        measure(arguments, url, name, "1:16/4", 4, 2)  # loads the model, touches its memory
        for load, mix, requests, at_once in LOADS:
            result = measure(arguments, url, name, mix.format(prompt=arguments.prompt, answer=arguments.answer), requests, at_once)
            if result["tokens"] != result["answered"] * arguments.answer:
                sys.exit(f"{result['answered']} answers of {arguments.answer} tokens had {result['tokens']} in all")
            if load.startswith("decoding"):
                got[load, "tokens/s"] = at_once * 1e3 / result["per_token_ms"]["p50"]
            else:
                got[load, "tokens/s, prompts too"] = requests * (arguments.prompt + arguments.answer) / result["seconds"]
                got[load, "ms to first token, 50 %"] = result["first_token_ms"]["p50"]
                got[load, "ms to first token, most"] = result["first_token_ms"]["most"]
                got[load, "ms per token, 50 %"] = result["per_token_ms"]["p50"]
                got[load, "ms per response, most"] = result["response_ms"]["most"]
    got["decoding", "8 beside 1"] = got["decoding 8", "tokens/s"] / got["decoding 1", "tokens/s"]
    return got


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-server", required=True, help="the program")
    parser.add_argument("--llama-options", default="-b 2048 -ub 512", help="further arguments for it")
    parser.add_argument("--model", required=True, nargs="+", help="GGUF files that both take")
    parser.add_argument("--bin", default="build/cpu/bin", help="folder with troika-serve and troika-stress")
    parser.add_argument("--prompt", type=int, default=512, help="tokens")
    parser.add_argument("--answer", type=int, default=64, help="tokens")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and the servers with it
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, median of {arguments.rounds} rounds; load {os.getloadavg()[0]:.1f}")
    for model in arguments.model:
        ours, theirs = [], []
        for done in range(arguments.rounds):
            if sys.stderr.isatty():
                print(f"\r{os.path.basename(model)}: round {done + 1} of {arguments.rounds}", end="", file=sys.stderr)
            ours.append(figures(arguments, troika, model, cores))
            theirs.append(figures(arguments, llama, model, cores))
        print(f"\r\n{os.path.basename(model)}\n  {'load':<11} {'':<24}  {'troika':>8}  {'llama-server':>12}  {'ratio':>6}")
        for load, what in ours[0]:
            a, b = ([round_[load, what] for round_ in rounds] for rounds in (ours, theirs))
            # In speeds: above 1 troika is faster, also where less is better.
            faster = [x / y if re.match(r"tokens|8 beside", what) else y / x for x, y in zip(a, b)]
            print(f"  {load:<11} {what:<24}  {statistics.median(a):>8.1f}  {statistics.median(b):>12.1f}  {statistics.median(faster):>5.2f}x")


if __name__ == "__main__":
    main()
