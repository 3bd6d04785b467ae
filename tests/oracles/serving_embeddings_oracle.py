#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Embeddings of troika-serve by a real encoder, all-MiniLM-L6-v2, against transformers.

    serving_embeddings_oracle.py PATH/TO/troika-serve PATH/TO/troika-convert

The folder of models holds the encoder, and a GGUF file made of it. The PyPI clients `ollama`, `openai` and `langchain-ollama` ask for the
texts of minilm_oracle.py, one by one, as lists and 64 requests at once, on 1, 2 and 3 devices; every vector has a cosine above 0.99999
with the reference. Exits with 77 (skipped) where a package cannot be had.
"""

import base64
import concurrent.futures
import pathlib
import shutil
import subprocess
import sys
import tempfile

try:
    import ollama
    import openai
    from langchain_ollama import OllamaEmbeddings
    import minilm_oracle as minilm
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

from served import Server, check, eventually, verdict

LONGEST = 256  # tokens, as the folder says


def near(vector, reference, length=1.0):
    vector = minilm.torch.tensor(vector, dtype=minilm.torch.float64)
    cosine = minilm.torch.nn.functional.cosine_similarity(vector, reference.double(), dim=0).item()
    return cosine > minilm.LIMIT and (length is None or abs(vector.norm().item() - length) < 1e-5)


def all_near(vectors, references):
    return len(vectors) == len(references) and all(near(*pair) for pair in zip(vectors, references))


def ask(server, devices, texts, ids, references):
    client = ollama.Client(host=server.url)
    for model in ("minilm", "minilm-f32"):
        answer = client.embed(model, texts)
        check(f"embed by {model} on {devices}", all_near(answer.embeddings, references))
        check("prompt_eval_count", answer.prompt_eval_count == sum(map(len, ids)) and answer.total_duration > 0, answer.prompt_eval_count)
    check("one text", all_near(client.embed("minilm", texts[0]).embeddings, references[:1]))
    check("embeddings", near(client.embeddings("minilm", texts[0]).embedding, references[0], None))
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        together = list(pool.map(lambda i: client.embed("minilm", [texts[i % len(texts)]]).embeddings[0], range(64)))
    check("64 at once", all_near(together, [references[i % len(texts)] for i in range(64)]))

    check("langchain", all_near(OllamaEmbeddings(model="minilm", base_url=server.url).embed_documents(texts), references))
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    texts = [text for text in texts if text]
    references = [reference for text, reference in zip(minilm.TEXTS, references) if text]
    for encoding in ("float", "base64"):
        answer = client.embeddings.create(model="minilm", input=texts, encoding_format=encoding)
        vectors = [one.embedding for one in answer.data]
        if encoding == "base64":
            vectors = [minilm.torch.frombuffer(bytearray(base64.b64decode(vector)), dtype=minilm.torch.float32).tolist() for vector in vectors]
        check(f"embeddings of /v1 as {encoding}", all_near(vectors, references))
    check("the encoding that the client asks for by itself", all_near([client.embeddings.create(model="minilm", input=texts[0]).data[0].embedding], references[:1]))
    check("tokens", near(client.embeddings.create(model="minilm", input=[ids[0]]).data[0].embedding, references[0]))
    few = client.embeddings.create(model="minilm", input=texts[0], dimensions=64).data[0].embedding
    check("dimensions", len(few) == 64 and near(few, references[0][:64]))


def refusals(server):
    client = ollama.Client(host=server.url)
    check("a long text is cut", client.embed("minilm", "word " * 1000).prompt_eval_count == LONGEST)
    for call in (lambda: client.embed("minilm", "word " * 1000, truncate=False), lambda: client.generate("minilm", "x"),
                 lambda: client.chat("minilm", [{"role": "user", "content": "x"}])):
        try:
            call()
            check("refused", False)
        except ollama.ResponseError as error:
            check("refused: 400", error.status_code == 400, error)
    check("capabilities", client.show("minilm").capabilities == ["embedding"])
    client.embed("minilm", "x", keep_alive=0)
    check("unloaded", eventually(lambda: "minilm:latest" not in [model.model for model in client.ps().models]))


def main():
    program, convert = sys.argv[1:3]
    minilm.torch.set_num_threads(1)
    minilm.transformers.logging.set_verbosity_error()
    minilm.transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temp:
        source, reason = minilm.find_model(temp)
        if source is None:
            print(f"SKIPPED: {minilm.PACKAGE} cannot be had: {reason}")
            return 77
        ids, references = minilm.expected(source)
        short = [i for i, each in enumerate(ids) if len(each) <= LONGEST]
        minilm.TEXTS = [minilm.TEXTS[i] for i in short]
        ids, references = [ids[i] for i in short], [references[i] for i in short]
        models = pathlib.Path(temp) / "models"
        shutil.copytree(source, models / "minilm")
        subprocess.run([convert, str(source), str(models / "minilm-f32.gguf"), "--type", "F32"], check=True, capture_output=True, timeout=300)
        for devices in (1, 2, 3):
            server = Server(program, "--models", models, "--devices", devices)
            ask(server, devices, minilm.TEXTS, ids, references)
            if devices == 2:
                refusals(server)
            check("ends well", server.stop() == 0)
    return verdict()


if __name__ == "__main__":
    sys.exit(main())
