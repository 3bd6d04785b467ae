# SPDX-License-Identifier: Apache-2.0
"""troika-serve as the oracles run it, and what they find."""

import http.client
import json
import os
import signal
import subprocess
import time

failures = []


def check(what, condition, shown=""):
    if not condition:
        failures.append(what)
        print(f"FAILED: {what} {shown}", flush=True)


def verdict():
    print(f"{len(failures)} failures" if failures else "all as it should be")
    return 1 if failures else 0


class Server:
    def __init__(self, program, *arguments, token=None):
        environment = {key: value for key, value in os.environ.items() if key not in ("OLLAMA_HOST", "TROIKA_TOKEN")}
        if token:
            environment["TROIKA_TOKEN"] = token
        self.process = subprocess.Popen([program, "--port", "0", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, env=environment)
        self.port = None
        for line in self.process.stdout:
            if line.startswith("listening on http://"):
                self.port = int(line.split("/")[2].split(",")[0].rsplit(":", 1)[1])
            if line.startswith("try:"):
                break
        if self.port is None:
            raise RuntimeError(self.process.stderr.read())
        self.url = f"http://127.0.0.1:{self.port}"

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def running(self):
        return sum(model["running"] + model["waiting"] for model in json.loads(self.ask("GET", "/api/ps")[1])["models"])

    def files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def eventually(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()
