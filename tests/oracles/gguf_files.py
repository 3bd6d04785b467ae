# SPDX-License-Identifier: Apache-2.0
"""Writes models and tokenizers of transformers as GGUF files, with the PyPI package `gguf`, the way that llama.cpp's
convert_hf_to_gguf.py does: its names of tensors, the rows of q and k of Llama models permuted, the same metadata."""

import math

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, MODEL_ARCH

ARCHITECTURES = {"llama": MODEL_ARCH.LLAMA, "mistral": MODEL_ARCH.LLAMA, "qwen2": MODEL_ARCH.QWEN2, "qwen3": MODEL_ARCH.QWEN3,
                 "qwen3_moe": MODEL_ARCH.QWEN3MOE, "gemma2": MODEL_ARCH.GEMMA2, "gemma3_text": MODEL_ARCH.GEMMA3,
                 "phi3": MODEL_ARCH.PHI3, "gpt2": MODEL_ARCH.GPT2, "bert": MODEL_ARCH.BERT,
                 "nomic_bert": MODEL_ARCH.NOMIC_BERT}
ENCODERS = ("bert", "nomic_bert")


def permuted(weights, heads):
    """(heads, 2, half, ...) to (heads, half, 2, ...): from the halves of Hugging Face to neighbouring pairs."""
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def quantised(weights, kind, rng):
    """Blocks of a type. Where `gguf` cannot quantise, random bytes with small scales."""
    if weights.ndim == 3:
        return quantised(weights.reshape(-1, weights.shape[-1]), kind, rng).reshape(*weights.shape[:2], -1)
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


def head_dim(config):
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def add_gemma(writer, config):
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, name, None):
            getattr(writer, "add_" + name)(getattr(config, name))
    writer.add_sliding_window(config.sliding_window)


def add_rope(writer, config):
    rope = config.rope_parameters
    local = rope.get("sliding_attention")
    rope = rope.get("full_attention", rope)
    if config.model_type == "gemma2":
        return
    writer.add_rope_freq_base(rope["rope_theta"])
    if local:
        writer.add_rope_freq_base_swa(local["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if config.model_type == "phi3":
        writer.add_rope_dimension_count(int(head_dim(config) * rope.get("partial_rotary_factor", 1.0)))
        writer.add_rope_scaling_orig_ctx_len(rope.get("original_max_position_embeddings", config.max_position_embeddings))
        writer.add_sliding_window(config.sliding_window or 0)


def add_long_rope(writer, config):
    rope = config.rope_parameters
    original = rope["original_max_position_embeddings"]
    scale = config.max_position_embeddings / original
    writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0)
    for which in ("long", "short"):
        writer.add_tensor(f"rope_factors_{which}.weight", np.array(rope[which + "_factor"], dtype=np.float32))


def add_metadata(writer, config):
    kind = config.model_type
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length((config.n_inner or 4 * config.n_embd) if kind == "gpt2" else config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if kind == "gpt2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    if kind in ENCODERS:
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.MEAN)
        if kind == "nomic_bert":
            writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        return
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    add_rope(writer, config)
    width = head_dim(config)
    if kind not in ("phi3", "gemma2", "gemma3_text"):
        writer.add_rope_dimension_count(width)
    if kind.startswith("gemma"):
        add_gemma(writer, config)
    if kind == "qwen3_moe":
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if width * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(width)
        writer.add_value_length(width)
    if kind == "mistral" and config.sliding_window:
        writer.add_sliding_window(config.sliding_window)


NOMIC_NAMES = {"self_attn.o_proj": "attn.out_proj", "mlp.up_proj": "mlp.fc11", "mlp.gate_proj": "mlp.fc12",
               "mlp.down_proj": "mlp.fc2", "post_attention_layernorm": "norm1", "post_mlp_layernorm": "norm2"}


def stored_tensors(model):
    """What a file holds: (name that the map of `gguf` knows, array, restore), where restore(values, array) puts what was
    read back into {name in the model: array}."""
    config, state = model.config, {name: tensor.to(torch.float32).numpy() for name, tensor in model.state_dict().items()}
    kind = config.model_type

    def as_it_is(name):
        return lambda values, back: values.update({name: back})

    def transposed(name):
        return lambda values, back: values.update({name: back.T})

    for name, data in state.items():
        if name.startswith("pooler.") or name.endswith("position_ids"):
            continue
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if kind.startswith("gemma") and name.endswith("norm.weight"):
            yield name, data + 1, lambda values, back, name=name: values.update({name: back - 1})
        elif kind == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            yield name, data.T, transposed(name)
        elif name.endswith("mlp.experts.gate_up_proj"):
            half = data.shape[1] // 2

            def put(values, back, name=name, at=0, half=half, shape=data.shape):
                values.setdefault(name, np.empty(shape, dtype=np.float32))[:, at:at + half] = back

            root = name.removesuffix("gate_up_proj")
            yield root + "gate_proj.weight", data[:, :half], put
            yield root + "up_proj.weight", data[:, half:], lambda values, back, put=put, half=half: put(values, back, at=half)
        elif name.endswith("mlp.experts.down_proj"):
            yield name + ".weight", data, as_it_is(name)
        elif kind == "nomic_bert" and ".self_attn." in name and ".o_proj" not in name:
            if ".q_proj" in name:
                names = [name.replace("q_proj", which) for which in ("q_proj", "k_proj", "v_proj")]
                yield ("encoder." + name.replace("self_attn.q_proj", "attn.Wqkv"), np.concatenate([state[n] for n in names]),
                       lambda values, back, names=names: values.update(zip(names, np.split(back, 3))))
        elif kind == "nomic_bert":
            called = name.replace("embeddings.LayerNorm", "emb_ln")
            if name.startswith("layers."):
                called = "encoder." + name
                for ours, theirs in NOMIC_NAMES.items():
                    called = called.replace(ours, theirs)
            yield called, data, as_it_is(name)
        else:
            yield name, data, as_it_is(name)


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
    for name, data, restore in stored_tensors(model):
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
        stored = kind if data.ndim >= 2 else GGMLQuantizationType.F32
        blocks = quantised(np.ascontiguousarray(data), stored, rng)
        writer.add_tensor(called, blocks, raw_dtype=stored)
        back = gguf.quants.dequantize(blocks, stored).reshape(data.shape)
        if heads:  # the inverse: (heads, half, 2, ...) to (heads, 2, half, ...)
            back = back.reshape(heads, data.shape[0] // heads // 2, 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)
        restore(values, np.ascontiguousarray(back, dtype=np.float32))
    if config.model_type == "phi3" and config.rope_parameters["rope_type"] == "longrope":
        add_long_rope(writer, config)
    if getattr(config, "rope_parameters", None) and config.rope_parameters.get("rope_type") == "llama3":
        values["rope_freqs.weight"] = rope_factors(config)
        writer.add_tensor("rope_freqs.weight", values["rope_freqs.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values
