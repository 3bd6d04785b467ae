#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares the files that troika-convert writes with the PyPI package `gguf`, transformers and tokenizers.

    convert_oracle.py PATH/TO/troika-convert FOLDER_OF_THE_TOOLS FOLDER_OF_THE_BUNDLED_MODEL

1. Every type, of the bundled model and of random ones: `gguf` reads the file; the bytes of a tensor are those that
   gguf.quants.quantize makes (Q4_K and Q6_K, which it cannot make: near the numbers), and what `gguf` reads of them is, bit
   for bit, what troika reads.
2. Models of every architecture from a converted F32 file: logits and greedy tokens against transformers.
3. Tokenizers of every kind: the converted file against the tokenizer that the folder has.
4. The bundled model in every type: the perplexity of its answers, on several worlds, with activations rounded as programs
   have it, within 1 % of what transformers gives with the same numbers as float32.
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
    from safetensors.torch import load_file
    from tokenizers import Tokenizer, normalizers, pre_tokenizers
    from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

    import gguf_oracle
    import gguf_tokenizers_oracle
    import models_oracle
    import tokenizers_oracle
    from gguf_files import ARCHITECTURES, permuted
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q4_K_M", "Q6_K"]
WIDE = dict(gguf_oracle.WIDE, vocab_size=1300, bos_token_id=0, eos_token_id=1, num_hidden_layers=3)
IDS = dict(vocab_size=1300, bos_token_id=0, eos_token_id=1)


def convert(tool, folder, out, kind):
    done = subprocess.run([tool, str(folder), str(out), "--type", kind, "--force"], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def sources(folder, config):
    """{name in the file: (name of Hugging Face, numbers in the order of the file, heads whose rows are interleaved or 0)}"""
    names = gguf.get_tensor_name_map(ARCHITECTURES[config.model_type], config.num_hidden_layers)
    result = {}
    for name, tensor in load_file(os.path.join(folder, "model.safetensors")).items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        data = tensor.to(torch.float32).numpy()
        called = names.get_name(name, try_suffixes=(".weight", ".bias"))
        heads = 0
        if config.model_type in ("llama", "mistral"):
            heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads if ".k_proj." in name else 0
        result[called] = name, np.ascontiguousarray(permuted(data, heads)) if heads else data, heads
    return result


def unpermuted(data, heads):
    return data.reshape(heads, data.shape[0] // heads // 2, 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)


def compare_file(tools, folder, path, config, kind):
    wrong = []
    read = {line.split("\t")[0]: line.split("\t") for line in
            subprocess.run([os.path.join(tools, "tool_weights"), str(path)], capture_output=True, text=True, check=True).stdout.splitlines()}
    reader = gguf.GGUFReader(str(path))
    expected = sources(folder, config)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    extra = set(tensors) - set(expected) - {"rope_freqs.weight"}
    if extra or set(expected) - set(tensors):
        wrong.append(f"tensors {sorted(extra | (set(expected) - set(tensors)))[:4]}")
    kinds = set()
    for name, (source, data, heads) in expected.items():
        tensor = tensors[name]
        if list(tensor.shape) != list(data.shape)[::-1]:
            wrong.append(f"{name} has shape {tensor.shape}")
            continue
        blocks = np.asarray(tensor.data)
        back = gguf.quants.dequantize(blocks, tensor.tensor_type).reshape(data.shape).astype(np.float32)
        kinds.add(tensor.tensor_type.name)
        if data.ndim == 1:
            if tensor.tensor_type != GGMLQuantizationType.F32:
                wrong.append(f"{name} is {tensor.tensor_type.name}")
        if tensor.tensor_type.name in ("Q4_K", "Q6_K"):
            worst = np.abs(back - data).max() / np.abs(data).max()
            if not worst < {"Q4_K": 0.12, "Q6_K": 0.04}[tensor.tensor_type.name]:
                wrong.append(f"{name} is {worst:.3f} off")
        else:
            made = np.ascontiguousarray(gguf.quants.quantize(data, tensor.tensor_type)).view(np.uint8).reshape(-1)
            if not np.array_equal(made, np.ascontiguousarray(blocks).view(np.uint8).reshape(-1)):
                wrong.append(f"{name} has other bytes")
        values = np.ascontiguousarray(unpermuted(back, heads) if heads else back)
        if read[source][5] != str(zlib.crc32(values.tobytes())):
            wrong.append(f"{name} is read otherwise by troika")
    if kind in GGMLQuantizationType.__members__ and config.hidden_size % 256 == 0 and kinds - {"F32", kind}:
        wrong.append(f"types {kinds}")
    fields = reader.fields
    arch = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[config.model_type]]
    for key in ("general.architecture", "general.file_type", f"{arch}.context_length", f"{arch}.embedding_length", f"{arch}.block_count",
                f"{arch}.feed_forward_length", f"{arch}.attention.head_count", f"{arch}.attention.head_count_kv",
                f"{arch}.attention.layer_norm_rms_epsilon", f"{arch}.rope.freq_base", f"{arch}.rope.dimension_count", f"{arch}.vocab_size",
                "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type",
                "tokenizer.ggml.merges", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"):
        if key not in fields:
            wrong.append(f"no {key}")
    if len(fields["tokenizer.ggml.tokens"].data) != config.vocab_size:
        wrong.append("tokens for other rows")
    print(f"{'FAIL' if wrong else 'ok  '} {config.model_type} {kind}: {len(expected)} tensors of {sorted(kinds)} {'; '.join(wrong[:4])}", flush=True)
    return len(wrong)


def compare_perplexity(tool, tools, bundled, path, kind):
    """The answers that the bundled model has not seen, each after its question."""
    convert(tool, bundled, path, kind)
    config = transformers.AutoConfig.from_pretrained(bundled)
    model = transformers.LlamaForCausalLM.from_pretrained(bundled, dtype=torch.float32)
    state = model.state_dict()
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(str(path)).tensors}
    with torch.no_grad():
        for called, (name, data, heads) in sources(bundled, config).items():
            values = gguf.quants.dequantize(np.asarray(tensors[called].data), tensors[called].tensor_type).reshape(data.shape)
            values = np.ascontiguousarray(values.astype(np.float32))
            state[name].copy_(torch.from_numpy(np.ascontiguousarray(unpermuted(values, heads)) if heads else values))
    tokenizer = Tokenizer.from_file(os.path.join(bundled, "tokenizer.json"))
    with open(os.path.join(bundled, "unseen.tsv"), encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    prompts = [tokenizer.encode(row[1] + row[2]).ids for row in rows]
    prompts = [ids for ids in prompts if len(ids) > 1]
    count = sum(len(ids) - 1 for ids in prompts)
    want = 0.0
    with torch.no_grad():
        for ids in prompts:
            logits = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)
            want += logits[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].sum().item()
    worlds = ["1", "2", "3"]
    lines = subprocess.run([os.path.join(tools, "tool_forward"), str(path), "--worlds", ",".join(worlds), "--score", "--fast"],
                           input="\n".join(" ".join(map(str, ids)) for ids in prompts) + "\n", capture_output=True, text=True,
                           check=True).stdout.splitlines()
    got = dict.fromkeys(worlds, 0.0)
    for line in lines:
        if line.startswith("score "):
            _, world, _, value = line.split()
            got[world] += float(value)
    reference, ours = np.exp(-want / count), {world: np.exp(-value / count) for world, value in got.items()}
    wrong = [world for world, value in ours.items() if not abs(value / reference - 1) < 0.01]
    print(f"{'FAIL' if wrong else 'ok  '} perplexity of {kind}: {reference:.4f} in float32, " +
          ", ".join(f"{value:.4f} on {world}" for world, value in ours.items()) + f" ({count} tokens)", flush=True)
    return len(wrong)


def save(model, folder):
    os.makedirs(folder, exist_ok=True)
    model.save_pretrained(folder)


def random_model(config, folder, tokenizer):
    model = gguf_oracle.random_model(config)
    save(model, folder)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    return model


def tokenizer_kinds():
    p, oracle, byte_level = pre_tokenizers, tokenizers_oracle, gguf_tokenizers_oracle.byte_level
    plain = p.ByteLevel(add_prefix_space=False)
    temp = os.path.join(tempfile.gettempdir(), f"vocabulary-{os.getpid()}.gguf")
    try:
        yield "gpt-2", byte_level(temp, "gpt-2", plain)
        yield "gpt-2 with BOS", byte_level(temp, "gpt-2", plain, bos=True)
        yield "smollm", byte_level(temp, "smollm", p.Sequence([p.Digits(individual_digits=True), plain]))
        yield "llama-bpe", byte_level(temp, "llama-bpe", oracle.split_then_bytes(oracle.LLAMA3), ignore_merges=True)
        yield "qwen2", byte_level(temp, "qwen2", oracle.split_then_bytes(oracle.QWEN2), normalizer=normalizers.NFC())
        yield "tekken", byte_level(temp, "tekken", oracle.split_then_bytes(gguf_tokenizers_oracle.TEKKEN), ignore_merges=True)
        yield "SentencePiece", gguf_tokenizers_oracle.sentence_piece(temp, byte_fallback=True)[1]
    finally:
        os.unlink(temp)


def main():
    tool, tools, bundled = sys.argv[1:4]
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    failed = 0
    with tempfile.TemporaryDirectory() as temp:
        path = os.path.join(temp, "model.gguf")
        kinds = dict(tokenizer_kinds())
        tokenizer = kinds["smollm"]
        wide = os.path.join(temp, "wide")
        config = LlamaConfig(**WIDE, attention_bias=True)
        random_model(config, wide, tokenizer)
        for folder, of in ((bundled, transformers.AutoConfig.from_pretrained(bundled)), (wide, config)):
            for kind in TYPES:
                convert(tool, folder, path, kind)
                failed += compare_file(tools, folder, path, of, kind)

        for kind in TYPES:
            failed += compare_perplexity(tool, tools, bundled, path, kind)

        models_oracle.WORLDS = ["1", "2", "3"]
        table = models_oracle.Table()
        small = {k: v for k, v in models_oracle.SMALL.items() if k not in IDS}
        for name, config in [("llama", LlamaConfig(**small, **IDS, tie_word_embeddings=False)),
                             ("llama, llama3 rope, tied", LlamaConfig(**small, **IDS, rope_parameters=models_oracle.LLAMA3, tie_word_embeddings=True)),
                             ("llama, linear rope", LlamaConfig(**small, **IDS, rope_parameters=dict(rope_theta=10000.0, rope_type="linear", factor=4.0))),
                             ("llama, biases", LlamaConfig(**small, **IDS, attention_bias=True, mlp_bias=True)),
                             ("mistral, window of 8", MistralConfig(**small, **IDS, sliding_window=8)),
                             ("mistral, no window", MistralConfig(**small, **IDS, sliding_window=None)),
                             ("qwen2", Qwen2Config(**small, **IDS)), ("qwen3", Qwen3Config(**small, **IDS, head_dim=16))]:
            folder = os.path.join(temp, name)
            model = random_model(config, folder, tokenizer)
            prompts = models_oracle.random_prompts(config.vocab_size)
            want = models_oracle.expected(model, prompts)
            try:
                convert(tool, folder, path, "F32")
                table.add(f"{name}, converted", models_oracle.compare(models_oracle.run(os.path.join(tools, "tool_forward"), path, prompts, models_oracle.WORLDS), want))
            except RuntimeError as error:
                table.add_failure(f"{name}, converted", error)
        failed += table.failed

        report = []
        strings = tokenizers_oracle.TRICKY + tokenizers_oracle.random_strings(11, 500)
        for name, of in kinds.items():
            of.save(os.path.join(temp, "llama", "tokenizer.json"))
            try:
                convert(tool, os.path.join(temp, "llama"), path, "Q8_0")
            except RuntimeError as error:
                print(f"FAIL {name}: {error}")
                report.append(1)
                continue
            tokenizers_oracle.compare(os.path.join(tools, "tool_tokenize"), f"{name}, converted", of, path, strings, report)
        failed += sum(report)
    print(f"compared with transformers {transformers.__version__}: " + (f"{failed} FAIL" if failed else "no difference"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
