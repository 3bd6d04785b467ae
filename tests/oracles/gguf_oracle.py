#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares troika's reader of GGUF with files that the PyPI package `gguf` wrote.

    gguf_oracle.py FOLDER_OF_THE_TOOLS [NAME...]

With names, only the models of the second part that begin with one of them.

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
    from transformers import (BertConfig, Gemma2Config, Gemma3TextConfig, GPT2Config, LlamaConfig, MistralConfig,
                              NomicBertConfig, Phi3Config, Qwen2Config, Qwen3Config, Qwen3MoeConfig)

    import models_oracle
    from gguf_files import write_model
    from models_oracle import random_model
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4"]
FLOATS = ["F32", "F16", "BF16"]
WORLDS = ["1", "2", "3", "4", "1:3:1:3"]

# Rows of whole blocks of 256.
WIDE = dict(vocab_size=203, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=8,
            num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2)

SMALL, LLAMA3, BERT, LONGROPE = models_oracle.SMALL, models_oracle.LLAMA3, models_oracle.BERT, models_oracle.LONGROPE
# Which layers slide is not in such a file: every second and every sixth sees all. The scale of scores is that of the heads.
GEMMA = dict(models_oracle.GEMMA, num_hidden_layers=7, query_pre_attn_scalar=16)
GEMMA3_LAYERS = ["full_attention" if i == 5 else "sliding_attention" for i in range(7)]
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
    ("gemma2", Gemma2Config(**GEMMA, attn_logit_softcapping=3.0, final_logit_softcapping=7.0)),
    ("gemma3", Gemma3TextConfig(**GEMMA, rope_parameters=models_oracle.GEMMA3_ROPE, layer_types=GEMMA3_LAYERS)),
    ("qwen3moe", Qwen3MoeConfig(**models_oracle.EXPERTS, norm_topk_prob=True)),
    ("phi3", Phi3Config(**models_oracle.PHI3, sliding_window=20)),
    ("phi3, longrope, short", Phi3Config(**models_oracle.PHI3, rope_parameters=LONGROPE, original_max_position_embeddings=100)),
    ("phi3, longrope, long", Phi3Config(**models_oracle.PHI3, rope_parameters=LONGROPE, original_max_position_embeddings=6)),
    ("gpt2", GPT2Config(**models_oracle.GPT2)),
    ("bert", BertConfig(**BERT)),
    ("nomic-bert", NomicBertConfig(**models_oracle.NOMIC)),
]
# Fused and stacked matrices of blocks of 32 and 256. Not 256 of nomic-bert: `gguf` does not quantise to them, and with
# random blocks in the embedding the first norm makes 1e-7 a thousand times larger, in PyTorch too.
BLOCKS = ["Q8_0", "Q4_K", "Q6_K"]
WIDE_MODELS = [
    ("gemma2", Gemma2Config(**WIDE, head_dim=64, query_pre_attn_scalar=64, sliding_window=8), BLOCKS),
    ("gemma3", Gemma3TextConfig(**WIDE, head_dim=64, query_pre_attn_scalar=64, sliding_window=8), BLOCKS),
    ("qwen3moe", Qwen3MoeConfig(**WIDE, head_dim=32, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=512,
                                norm_topk_prob=True), BLOCKS),
    ("phi3", Phi3Config(**WIDE, pad_token_id=0), BLOCKS),
    ("gpt2", GPT2Config(vocab_size=203, n_embd=256, n_layer=2, n_head=8, n_positions=128, initializer_range=0.2,
                        bos_token_id=0, eos_token_id=0), BLOCKS),
    ("nomic-bert", NomicBertConfig(**{k: v for k, v in WIDE.items() if k != "num_key_value_heads"},
                                   rope_parameters=dict(rope_theta=1000.0, rope_type="default")), ["Q8_0", "Q4_0", "Q5_1"]),
]


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


def compare_all_tensors(tool, temp):
    failed, path = 0, os.path.join(temp, "model.gguf")
    for config in (LlamaConfig(**WIDE, attention_bias=True), Qwen2Config(**WIDE),
                   BertConfig(**{k: v for k, v in WIDE.items() if k != "num_key_value_heads"})):
        model = random_model(config)
        for kind in TYPES:
            values = write_model(path, model, GGMLQuantizationType[kind])
            failed += compare_tensors(tool, path, values, kind, f"{config.model_type} {kind}")
    parts = os.path.join(temp, "split.gguf")
    values = write_model(parts, random_model(LlamaConfig(**WIDE)), GGMLQuantizationType.Q4_K, split_max_tensors=7)
    names = sorted(name for name in os.listdir(temp) if name.startswith("split-"))
    for name in (names[0], names[-1]):
        failed += compare_tensors(tool, os.path.join(temp, name), values, "Q4_K", f"{name}")
    return failed


def main():
    tools, only = sys.argv[1], tuple(sys.argv[2:]) or ("",)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    failed = 0
    with tempfile.TemporaryDirectory() as temp:
        path = os.path.join(temp, "model.gguf")
        if only == ("",):
            failed += compare_all_tensors(os.path.join(tools, "tool_weights"), temp)
        models_oracle.WORLDS = WORLDS
        table = models_oracle.Table()
        quantised = [kind for kind in TYPES if kind not in FLOATS]
        for name, config, kinds in [(*model, FLOATS) for model in MODELS] + [("llama", LlamaConfig(**WIDE), quantised)] + WIDE_MODELS:
            if not name.startswith(only):
                continue
            config._attn_implementation = "eager"  # the others leave caps out
            model = random_model(config)
            prompts, more = models_oracle.prompts_of(name, config), models_oracle.options_of(name)
            for kind in kinds:
                values = write_model(path, model, GGMLQuantizationType[kind])
                values.pop("rope_freqs.weight", None)
                model.load_state_dict({key: torch.from_numpy(value) for key, value in values.items()}, strict=False)
                want = models_oracle.expected(model, prompts)
                try:
                    answers = models_oracle.run(os.path.join(tools, "tool_forward"), path, prompts, WORLDS, *more)
                    table.add(f"{name} from GGUF, {kind}", models_oracle.compare(answers, want))
                except RuntimeError as error:
                    table.add_failure(f"{name} from GGUF, {kind}", error)
        failed += table.failed
    print(f"compared with gguf {gguf.__version__ if hasattr(gguf, '__version__') else ''} and transformers {transformers.__version__}: "
          + (f"{failed} FAIL" if failed else "no difference"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
