#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The PyPI clients `ollama` and `openai` against troika-serve with the bundled model.

    serving_clients_oracle.py PATH/TO/troika-serve PATH/TO/troika-convert FOLDER_OF_THE_BUNDLED_MODEL

The folder of models holds the bundled model, a GGUF file made of it, and a copy with a chat template. Lists, shows, loads and
unloads, generates and chats, whole and in streams; the same answers alone and 64 at once, on 1, 2 and 3 devices; streams that are
left, slow readers, hostile bodies, tokens, other hosts and origins, and the end by SIGTERM.
Exits with 77 (skipped) where a package is absent.
"""

import concurrent.futures
import json
import math
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

try:
    import ollama
    import openai
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

from served import Server, check, eventually, verdict

TEMPLATE = (r"{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
            r"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
GREEDY = {"temperature": 0}


def about_models(server):
    client = ollama.Client(host=server.url)
    names = sorted(model.model for model in client.list().models)
    check("list", names == ["chat:latest", "model-f16:latest", "model:latest"], names)
    shown = client.show("model-f16")
    check("show", shown.details.family == "llama" and shown.modelinfo["llama.block_count"] == 4, shown)
    check("show: a long list is left out", shown.modelinfo["tokenizer.ggml.tokens"] is None)
    check("capabilities", shown.capabilities == ["completion"], shown.capabilities)
    client.copy("model-f16", "twin:v1")
    check("copy", client.generate("twin:v1", "12 + 34 =", options=GREEDY).response == " 46")
    client.delete("twin:v1")
    check("delete", len(client.list().models) == 3)
    for call in (lambda: client.show("none"), lambda: client.generate("none", "x"), lambda: client.copy("none", "x"), lambda: client.delete("none"),
                 lambda: client.chat("none", [{"role": "user", "content": "x"}])):
        try:
            call()
            check("a model that is not there", False)
        except ollama.ResponseError as error:
            check("a model that is not there: 404", error.status_code == 404, error)
    client.generate("model", keep_alive=-1)
    check("ps", "model:latest" in [model.model for model in client.ps().models])
    client.generate("model", keep_alive=0)
    check("unloaded", eventually(lambda: "model:latest" not in [model.model for model in client.ps().models]))

    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    check("models of /v1", sorted(model.id for model in client.models.list()) == names)
    check("a model of /v1", client.models.retrieve("model:latest").owned_by == "library")


def texts(server):
    client = ollama.Client(host=server.url)
    for model in ("model", "model-f16"):
        answer = client.generate(model, "12 + 345 =", options=GREEDY)
        check(f"generate {model}", answer.response == " 357" and answer.done_reason == "stop", answer)
        check("counts", answer.prompt_eval_count == 9 and answer.eval_count == 4 and answer.total_duration > 0, answer)
    parts = list(client.generate("model", "12 + 345 =", options=GREEDY, stream=True))
    check("generate in a stream", "".join(part.response for part in parts) == " 357" and parts[-1].done, parts)
    check("stop", client.generate("model", "12 + 345 =", options=GREEDY | {"stop": ["5"]}).response == " 3")
    check("num_predict", client.generate("model", "12 + 345 =", options=GREEDY | {"num_predict": 2}).done_reason == "length")
    draws = [client.generate("model", "the ", options={"temperature": 1.5, "seed": seed, "num_predict": 20}).response for seed in (1, 1, 2, 3)]
    check("seeds", draws[0] == draws[1] and len(set(draws)) > 1, draws)
    messages = [{"role": "user", "content": "12 + 34 ="}]
    # The model has not learned to chat: some draws are empty.
    for seed in range(1, 30):
        options = {"temperature": 2, "top_k": 40, "top_p": 0.9, "seed": seed, "num_predict": 20}
        whole = client.chat("chat", messages, options=options)
        if len(whole.message.content) > 3:
            break
    check("chat", whole.message.role == "assistant" and whole.done and len(whole.message.content) > 3, whole)
    parts = list(client.chat("chat", messages, options=options, stream=True))
    check("chat in a stream", "".join(part.message.content for part in parts) == whole.message.content, parts)

    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    answer = client.completions.create(model="model", prompt="12 + 345 =", temperature=0)
    check("completions", answer.choices[0].text == " 357" and answer.usage.completion_tokens == 4, answer)
    # Tokens that are drawn while the writer waits for a core go at once: on a busy machine that may be all of so small a model.
    pieces = lambda: list(client.completions.create(model="model", prompt="the ", max_tokens=90, temperature=0, stream=True,
                                                    extra_body={"ignore_eos": True}))
    check("completions come in pieces", any(len(pieces()) > 2 for _ in range(50)))
    text = "".join(part.choices[0].text for part in client.completions.create(model="model", prompt="12 + 345 =", temperature=0, stream=True))
    check("completions in a stream", text == " 357", text)
    same = dict(model="chat", messages=messages, temperature=2, top_p=0.9, seed=seed, extra_body={"top_k": 40})
    answer = client.chat.completions.create(**same, max_tokens=20)
    check("chat completions", answer.choices[0].message.content == whole.message.content, answer)
    parts = list(client.chat.completions.create(**same, max_completion_tokens=20, stream=True, stream_options={"include_usage": True}))
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    check("chat completions in a stream", text == whole.message.content and parts[-1].usage.completion_tokens > 0, parts)
    for wrong, kind in (({"model": "none"}, openai.NotFoundError), ({"temperature": -1}, openai.BadRequestError), ({"messages": []}, openai.BadRequestError)):
        try:
            client.chat.completions.create(**({"model": "chat", "messages": messages} | wrong))
            check(f"refused: {wrong}", False)
        except kind:
            pass


def likelihoods(server):
    client, asked = ollama.Client(host=server.url), dict(model="model", prompt="12 + 345 =", options=GREEDY, logprobs=True, top_logprobs=3)
    whole = [token.model_dump() for token in client.generate(**asked).logprobs]
    check("logprobs of each token", "".join(token["token"] for token in whole) == " 357", whole)
    check("the likeliest is drawn", all(token["top_logprobs"][0]["token"] == token["token"] for token in whole), whole)
    check("they are probabilities", all(sum(math.exp(one["logprob"]) for one in token["top_logprobs"]) < 1.0001 for token in whole), whole)
    parts = [token.model_dump() for part in client.generate(**asked, stream=True) for token in part.logprobs or []]
    check("logprobs in a stream", parts == whole, parts)
    none = client.generate("model", "12 + 345 =", options=GREEDY).logprobs
    check("no logprobs unless asked for", none is None, none)

    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    got = client.completions.create(model="model", prompt="12 + 345 =", temperature=0, logprobs=3).choices[0].logprobs
    check("completions: the same", got.tokens == [token["token"] for token in whole] and got.text_offset == [0, 1, 2, 3], got)
    check("completions: as likely", all(abs(one - token["logprob"]) < 1e-4 for one, token in zip(got.token_logprobs, whole)), got)
    got = client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "Hi"}], max_tokens=5, logprobs=True, top_logprobs=2)
    check("chat completions: each", len(got.choices[0].logprobs.content) == got.usage.completion_tokens, got)
    check("chat completions: the likeliest", all(len(token.top_logprobs) == 2 for token in got.choices[0].logprobs.content), got)
    try:
        client.completions.create(model="model", prompt="def f(", suffix="return")
        check("a suffix for a model without a place for it", False)
    except openai.BadRequestError as error:
        check("a suffix: what is wrong", "does not support insert" in str(error), error)


def many_at_once(server, cases):
    client = ollama.Client(host=server.url)
    alone = [client.generate("model", prompt, options=GREEDY).response for prompt, _ in cases]
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        together = list(pool.map(lambda case: "".join(part.response for part in client.generate("model", case[0], options=GREEDY, stream=True)), cases))
    check("64 at once are as alone", together == alone, [pair for pair in zip(alone, together) if pair[0] != pair[1]])
    right = sum(text == answer for text, (_, answer) in zip(together, cases))
    check("answers are right", right >= 0.9 * len(cases), right)
    return alone


def streams_that_are_left(server):
    before = server.files()
    body = json.dumps({"model": "model", "prompt": "the ", "options": {"temperature": 8, "top_k": 0, "top_p": 1}}).encode()
    request = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    def leave(i):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            connection.sendall(request)
            if i % 4:
                connection.recv(300)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(leave, range(400)))
    check("nothing runs for clients that left", eventually(lambda: server.running() == 0))
    check("their files are closed", eventually(lambda: server.files() <= before + 2), (before, server.files()))

    slow = []
    for _ in range(100):  # half a header each
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        connection.sendall(b"POST /api/generate HTTP/1.1\r\nHost: lo")
        slow.append(connection)
    begin = time.monotonic()
    status, _ = server.ask("GET", "/api/version")
    check("slow clients do not slow others", status == 200 and time.monotonic() - begin < 1)
    for connection in slow:
        connection.close()


def hostile_bodies(server):
    deep = "[" * 300000
    for body in ("", "null", "[]", "{", deep, deep + "]" * 300000, '{"a":' * 300000, '{"model":"model","prompt":"\\ud800"}', b"\xff\xfe", b"{\"model\":\"\x00\"}",
                 '{"model":"model","options":{"temperature":1e999}}', '{"model":["model"]}', '{"model":"model","model":"chat"}'):
        for path in ("/api/generate", "/api/chat", "/api/show", "/api/copy", "/v1/chat/completions", "/v1/completions"):
            status, text = server.ask("POST", path, body)
            check(f"{path} with {body[:40]!r}: an error of the client", 400 <= status < 500 and "error" in json.loads(text), (status, text))
    for wrong in ({"options": {"top_k": "x"}}, {"options": {"temperature": -1}}, {"context": [-1]}, {"context": [376]}, {"keep_alive": "x"}, {"stream": 1}):
        status, text = server.ask("POST", "/api/generate", json.dumps({"model": "model", "prompt": "x"} | wrong))
        check(f"generate with {wrong}", status == 400 and "error" in json.loads(text), (status, text))
    status, _ = server.ask("POST", "/api/generate", json.dumps({"model": "model", "prompt": "x" * 200000, "truncate": False}))
    check("a prompt that does not fit", status == 400, status)
    # Before the end of a body that is too long the connection closes: the answer may or may not be read.
    try:
        status, _ = server.ask("POST", "/api/generate", "x" * (21 << 20))
        check("a body that is too long", status == 413, status)
    except (BrokenPipeError, ConnectionResetError):
        pass
    check("another host", server.ask("GET", "/", headers={"Host": "evil.example"})[0] == 403)
    check("another origin", server.ask("GET", "/", headers={"Origin": "http://evil.example"})[0] == 403)
    status, text = server.ask("GET", "/metrics")
    check("metrics", status == 200 and 'model_name="model:latest"' in text, (status, text[:500]))
    check("still there", server.ask("GET", "/api/version")[0] == 200)


def tokens(program, models):
    refused = subprocess.run([program, "--models", models, "--host", "0.0.0.0", "--port", "0"], capture_output=True, text=True, timeout=60,
                             env={key: value for key, value in os.environ.items() if key != "TROIKA_TOKEN"})
    check("without a token only this machine is served", refused.returncode == 1 and "--token-file" in refused.stderr, refused)
    server = Server(program, "--models", models, "--host", "0.0.0.0", token="secret")
    check("without the token", server.ask("GET", "/api/tags")[0] == 401)
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="secret", max_retries=0)
    check("with the token", len(list(client.models.list())) == 3)
    # SIGTERM: what runs is finished, or marked as broken; the program ends well.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        running = [pool.submit(server.ask, "POST", "/api/generate", json.dumps({"model": "model", "prompt": f"{i} + 1 =", "options": GREEDY}),
                               {"Authorization": "Bearer secret"}) for i in range(8)]
        time.sleep(0.02)
        code = server.stop()
        for answer in running:
            try:
                status, text = answer.result()
                check("a complete answer or a plain refusal", status == 503 or json.loads(text.strip().splitlines()[-1]).get("done"), (status, text))
            except OSError:  # came after the end
                pass
    check("ends well", code == 0, code)


def main():
    program, convert, model = sys.argv[1:4]
    with tempfile.TemporaryDirectory() as folder:
        models = pathlib.Path(folder)
        for name in ("model", "chat"):
            shutil.copytree(model, models / name)
        path = models / "chat" / "tokenizer_config.json"
        path.chmod(0o644)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": TEMPLATE}))
        subprocess.run([convert, model, str(models / "model-f16.gguf"), "--type", "F16"], check=True, capture_output=True, timeout=300)
        with open(pathlib.Path(model) / "unseen.tsv") as file:
            cases = [line.rstrip("\n").split("\t")[1:] for line in file][::3][:64]
        answers = []
        for devices in (1, 2, 3):
            server = Server(program, "--models", models, "--devices", devices)
            answers.append(many_at_once(server, cases))
            if devices == 2:
                about_models(server)
                texts(server)
                likelihoods(server)
                streams_that_are_left(server)
                hostile_bodies(server)
            check("ends well", server.stop() == 0)
        check("the same on 1, 2 and 3 devices", answers[0] == answers[1] == answers[2])
        tokens(program, models)
    return verdict()


if __name__ == "__main__":
    sys.exit(main())
