#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares the files that troika-convert writes with the PyPI package `gguf`, transformers and tokenizers.

    convert_oracle.py PATH/TO/troika-convert FOLDER_OF_THE_TOOLS FOLDER_OF_THE_BUNDLED_MODEL

1. Every type, of the bundled model, and several of random ones of every architecture: `gguf` reads the file; tensors and
   keys are those of a file that gguf_files.py writes; the bytes of a tensor are those that gguf.quants.quantize makes
   (Q4_K and Q6_K, which it cannot make: near the numbers), and what `gguf` reads of them is, bit for bit, what troika
   reads (Llama).
2. Models of every architecture from a converted F32 file: logits and greedy tokens against transformers.
3. Tokenizers of every kind: the converted file against the tokenizer that the folder has.
4. The bundled model in every type: the perplexity of its answers, on several worlds, with activations rounded as programs
   have it, within 1 % of what transformers gives with the same numbers as float32.
Exits with 77 (skipped) where a package is absent.
"""

import copy
import json
import os
import re
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
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
    from transformers import (BertConfig, Gemma2Config, Gemma3Config, Gemma3TextConfig, GPT2Config, LlamaConfig, MistralConfig,
                              NomicBertConfig, Phi3Config, Qwen2Config, Qwen3Config, Qwen3MoeConfig)

    import gguf_oracle
    import gguf_tokenizers_oracle
    import models_oracle
    import tokenizers_oracle
    from gguf_files import ARCHITECTURES, ENCODERS, permuted, write_model
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q4_K_M", "Q6_K"]
WIDE = dict(gguf_oracle.WIDE, vocab_size=1300, bos_token_id=0, eos_token_id=1, num_hidden_layers=3)
IDS = dict(vocab_size=1300, bos_token_id=0, eos_token_id=1)
# Those that are never quantised: routers, positions and token types, beside vectors.
EXACT = re.compile(r"(ffn_gate_inp|position_embd|token_types)\.weight$")
GEMMA = dict(models_oracle.GEMMA, num_hidden_layers=7, query_pre_attn_scalar=16)
GEMMA3 = dict(GEMMA, rope_parameters=models_oracle.GEMMA3_ROPE)


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


def compare_keys(got, want):
    """Every key that the reference has, with its type and its value."""
    wrong = []
    for key, field in want.items():
        if key.startswith("GGUF."):
            continue
        if key not in got:
            wrong.append(f"no {key}")
        elif got[key].types != field.types or got[key].contents() != field.contents():
            wrong.append(f"{key} is {got[key].contents()} instead of {field.contents()}")
    more = ["general.file_type", "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type",
            "tokenizer.ggml.bos_token_id"]
    if got["tokenizer.ggml.model"].contents() == "bert":
        more += [f"tokenizer.ggml.{role}_token_id" for role in ("seperator", "unknown", "padding", "mask")] + ["tokenizer.ggml.token_type_count"]
    else:
        more += ["tokenizer.ggml.merges", "tokenizer.ggml.eos_token_id"]
    return wrong + [f"no {key}" for key in more if key not in got]


def compare_file(tools, folder, path, model, kind):
    """The file against one that gguf_files.py writes of the same model in F32."""
    config, wrong, kinds = model.config, [], set()
    reference = str(path) + ".reference"
    write_model(reference, model)
    want, reader = gguf.GGUFReader(reference), gguf.GGUFReader(str(path))
    tensors, expected = ({tensor.name: tensor for tensor in file.tensors} for file in (reader, want))
    if set(tensors) != set(expected):
        wrong.append(f"tensors {sorted(set(tensors) ^ set(expected))[:4]}")
    for name in set(tensors) & set(expected):
        tensor, shape = tensors[name], [int(n) for n in expected[name].shape[::-1]]
        data = np.asarray(expected[name].data).reshape(shape)
        if list(tensor.shape[::-1]) != shape:
            wrong.append(f"{name} has shape {tensor.shape}")
            continue
        if len(shape) == 1 or EXACT.search(name):
            if tensor.tensor_type != GGMLQuantizationType.F32:
                wrong.append(f"{name} is {tensor.tensor_type.name}")
        else:
            kinds.add(tensor.tensor_type.name)
        blocks = np.asarray(tensor.data)
        back = gguf.quants.dequantize(blocks, tensor.tensor_type).reshape(shape).astype(np.float32)
        if name.startswith("rope_"):  # worked out, and not read from the folder
            if not np.allclose(back, data, rtol=1e-6, atol=0):
                wrong.append(f"{name} has other numbers")
        elif tensor.tensor_type.name in ("Q4_K", "Q6_K"):
            worst = np.abs(back - data).max() / np.abs(data).max()
            if not worst < {"Q4_K": 0.12, "Q6_K": 0.04}[tensor.tensor_type.name]:
                wrong.append(f"{name} is {worst:.3f} off")
        else:
            made = np.ascontiguousarray(gguf.quants.quantize(data, tensor.tensor_type)).view(np.uint8).reshape(-1)
            if not np.array_equal(made, np.ascontiguousarray(blocks).view(np.uint8).reshape(-1)):
                wrong.append(f"{name} has other bytes")
    if config.model_type == "llama":
        read = {line.split("\t")[0]: line.split("\t") for line in
                subprocess.run([os.path.join(tools, "tool_weights"), str(path)], capture_output=True, text=True, check=True).stdout.splitlines()}
        for name, (source, data, heads) in sources(folder, config).items():
            back = gguf.quants.dequantize(np.asarray(tensors[name].data), tensors[name].tensor_type).reshape(data.shape).astype(np.float32)
            values = np.ascontiguousarray(unpermuted(back, heads) if heads else back)
            if read[source][5] != str(zlib.crc32(values.tobytes())):
                wrong.append(f"{name} is read otherwise by troika")
    width = min(getattr(config, name, None) or 256 for name in ("hidden_size", "intermediate_size", "moe_intermediate_size"))
    if kind in GGMLQuantizationType.__members__ and width % 256 == 0 and kinds - {kind}:
        wrong.append(f"types {kinds}")
    wrong += compare_keys(reader.fields, want.fields)
    if len(reader.fields["tokenizer.ggml.tokens"].data) != config.vocab_size:
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
    config._attn_implementation = "eager"  # the others leave caps out
    model = gguf_oracle.random_model(config)
    save(model, folder)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    if config.model_type in ENCODERS:
        with open(os.path.join(folder, "modules.json"), "w", encoding="utf-8") as file:
            json.dump([dict(type="sentence_transformers.models.Transformer", path=""),
                       dict(type="sentence_transformers.models.Pooling", path="1_Pooling")], file)
        os.makedirs(os.path.join(folder, "1_Pooling"), exist_ok=True)
        with open(os.path.join(folder, "1_Pooling", "config.json"), "w", encoding="utf-8") as file:
            json.dump(dict(pooling_mode_mean_tokens=True), file)
    return model


def with_vocabulary(config):
    """Rows for the tokens of the tokenizers here."""
    config = copy.deepcopy(config)
    of_text = config.get_text_config()
    for key, value in IDS.items():
        setattr(of_text, key, value)
    if of_text is not config:
        config.eos_token_id = IDS["eos_token_id"]
    return config


def models():
    """What each becomes must answer as transformers does."""
    small = {k: v for k, v in models_oracle.SMALL.items() if k not in IDS}
    longrope = dict(models_oracle.PHI3, rope_parameters=models_oracle.LONGROPE)
    yield "llama", LlamaConfig(**small, tie_word_embeddings=False)
    yield "llama, llama3 rope, tied", LlamaConfig(**small, rope_parameters=models_oracle.LLAMA3, tie_word_embeddings=True)
    yield "llama, linear rope", LlamaConfig(**small, rope_parameters=dict(rope_theta=10000.0, rope_type="linear", factor=4.0))
    yield "llama, biases", LlamaConfig(**small, attention_bias=True, mlp_bias=True)
    yield "mistral, window of 8", MistralConfig(**small, sliding_window=8)
    yield "mistral, no window", MistralConfig(**small, sliding_window=None)
    yield "qwen2", Qwen2Config(**small)
    yield "qwen3", Qwen3Config(**small, head_dim=16)
    yield "qwen3moe", Qwen3MoeConfig(**models_oracle.EXPERTS, norm_topk_prob=True)
    yield "qwen3moe, weights as they are", Qwen3MoeConfig(**models_oracle.EXPERTS, norm_topk_prob=False)
    yield "gemma2", Gemma2Config(**GEMMA, attn_logit_softcapping=3.0, final_logit_softcapping=7.0)
    yield "gemma3, every sixth", Gemma3TextConfig(**GEMMA3, layer_types=gguf_oracle.GEMMA3_LAYERS)
    yield "gemma3, every third", Gemma3TextConfig(**GEMMA3, layer_types=(["sliding_attention"] * 2 + ["full_attention"]) * 2 + ["sliding_attention"])
    yield "gemma3, all slide", Gemma3TextConfig(**GEMMA3, layer_types=["sliding_attention"] * 7)
    yield "gemma3, own lm_head", Gemma3TextConfig(**GEMMA, tie_word_embeddings=False, final_logit_softcapping=9.0)
    yield "gemma3, with pictures", Gemma3Config(text_config=Gemma3TextConfig(**GEMMA3, layer_types=gguf_oracle.GEMMA3_LAYERS),
                                                vision_config=models_oracle.PICTURES, mm_tokens_per_image=1)
    yield "phi3", Phi3Config(**models_oracle.PHI3, sliding_window=20)
    yield "phi3, longrope, short", Phi3Config(**longrope, original_max_position_embeddings=100)
    yield "phi3, longrope, long", Phi3Config(**longrope, original_max_position_embeddings=6)
    yield "gpt2", GPT2Config(**models_oracle.GPT2)
    yield "gpt2, wider, own lm_head", GPT2Config(**models_oracle.GPT2, n_inner=100, tie_word_embeddings=False)
    yield "bert", BertConfig(**models_oracle.BERT)
    yield "nomic_bert", NomicBertConfig(**models_oracle.NOMIC)


def gemma_tokenizer(path):
    """Cut at spaces, of which the normalizer leaves none; no space before a text."""
    tokenizer = gguf_tokenizers_oracle.sentence_piece(path, byte_fallback=True)[1]
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


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
        yield "Gemma", gemma_tokenizer(temp)
        yield "WordPiece", gguf_tokenizers_oracle.word_piece(temp)
        yield "WordPiece, cased", gguf_tokenizers_oracle.word_piece(temp, lowercase=False)
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
        bundled_model = transformers.LlamaForCausalLM.from_pretrained(bundled, dtype=torch.float32)
        for folder, model in ((bundled, bundled_model), (wide, random_model(LlamaConfig(**WIDE, attention_bias=True), wide, tokenizer))):
            for kind in TYPES:
                convert(tool, folder, path, kind)
                failed += compare_file(tools, folder, path, model, kind)
        encoder = {k: v for k, v in gguf_oracle.WIDE.items() if k != "num_key_value_heads"}
        for name, config, _ in gguf_oracle.WIDE_MODELS + [("bert", BertConfig(**encoder), [])]:
            folder = os.path.join(temp, f"wide {name}")
            model = random_model(with_vocabulary(config), folder, kinds["WordPiece" if config.model_type in ENCODERS else "smollm"])
            for kind in ("F32", "Q8_0", "Q4_K_M", "Q6_K"):
                convert(tool, folder, path, kind)
                failed += compare_file(tools, folder, path, model, kind)

        for kind in TYPES:
            failed += compare_perplexity(tool, tools, bundled, path, kind)

        models_oracle.WORLDS = ["1", "2", "3"]
        table = models_oracle.Table()
        for name, config in models():
            folder = os.path.join(temp, name)
            config = with_vocabulary(config)
            model = random_model(config, folder, kinds["WordPiece" if config.model_type in ENCODERS else "smollm"])
            prompts, more = models_oracle.prompts_of(name, config), models_oracle.options_of(name)
            want = models_oracle.expected(model, prompts)
            try:
                convert(tool, folder, path, "F32")
                answers = models_oracle.run(os.path.join(tools, "tool_forward"), path, prompts, models_oracle.WORLDS, *more)
                table.add(f"{name}, converted", models_oracle.compare(answers, want))
            except RuntimeError as error:
                table.add_failure(f"{name}, converted", error)
        failed += table.failed

        report = []
        strings = tokenizers_oracle.TRICKY + tokenizers_oracle.random_strings(11, 500)
        for name, of in kinds.items():
            folder = os.path.join(temp, "bert" if name.startswith("WordPiece") else "llama")
            of.save(os.path.join(folder, "tokenizer.json"))
            try:
                convert(tool, folder, path, "Q8_0")
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
