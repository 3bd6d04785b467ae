#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What programs do with troika-serve over a session, on models in a store as Ollama keeps them.

    serving_sessions_oracle.py PATH/TO/troika-serve PATH/TO/troika-convert FOLDER_OF_THE_BUNDLED_MODEL

The requests of the commands of Ollama's own program, byte for byte what its routes expect: run, ps, stop, list, show, cp, rm. The
PyPI client `langchain-ollama`: chats, streams, streams that are left, 64 at once. The npm packages `ollama` and `openai` by npm/clients.mjs,
left out with a line that says so where there is no node or no registry. Exits with 77 (skipped) where langchain-ollama is absent.
"""

import asyncio
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

try:
    from langchain_core.messages import HumanMessage, SystemMessage
    from langchain_ollama import ChatOllama, OllamaLLM
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

from served import Server, check, eventually, verdict

NAME = "maths:f16"
TEMPLATE = ("{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n"
            "{{ end }}<|im_start|>assistant\n{{ .Response }}<|im_end|>\n")


def make_store(folder, gguf):
    """A model with a template and options, and one with neither."""
    def layer(kind, data):
        digest = hashlib.sha256(data).hexdigest()
        (folder / "blobs" / f"sha256-{digest}").write_bytes(data)
        return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    def manifest(name, tag, layers):
        path = folder / "manifests" / "registry.ollama.ai" / "library" / name / tag
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                                    "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": "sha256:" + "0" * 64, "size": 1},
                                    "layers": layers}))
        return hashlib.sha256(path.read_bytes()).hexdigest()

    (folder / "blobs").mkdir(parents=True)
    model = layer("model", gguf)
    manifest("plain", "latest", [model])
    return manifest("maths", "f16", [model, layer("template", TEMPLATE.encode()), layer("params", b'{"stop": ["<|im_end|>"], "temperature": 0}')])


def cli_session(server, digest):
    agent = {"User-Agent": "ollama/0.12.0 (amd64 linux) Go/go1.24.1", "Accept": "application/x-ndjson", "Content-Type": "application/json"}

    def ask(method, path, body=None):
        status, text = server.ask(method, path, None if body is None else json.dumps(body), agent)
        return status, [json.loads(line) for line in text.splitlines() if line.strip()] if text[:1] == "{" else text

    # ollama run maths:f16
    check("HEAD /", ask("HEAD", "/") == (200, ""))
    status, shown = ask("POST", "/api/show", {"model": NAME})
    check("show", status == 200 and shown[0]["capabilities"] == ["completion"] and shown[0]["details"]["family"] == "llama"
          and "temperature" in shown[0]["parameters"] and shown[0]["template"] == TEMPLATE, shown)
    status, loaded = ask("POST", "/api/generate", {"model": NAME, "prompt": "", "keep_alive": "5m"})
    check("an empty prompt loads", status == 200 and loaded[-1]["done"] and loaded[-1]["done_reason"] == "load", loaded)
    messages, answers = [], []
    for text in ("12 + 34 =", "1 + 2 ="):
        messages.append({"role": "user", "content": text})
        status, parts = ask("POST", "/api/chat", {"model": NAME, "messages": messages, "stream": True, "format": "", "options": {"num_predict": 12}})
        answer = "".join(part["message"]["content"] for part in parts)
        check("chat", status == 200 and parts[-1]["done"] and all(part["message"]["role"] == "assistant" for part in parts), parts)
        check("no mark of the template is shown", "<|im_" not in answer, answer)
        messages.append({"role": "assistant", "content": answer})
        answers.append(answer)
    again = [ask("POST", "/api/chat", {"model": NAME, "messages": messages[:1], "options": {"num_predict": 12}})[1] for _ in range(2)]
    texts = ["".join(part["message"]["content"] for part in parts) for parts in again]
    check("the manifest's temperature is 0: the same answer each time", texts == [answers[0]] * 2, (texts, answers))

    # ollama ps, list, stop
    models = ask("GET", "/api/ps")[1][0]["models"]
    check("ps", [model["name"] for model in models] == [NAME] and models[0]["digest"] == digest and "expires_at" in models[0], models)
    listed = {model["name"]: model["digest"] for model in ask("GET", "/api/tags")[1][0]["models"]}
    check("list", listed.keys() == {NAME, "plain:latest"} and listed[NAME] == digest, listed)
    status, unloaded = ask("POST", "/api/generate", {"model": NAME, "prompt": "", "keep_alive": 0})
    check("stop", status == 200 and unloaded[-1]["done_reason"] == "unload", unloaded)
    check("stopped", eventually(lambda: ask("GET", "/api/ps")[1][0]["models"] == []))

    # ollama cp, rm, pull, create: the store is another program's
    for method, path, body in (("POST", "/api/copy", {"source": NAME, "destination": "twin"}), ("DELETE", "/api/delete", {"model": NAME})):
        status, refused = ask(method, path, body)
        check(f"{path} of a store that is only read", status == 400 and "only read" in refused[0]["error"], refused)
    for path in ("/api/pull", "/api/push", "/api/create"):
        check(path, ask("POST", path, {"model": "x"})[0] == 501)
    check("a model that is not there", ask("POST", "/api/show", {"model": "none"})[0] == 404)


def langchain(server):
    options = dict(base_url=server.url, temperature=0)
    llm = OllamaLLM(model="plain", **options)
    check("langchain: generate", llm.invoke("12 + 345 =") == " 357")
    check("langchain: generate in a stream", "".join(llm.stream("12 + 345 =")) == " 357")
    chat = ChatOllama(model=NAME, num_predict=12, **options)
    messages = [SystemMessage("Add."), HumanMessage("12 + 34 =")]
    whole = chat.invoke(messages)
    check("langchain: chat", whole.response_metadata["done_reason"] in ("stop", "length") and whole.usage_metadata["output_tokens"] > 0, whole)
    parts = list(chat.stream(messages))
    check("langchain: chat in a stream", "".join(part.content for part in parts) == whole.content, parts)
    counts = [part.usage_metadata["output_tokens"] for part in parts if part.usage_metadata]
    check("langchain: tokens are counted once", counts == [whole.usage_metadata["output_tokens"]], counts)

    endless = OllamaLLM(model="plain", base_url=server.url, temperature=8, top_k=0, top_p=1)
    stream = endless.stream("the ")
    next(stream)
    stream.close()
    check("langchain: a stream that is left ends", eventually(lambda: server.running() == 0))

    prompts = [f"{i} + 30 =" for i in range(64)]

    async def at_once():
        return await asyncio.gather(*(llm.ainvoke(prompt) for prompt in prompts))
    together = asyncio.run(at_once())
    alone = [llm.invoke(prompt) for prompt in prompts[::9]]
    check("langchain: 64 at once are as alone", together[::9] == alone, (together[::9], alone))
    for model, what in (("none", "not found"), ("plain", "")):
        try:
            ChatOllama(model=model, base_url=server.url).invoke(messages)
            check("langchain: refused", False)
        except Exception as error:  # the client's own, and of what it is made of
            check(f"langchain: refused: {model}", what in str(error), error)


def npm(server, folder):
    node, manager = shutil.which("node"), shutil.which("npm")
    if not node or not manager:
        print("SKIPPED: the npm clients; there is no node or no npm")
        return
    shutil.copytree(pathlib.Path(__file__).parent / "npm", folder)
    try:
        done = subprocess.run([manager, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder, capture_output=True, text=True, timeout=300)
        reason = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason"])[0]
    except subprocess.TimeoutExpired:
        reason = "it took more than 5 minutes"
    if reason:
        print(f"SKIPPED: the npm clients; npm ci failed: {reason}")
        return
    done = subprocess.run([node, "clients.mjs", server.url, NAME], cwd=folder, capture_output=True, text=True, timeout=300)
    print(done.stdout, end="")
    check("npm", done.returncode == 0 and "FAILED" not in done.stdout and "npm: done" in done.stdout, done.stderr)
    check("npm: a stream that is left ends", eventually(lambda: server.running() == 0))


def main():
    program, convert, model = sys.argv[1:4]
    with tempfile.TemporaryDirectory() as temp:
        temp = pathlib.Path(temp)
        subprocess.run([convert, model, str(temp / "model.gguf"), "--type", "F16"], check=True, capture_output=True, timeout=300)
        digest = make_store(temp / "store", (temp / "model.gguf").read_bytes())
        server = Server(program, "--models", temp / "store", "--devices", 2)
        cli_session(server, digest)
        langchain(server)
        npm(server, temp / "npm")
        check("ends well", server.stop() == 0)
    return verdict()


if __name__ == "__main__":
    sys.exit(main())
