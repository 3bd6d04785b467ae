#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A server of which a device hangs, with its next deadline far away, still ends when it is told to.

    hanging.py TROIKA-SERVE MODEL

The device's thread is stopped as debuggers do it. Exits with 77 (skipped) where that is not allowed."""

import ctypes
import json
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "oracles"))
from served import Server, check, verdict  # noqa: E402

PTRACE_ATTACH, WALL = 16, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def work_of_threads(pid):
    """Ticks that each thread but the first one computed."""
    threads = [thread for thread in os.listdir(f"/proc/{pid}/task") if int(thread) != pid]
    return {thread: int(pathlib.Path(f"/proc/{pid}/task/{thread}/stat").read_text().rsplit(")", 1)[1].split()[11]) for thread in threads}


def main():
    program, model = sys.argv[1:3]
    server = Server(program, "--models", model, "--devices", 3, "--deadline", 3000, "--drain", 1)
    pid = server.process.pid

    def answers(count):
        for _ in range(count):
            status, text = server.ask("POST", "/v1/completions", json.dumps({"model": "model", "prompt": "12 + 34 = ", "max_tokens": 200, "ignore_eos": True}))
            check("an answer", status == 200, text)

    answers(1)  # which loads the model
    before = work_of_threads(pid)
    answers(10)
    after = work_of_threads(pid)
    device = int(max(after, key=lambda thread: after[thread] - before.get(thread, 0)))
    if libc.ptrace(PTRACE_ATTACH, device, None, None) != 0:
        print(f"SKIPPED: threads cannot be stopped here: {os.strerror(ctypes.get_errno())}")
        server.process.kill()
        return 77
    os.waitpid(device, WALL)

    begin = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    os.waitpid(device, WALL)  # it goes with the process
    code = server.process.wait(timeout=500)
    seconds = time.monotonic() - begin
    check("it ends by itself", seconds < 120 and code == 1, (seconds, code))
    check("it says why", "left behind" in server.process.stderr.read())
    print(f"told to end within 1 s, it ended after {seconds:.1f} s")
    return verdict()


if __name__ == "__main__":
    sys.exit(main())
