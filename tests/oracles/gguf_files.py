# SPDX-License-Identifier: Apache-2.0
"""Writes models and tokenizers of transformers as GGUF files, with the PyPI package `gguf`, the way that llama.cpp's
convert_hf_to_gguf.py does: its names of tensors, the rows of q and k of Llama models permuted, the same metadata."""

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, MODEL_ARCH

ARCHITECTURES = {"llama": MODEL_ARCH.LLAMA, "mistral": MODEL_ARCH.LLAMA, "qwen2": MODEL_ARCH.QWEN2, "qwen3": MODEL_ARCH.QWEN3,
                 "bert": MODEL_ARCH.BERT}


def permuted(weights, heads):
    """(heads, 2, half, ...) to (heads, half, 2, ...): from the halves of Hugging Face to neighbouring pairs."""
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def quantised(weights, kind, rng):
    """Blocks of a type. Where `gguf` cannot quantise, random bytes with small scales."""
    if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        return gguf.quants.quantize(weights, kind)
    try:
        return gguf.quants.quantize(weights, kind)
    except NotImplementedError:
        elements, size = GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (weights.shape[0], weights.shape[1] // elements, size), dtype=np.uint8)
        scale = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,)}[kind.name]
        for at in scale:
            halves = rng.uniform(1e-4, 2e-3, blocks.shape[:2]).astype(np.float16)
            blocks[..., at:at + 2] = halves[..., None].view(np.uint8)
        return blocks.reshape(weights.shape[0], -1)


def rope_factors(config):
    """The tensor rope_freqs.weight of a Llama 3, as convert_hf_to_gguf.py computes it."""
    rope = config.rope_parameters
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    freqs = 1.0 / (rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    old = rope["original_max_position_embeddings"]
    factors = []
    for freq in freqs:
        wavelength = 2 * torch.pi / freq
        if wavelength < old / high:
            factors.append(1.0)
        elif wavelength > old / low:
            factors.append(factor)
        else:
            smooth = (old / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, dtype=np.float32)


def add_metadata(writer, config):
    kind = config.model_type
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if kind == "bert":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.MEAN)
        return
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(width)
    if width * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(width)
        writer.add_value_length(width)
    if kind == "mistral" and config.sliding_window:
        writer.add_sliding_window(config.sliding_window)


def write_model(path, model, kind=GGMLQuantizationType.F32, add_tokenizer=None, **split):
    """Matrices in type `kind`, vectors in F32. Returns what a reader must give: {Hugging Face name: f32 array}."""
    config = model.config
    arch = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(str(path), gguf.MODEL_ARCH_NAMES[arch], **split)
    add_metadata(writer, config)
    if add_tokenizer is not None:
        add_tokenizer(writer)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    rng = np.random.default_rng(1)
    values = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("pooler.") or name.endswith("position_ids"):
            continue
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        data = tensor.to(torch.float32).numpy()
        called = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert called is not None, name
        heads = 0
        if config.model_type in ("llama", "mistral"):
            if ".q_proj." in name:
                heads = config.num_attention_heads
            if ".k_proj." in name:
                heads = config.num_key_value_heads
        if heads:
            data = permuted(data, heads)
        stored = kind if data.ndim == 2 else GGMLQuantizationType.F32
        blocks = quantised(np.ascontiguousarray(data), stored, rng)
        writer.add_tensor(called, blocks, raw_dtype=stored)
        back = gguf.quants.dequantize(blocks, stored).reshape(data.shape)
        if heads:  # the inverse: (heads, half, 2, ...) to (heads, 2, half, ...)
            back = back.reshape(heads, data.shape[0] // heads // 2, 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)
        values[name] = np.ascontiguousarray(back, dtype=np.float32)
    if getattr(config, "rope_parameters", None) and config.rope_parameters.get("rope_type") == "llama3":
        values["rope_freqs.weight"] = rope_factors(config)
        writer.add_tensor("rope_freqs.weight", values["rope_freqs.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values
