#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Answers of a format from troika-serve, judged by Python's json and jsonschema.

    constrained_oracle.py PATH/TO/troika-serve FOLDER_OF_THE_BUNDLED_MODEL

The bundled model has not learned to write JSON, so what comes is the grammar's doing. Each schema, seed and endpoint at temperature
1.5, on 1, 2 and 3 devices: every answer that ends by itself parses and is valid. The likeliest answer to each schema is the same on
every number of devices; those that are drawn may differ where two tokens are as close as rounding.
Exits with 77 (skipped) where a package is absent.
"""

import concurrent.futures
import http.client
import json
import signal
import subprocess
import sys

try:
    import jsonschema
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

SEEDS = range(12)
SCHEMAS = [
    {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}, "tags": {
        "type": "array", "items": {"enum": ["red", "green", "blue", 7, None]}, "minItems": 1, "maxItems": 4}}, "required": ["name", "tags"]},
    {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "number"}, "ok": {"type": "boolean"}},
                                "required": ["x"], "additionalProperties": False}, "minItems": 2, "maxItems": 3},
    {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {
        "value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["value", "next"]}}},
    {"oneOf": [{"type": "object", "properties": {"kind": {"const": kind}, "size": {"type": type}}, "required": ["kind", "size"]}
               for kind, type in (("circle", "number"), ("square", "integer"))]},
    {"type": "string", "pattern": "^[A-Z]{2,3}-\\d{1,4}(\\.[a-f]|x)?$"},
    {"type": "object", "additionalProperties": {"type": ["boolean", "null"]}, "required": ["first"]},
    {"type": "string", "format": "date-time"},
    {"type": "object", "properties": {"day": {"type": "integer", "minimum": 1, "maximum": 31}, "share": {"type": "number", "minimum": 0, "maximum": 1},
                                      "even": {"type": "integer", "exclusiveMinimum": -50, "exclusiveMaximum": 50, "multipleOf": 2}},
     "required": ["day", "share", "even"]},
    {"type": "array", "prefixItems": [{"type": "integer", "minimum": 0, "maximum": 255}, {"enum": ["a", "b"]}], "items": {"type": "boolean"},
     "minItems": 2, "maxItems": 4},
    {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "uniqueItems": True, "minItems": 2},
]


class Server:
    def __init__(self, program, models, devices):
        self.process = subprocess.Popen([program, "--port", "0", "--models", models, "--devices", str(devices)],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.process.stdout:
            if line.startswith("listening on http://"):
                self.port = int(line.split("/")[2].split(",")[0].rsplit(":", 1)[1])
            if line.startswith("try:"):
                break

    def ask(self, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request("POST", path, json.dumps(body))
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, json.loads(text)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


def answers(server):
    """(what was asked, text, ended by itself) of every schema and seed, several at once."""
    asked = [(schema, seed) for schema in SCHEMAS for seed in SEEDS]
    asked += [("json", seed) for seed in SEEDS]

    def one(entry):
        form, seed = entry
        status, got = server.ask("/api/generate", {"model": "model", "prompt": f"{seed} + 1 = ", "stream": False, "format": form,
                                                   "options": {"temperature": 1.5 if seed else 0, "seed": seed, "num_predict": 200}})
        assert status == 200, got
        return form, got["response"], got["done_reason"] == "stop"

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, asked))


def main():
    program, model = sys.argv[1:3]
    failed, before = 0, None
    for devices in (1, 2, 3):
        server = Server(program, model, devices)
        got = answers(server)
        status, error = server.ask("/api/generate", {"model": "model", "prompt": "x", "format": {"type": "number", "multipleOf": 0.5}})
        if status != 400 or "multipleOf" not in error["error"]:
            failed += 1
            print(f"FAIL multipleOf: {status} {error}")
        server.stop()
        whole = 0
        for form, text, ended in got:
            if not ended:
                continue
            whole += 1
            try:
                value = json.loads(text)
                jsonschema.validate(value, {"type": "object"} if form == "json" else form)
            except (ValueError, jsonschema.ValidationError) as error:
                failed += 1
                print(f"FAIL {form}: {text!r}: {error}")
        if whole < len(got) / 2:
            failed += 1
            print(f"FAIL only {whole} of {len(got)} answers came to an end")
        likeliest = [text for (_, text, _), seed in zip(got, list(SEEDS) * (len(SCHEMAS) + 1)) if seed == 0]
        if before is not None and before != likeliest:
            failed += 1
            print(f"FAIL other answers on {devices} devices")
        before = likeliest
        print(f"{devices} devices: {whole} of {len(got)} answers came to an end within their tokens")
    print(f"judged by jsonschema: {failed} FAIL" if failed else "judged by jsonschema: all valid; the likeliest are the same on 1, 2 and 3 devices")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
