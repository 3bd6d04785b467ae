#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a server has to stand: streams that are given up, slow clients, and far more requests than it can answer.

  tests/cli/load_proofs.py --bin build/cpu/bin --model MODEL --seconds 600 --timed

Nothing may leak, everything has to be answered or refused, and memory has to stay flat, on any machine. With --timed the
promises about time are checked as well; they need a machine on which nothing else runs. --requests scales the rest."""

import argparse
import asyncio
import atexit
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

failures = []


def check(holds, text):
    print(f"{'ok  ' if holds else 'FAIL'}  {text}", flush=True)
    if not holds:
        failures.append(text)


def comes_true(condition):
    """Within 30 seconds."""
    for _ in range(300):
        if condition():
            return True
        time.sleep(0.1)
    return False


class Server:
    def __init__(self, arguments, *more):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([os.path.join(arguments.bin, "troika-serve"), "--models", arguments.model, "--port", "0",
                                         "--devices", str(arguments.devices), *more], stdout=self.log, stderr=subprocess.STDOUT)
        atexit.register(self.process.kill)  # should anything below fail
        self.port = None
        for _ in range(600):
            found = re.search(rb"listening on http://127.0.0.1:(\d+)", self.output())
            if found:
                self.port = int(found[1])
                break
            time.sleep(0.1)
        if self.port is None:
            sys.exit("the server did not start:\n" + self.output().decode())
        with urllib.request.urlopen(self.url("/v1/models")) as answer:
            self.model = json.load(answer)["data"][0]["id"]
        self.ask(4)  # loads it

    def output(self):
        self.log.seek(0)
        return self.log.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            check(self.process.wait(60) == 0, "the server ends when it is asked to")
        except subprocess.TimeoutExpired:
            self.process.kill()
            check(False, "the server ends when it is asked to")

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def ask(self, tokens):
        """Seconds that an answer of so many tokens takes."""
        begin = time.monotonic()
        request = urllib.request.Request(self.url("/v1/completions"), self.body(tokens, False), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            got = json.load(answer)["usage"]["completion_tokens"]
        if got != tokens:
            sys.exit(f"an answer of {tokens} tokens had {got}")
        return time.monotonic() - begin

    def body(self, tokens, stream, prompt=8):
        return json.dumps({"model": self.model, "prompt": [3 + i % 200 for i in range(prompt)], "max_tokens": tokens, "temperature": 0,
                           "ignore_eos": True, "stream": stream}).encode()

    def post(self, body):
        return (f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
                "\r\n\r\n").encode() + body

    def memory(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) / 1024  # MiB

    def files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def in_use(self):
        """Requests that run or wait, and the part of the engine's pages that is in use."""
        with urllib.request.urlopen(self.url("/metrics")) as answer:
            text = answer.read().decode()
        return [float(re.search(rf"^troika_{name}\{{[^}}]*\}} (\S+)$", text, re.M)[1])
                for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")]

    def quiet(self):
        return comes_true(lambda: self.in_use() == [0, 0, 0])


async def abort_streams(server, count, at_once):
    """Streams whose clients leave: before the answer, at its first token, or in its middle."""
    places = asyncio.Semaphore(at_once)

    async def one(i):
        async with places:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(server.post(server.body(100, True, 8 + i % 40)))
            await writer.drain()
            for _ in range(i % 3):
                await reader.readuntil(b"\n\n")
            writer.transport.abort()

    await asyncio.gather(*(one(i) for i in range(count)))


def prove_aborts(arguments):
    count = arguments.requests
    print(f"\n{count} streams that their clients give up")
    with Server(arguments) as server:
        asyncio.run(abort_streams(server, count // 2, 32))
        check(server.quiet(), "nothing runs or waits, and no page is in use")
        memory, files = server.memory(), server.files()
        asyncio.run(abort_streams(server, count - count // 2, 32))
        check(server.quiet(), "nothing runs or waits, and no page is in use after twice as many")
        # The last one that has asked for the metrics may not be closed yet.
        check(comes_true(lambda: server.files() <= files), f"{server.files()} open files, {files} before")
        grown = server.memory() - memory
        check(grown < 8, f"memory {server.memory():.1f} MiB, {grown:+.1f} by the second half")
        server.ask(8)


class SlowClients(threading.Thread):
    """Connections that send a header or a body byte by byte, and some that never read their answer."""

    def __init__(self, server, senders, readers):
        super().__init__()
        self.server, self.senders, self.readers = server, senders, readers
        self.ready, self.over = threading.Event(), threading.Event()

    def run(self):
        asyncio.run(self.hold())

    async def hold(self):
        header = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
        body = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n "
        clients = []
        for i in range(self.senders):
            clients.append(await asyncio.open_connection("127.0.0.1", self.server.port))
            clients[-1][1].write(header if i % 2 == 0 else body)
        for _ in range(self.readers):
            _, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
            writer.transport.pause_reading()
            writer.write(self.server.post(self.server.body(100, True)))
            clients.append((None, writer))
        await asyncio.sleep(0.5)
        self.ready.set()
        while not self.over.is_set():
            for i, (reader, writer) in enumerate(clients):
                if self.over.is_set():
                    break
                if reader is None:
                    continue
                if writer.is_closing() or reader.at_eof():  # it was cut off, and comes again
                    writer.close()
                    reader, writer = clients[i] = await asyncio.open_connection("127.0.0.1", self.server.port)
                    writer.write(header if i % 2 == 0 else body)
                else:
                    writer.write(b" ")
                if i % 50 == 0:
                    await asyncio.sleep(0.05)
        for _, writer in clients:
            writer.transport.abort()


def prove_slow_clients(arguments):
    count = max(20, arguments.requests // 10)
    print(f"\n{count} slow clients")
    with Server(arguments) as server:
        times = {False: [], True: []}
        for _ in range(3):
            for beside_slow in (False, True):
                slow = SlowClients(server, count - 8, 8) if beside_slow else None
                if slow:
                    slow.start()
                    slow.ready.wait()
                times[beside_slow] += [server.ask(8) for _ in range(100)]
                if slow:
                    slow.over.set()
                    slow.join()
        check(server.quiet(), "all requests beside them are answered, and nothing is in use when they have gone")
        p99 = {key: sorted(values)[int(0.99 * len(values))] * 1e3 for key, values in times.items()}
        text = f"99 % of other requests within {p99[True]:.1f} ms beside them, {p99[False]:.1f} ms without"
        check(not arguments.timed or p99[True] < 1.5 * p99[False], text)


def load(arguments, server, *options):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "result.json")
        ran = subprocess.run([os.path.join(arguments.bin, "troika-stress"), "--url", server.url(""), "--model", server.model, "--repeats",
                              "1", "--budget", "0", "--mix", arguments.mix, "--json", path, *options],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if not os.path.exists(path):
            sys.exit("a load failed:\n" + ran.stdout.decode())
        with open(path) as file:
            return json.load(file)[0]


class Watch(threading.Thread):
    """The memory of a server, five times a second."""

    def __init__(self, server):
        super().__init__()
        self.server, self.seen, self.over = server, [], threading.Event()

    def run(self):
        while not self.over.wait(0.2):
            self.seen.append(self.server.memory())


def prove_overload(arguments):
    print(f"\nFour times as many requests as can be answered, for {arguments.seconds:.0f} s")
    seconds = min(60.0, max(2.0, arguments.seconds / 5))
    with Server(arguments, "--max-running", str(arguments.running), "--max-wait", str(arguments.max_wait), "--quiet") as server:
        load(arguments, server, "--requests", "50", "--concurrency", str(arguments.running))
        rate = load(arguments, server, "--requests", "50", "--concurrency", str(arguments.running))["qps"]
        capacity = load(arguments, server, "--requests", str(int(rate * seconds) + 20), "--concurrency", str(arguments.running))["qps"]
        half = load(arguments, server, "--requests", str(int(capacity * seconds / 2) + 20), "--rate", str(capacity / 2))
        print(f"      it can answer {capacity:.1f} a second; at half of that 99 % are answered within {half['response_ms']['p99']:.1f} ms")
        watch = Watch(server)
        watch.start()
        over = load(arguments, server, "--requests", str(int(4 * capacity * arguments.seconds)), "--rate", str(4 * capacity), "--seed", "2")
        watch.over.set()
        watch.join()
        wrong = {error: count for error, count in over["errors"].items() if error not in ("503", "429")}
        check(over["answered"] + over["refused"] == over["requests"] and not wrong,
              f"{over['requests']} requests: {over['answered']} answered, {over['refused']} refused with Retry-After, {wrong or 'no'} others")
        check(not arguments.timed or over["refused"] > 0, "some were refused")
        quarter = max(1, len(watch.seen) // 4)
        first, last = max(watch.seen[:quarter]), max(watch.seen[-quarter:])
        check(last - first < 16, f"memory {last:.1f} MiB at most in the last quarter, {first:.1f} MiB in the first")
        check(server.quiet(), "nothing runs or waits afterwards, and no page is in use")
        ratio = over["response_ms"]["p99"] / half["response_ms"]["p99"]
        check(not arguments.timed or ratio < 2, f"99 % of what is accepted is answered within {over['response_ms']['p99']:.1f} ms, "
              f"{ratio:.2f} of the time at half load")
        check(not arguments.timed or over["qps"] >= 0.95 * capacity,
              f"{over['qps']:.1f} a second are answered, {over['qps'] / capacity:.2f} of what can be")
        check(not arguments.timed or over["refusal_ms"]["p99"] < 50,
              f"99 % of the refusals come within {over['refusal_ms']['p99']:.1f} ms, all within {over['refusal_ms']['most']:.1f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/cpu/bin", help="folder with troika-serve and troika-stress")
    parser.add_argument("--model", default="examples/model")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--requests", type=int, default=10000, help="streams that are given up; a tenth as many slow clients")
    parser.add_argument("--seconds", type=float, default=600, help="of overload")
    parser.add_argument("--mix", default="1:64/32", help="requests of the overload, as troika-stress takes them")
    parser.add_argument("--running", type=int, default=8, help="requests that share steps under overload")
    parser.add_argument("--max-wait", type=float, default=0.1, help="seconds in which a request has to begin then")
    parser.add_argument("--only", choices=["aborts", "slow", "overload"])
    parser.add_argument("--timed", action="store_true")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and the servers with it
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for name, prove in ("aborts", prove_aborts), ("slow", prove_slow_clients), ("overload", prove_overload):
        if arguments.only in (None, name):
            prove(arguments)
    print(f"\n{len(failures)} of the checks failed" if failures else "\nall checks hold")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
