#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares troika's reader of GGUF with files that the PyPI package `gguf` wrote.

    gguf_oracle.py FOLDER_OF_THE_TOOLS

1. Every type: names, types, shapes, and every value that `tool_weights` reads, whole, by rows and by columns, against
   gguf.quants.dequantize and the inverse of the permutation. Split files too.
2. Whole models from F32, F16 and BF16 files, and one from every quantised type: logits and greedy tokens of `tool_forward`
   on several worlds against transformers with the same values.
Exits with 77 (skipped) where a package is absent.
"""

import os
import subprocess
import sys
import tempfile
import zlib

try:
    import gguf
    import numpy as np
    import torch
    import transformers
    from gguf.constants import GGMLQuantizationType
    from transformers import BertConfig, BertModel, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

    import models_oracle
    from gguf_files import write_model
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4"]
FLOATS = ["F32", "F16", "BF16"]
WORLDS = ["1", "2", "3", "4", "1:3:1:3"]

# Rows of whole blocks of 256.
WIDE = dict(vocab_size=203, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=8,
            num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2)

SMALL, LLAMA3, BERT = models_oracle.SMALL, models_oracle.LLAMA3, models_oracle.BERT
MODELS = [
    ("llama", LlamaConfig(**SMALL, tie_word_embeddings=False)),
    ("llama, tied", LlamaConfig(**SMALL, tie_word_embeddings=True)),
    ("llama, llama3 rope", LlamaConfig(**SMALL, rope_parameters=LLAMA3)),
    ("llama, biases", LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True)),
    ("llama, 8 KV heads", LlamaConfig(**dict(SMALL, num_key_value_heads=8))),
    ("mistral, window of 8", MistralConfig(**SMALL, sliding_window=8)),
    ("mistral, no window", MistralConfig(**SMALL, sliding_window=None)),
    ("qwen2", Qwen2Config(**SMALL)),
    ("qwen3", Qwen3Config(**SMALL, head_dim=16)),
    ("qwen3, tied", Qwen3Config(**SMALL, head_dim=32, tie_word_embeddings=True)),
    ("bert", BertConfig(**BERT)),
]


def random_model(config):
    torch.manual_seed(17)
    model = BertModel(config) if config.model_type == "bert" else transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() == 1:
                value.normal_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0, 0.2)
    return model.eval()


def compare_tensors(tool, path, values, kind, name):
    lines = subprocess.run([tool, str(path)], capture_output=True, text=True, timeout=300)
    if lines.returncode != 0:
        print(f"FAIL {name}: {lines.stderr.strip()}")
        return 1
    got = {line.split("\t")[0]: line.split("\t")[1:] for line in lines.stdout.splitlines()}
    wrong = [f"names {sorted(set(got) ^ set(values))[:4]}"] if set(got) != set(values) else []
    for tensor, want in values.items():
        if tensor not in got:
            continue
        dtype, shape, rows, columns, read = got[tensor]
        if dtype != (kind if want.ndim == 2 else "F32") or shape != "(" + ", ".join(map(str, want.shape)) + ")":
            wrong.append(f"{tensor} is {dtype} {shape}")
        if read != str(zlib.crc32(want.tobytes())):
            wrong.append(f"{tensor} has other values")
        if rows == "-" or want.ndim == 2 and rows != columns:
            wrong.append(f"{tensor} by rows differs from by columns")
    print(f"{'FAIL' if wrong else 'ok  '} {name}: {len(values)} tensors {'; '.join(wrong[:4])}", flush=True)
    return len(wrong)


def main():
    tools = sys.argv[1]
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    failed = 0
    with tempfile.TemporaryDirectory() as temp:
        path = os.path.join(temp, "model.gguf")
        for config in (LlamaConfig(**WIDE, attention_bias=True), Qwen2Config(**WIDE),
                       BertConfig(**{k: v for k, v in WIDE.items() if k != "num_key_value_heads"})):
            model = random_model(config)
            for kind in TYPES:
                values = write_model(path, model, GGMLQuantizationType[kind])
                failed += compare_tensors(os.path.join(tools, "tool_weights"), path, values, kind, f"{config.model_type} {kind}")
        parts = os.path.join(temp, "split.gguf")
        values = write_model(parts, random_model(LlamaConfig(**WIDE)), GGMLQuantizationType.Q4_K, split_max_tensors=7)
        names = sorted(name for name in os.listdir(temp) if name.startswith("split-"))
        for name in (names[0], names[-1]):
            failed += compare_tensors(os.path.join(tools, "tool_weights"), os.path.join(temp, name), values, "Q4_K", f"{name}")

        models_oracle.WORLDS = WORLDS
        table = models_oracle.Table()
        quantised = [kind for kind in TYPES if kind not in FLOATS]
        for name, config, kinds in [(*model, FLOATS) for model in MODELS] + [("llama", LlamaConfig(**WIDE), quantised)]:
            model = random_model(config)
            prompts = models_oracle.random_prompts(config.vocab_size)
            for kind in kinds:
                values = write_model(path, model, GGMLQuantizationType[kind])
                values.pop("rope_freqs.weight", None)
                model.load_state_dict({key: torch.from_numpy(value) for key, value in values.items()}, strict=False)
                want = models_oracle.expected(model, prompts)
                try:
                    answers = models_oracle.run(os.path.join(tools, "tool_forward"), path, prompts, WORLDS)
                    table.add(f"{name} from GGUF, {kind}", models_oracle.compare(answers, want))
                except RuntimeError as error:
                    table.add_failure(f"{name} from GGUF, {kind}", error)
        failed += table.failed
    print(f"compared with gguf {gguf.__version__ if hasattr(gguf, '__version__') else ''} and transformers {transformers.__version__}: "
          + (f"{failed} FAIL" if failed else "no difference"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
