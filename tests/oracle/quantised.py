#!/usr/bin/env python3
"""Makes the tiny quantised checkpoints of the oracle and their reference logits.

    quantised.py OUT --gptq DIR --awq DIR [NAME...]     write OUT/NAME/
    quantised.py --search --gptq DIR --awq DIR NAME...  find the first seed that is good

The reference logits are those of Transformers for a plain fp32 checkpoint that holds the values
which the formats' own readers give (quantisers.py); values.crc has the CRC-32 of each matrix of
them. PROVENANCE.md next to the committed ones tells the rest.
"""

import argparse
import json
import re
import shutil
import tempfile
import zlib
from pathlib import Path

import make  # before the libraries: it sets their environment
import gguf
import numpy as np
import quantisers
import reference
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

GROUP = 32
BLOCK = 32
LINEAR = re.compile(r"\.(q|k|v|o|gate|up|down)_proj\.weight$")

SMALL = make.sizes(128, 64, 2, 4, 2, 32, 4, 2, 256, 128)
LARGE = make.sizes(128, 256, 1, 4, 2, 64, 4, 2, 256, 128)
CONFIGS = {
    "fp8": {"config": SMALL, "prompt": 66, "seed": 2},
    "gptq": {"config": SMALL, "prompt": 67, "seed": 1},
    "gptq_order": {"config": SMALL, "prompt": 64, "seed": 8},
    "awq": {"config": SMALL, "prompt": 71, "seed": 1},
    "gguf": {"config": SMALL, "prompt": 69, "seed": 20},
    "gguf_k": {"config": LARGE, "prompt": 65, "seed": 1},
}

# Types by tensor. Every type on a matrix that is cut by rows and on one that is cut by columns.
GGUF_TYPES = {
    "gguf": {
        "token_embd": "F16",
        "output": "Q8_0",
        "attn_q": "Q8_0",
        "attn_k": "F16",
        "attn_v": "BF16",
        "attn_output": "Q4_0",
        "ffn_gate_exps": "Q4_0",
        "ffn_up_exps": "Q8_0",
        "ffn_down_exps": ("Q8_0", "Q4_0"),  # by layer
    },
    "gguf_k": {
        "token_embd": "Q4_K",
        "output": "Q6_K",
        "attn_q": "Q4_K",
        "attn_k": "Q5_K",
        "attn_v": "Q6_K",
        "attn_output": "Q5_K",
        "ffn_gate_exps": "Q4_K",
        "ffn_up_exps": "Q5_K",
        "ffn_down_exps": "Q6_K",
    },
}

GGUF_NAMES = (
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
    ("model.layers.", "blk."),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("mlp.gate.", "ffn_gate_inp."),
)


def plain(spec):
    """(config.json's keys, published name -> fp32) of the model before it is quantised."""
    keys, model = make.build(spec | {"dtype": "float32"})
    with tempfile.TemporaryDirectory() as scratch:
        make.save(spec | {"dtype": "float32"}, keys, model, Path(scratch))
        return keys, load_file(Path(scratch) / "model.safetensors")


def quantise_module(name, w, number, kind, rng, readers):
    """(part -> tensor, values) of one linear layer. FP8 factors are bf16 in every other module:
    both occur in what is published."""
    if kind == "fp8":
        dtype = torch.bfloat16 if number % 2 else torch.float32
        codes, scale, values = quantisers.fp8(w, BLOCK, dtype)
        return {"weight": codes, "weight_scale_inv": scale}, values
    if kind == "awq":
        parts, values = quantisers.awq(w, GROUP, readers["awq"])
    else:
        index = np.arange(w.shape[1]) // GROUP
        if kind == "gptq_order":
            index = rng.permutation(index)
        parts, values = quantisers.gptq(w, index, kind == "gptq", readers["gptq"])
    return {part: torch.from_numpy(value) for part, value in parts.items()}, values


def quantise(kind, seed, weights, readers):
    """(stored tensors, values) of all weights; what is not linear becomes bf16."""
    rng = np.random.Generator(np.random.PCG64(seed))
    stored, values = {}, {}
    for number, (name, w) in enumerate(sorted(weights.items())):
        if LINEAR.search(name):
            parts, values[name] = quantise_module(name, w, number, kind, rng, readers)
            module = name.removesuffix(".weight")
            stored |= {f"{module}.{part}": t.contiguous() for part, t in parts.items()}
        else:
            stored[name] = torch.from_numpy(w).bfloat16()
            values[name] = stored[name].float().numpy()
    return stored, values


def quantization_config(kind):
    if kind == "fp8":
        return {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.gate"],
            "quant_method": "fp8",
            "weight_block_size": [BLOCK, BLOCK],
        }
    if kind == "awq":
        return {
            "bits": 4,
            "group_size": GROUP,
            "quant_method": "awq",
            "version": "gemm",
            "zero_point": True,
        }
    return {
        "bits": 4,
        "checkpoint_format": "gptq",
        "desc_act": kind == "gptq_order",
        "group_size": GROUP,
        "quant_method": "gptq",
        "sym": kind == "gptq",
    }


def gguf_names(weights, experts):
    """GGUF's name -> (fp32, the published names of its parts); experts fused."""
    found = {}
    for name, w in weights.items():
        if ".experts." in name:
            layer, part = re.match(r"model\.layers\.(\d+)\..*\.(\w+)_proj", name).groups()
            if ".experts.0." in name:
                names = [name.replace("experts.0.", f"experts.{e}.") for e in range(experts)]
                stack = np.stack([weights[n] for n in names])
                found[f"blk.{layer}.ffn_{part}_exps.weight"] = (stack, names)
            continue
        new = name
        for old, short in GGUF_NAMES:
            new = new.replace(old, short)
        found[new] = (w, [name])
    return found


def write_gguf(kind, keys, weights, folder):
    """Writes model.gguf; returns the values."""
    w = gguf.GGUFWriter(folder / "model.gguf", "qwen3moe")
    w.add_block_count(keys["num_hidden_layers"])
    w.add_context_length(keys["max_position_embeddings"])
    w.add_embedding_length(keys["hidden_size"])
    w.add_feed_forward_length(keys["intermediate_size"])
    w.add_head_count(keys["num_attention_heads"])
    w.add_head_count_kv(keys["num_key_value_heads"])
    w.add_key_length(keys["head_dim"])
    w.add_value_length(keys["head_dim"])
    w.add_rope_freq_base(keys["rope_theta"])
    w.add_layer_norm_rms_eps(keys["rms_norm_eps"])
    w.add_expert_count(keys["num_experts"])
    w.add_expert_used_count(keys["num_experts_per_tok"])
    w.add_expert_feed_forward_length(keys["moe_intermediate_size"])
    w.add_eos_token_id(keys["eos_token_id"])
    w.add_array("tokenizer.ggml.tokens", [f"t{i}" for i in range(keys["vocab_size"])])
    values = {}
    for name, (x, parts) in gguf_names(weights, keys["num_experts"]).items():
        word = name.removesuffix(".weight").split(".")[-1]
        kind_of = GGUF_TYPES[kind].get(word, "F32")
        if isinstance(kind_of, tuple):
            kind_of = kind_of[int(name.split(".")[1])]
        if kind_of == "F32":
            data, read = x, x
        else:
            data, read = quantisers.ggml(x, kind_of)
        w.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind_of])
        values |= {part: read[i] if len(parts) > 1 else read for i, part in enumerate(parts)}
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    (folder / "model.gguf").chmod(0o644)
    return values


def make_one(kind, spec, folder, readers):
    """Writes the checkpoint, and returns its golden and logits by way of a plain twin on disk."""
    keys, weights = plain(spec)
    config = keys | {"torch_dtype": "bfloat16"}
    if kind in GGUF_TYPES:
        values = write_gguf(kind, keys, weights, folder)
    else:
        stored, values = quantise(kind, spec["seed"], weights, readers)
        save_file(stored, folder / "model.safetensors")
        (folder / "model.safetensors").chmod(0o644)
        config["quantization_config"] = quantization_config(kind)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text)
    lines = [
        f"{zlib.crc32(np.ascontiguousarray(v, '<f4').tobytes()):08x} {name}\n"
        for name, v in sorted(values.items())
    ]
    (folder / "values.crc").write_text("".join(lines))
    with tempfile.TemporaryDirectory() as scratch:
        twin = Path(scratch)
        tensors = {n: torch.from_numpy(np.ascontiguousarray(v)) for n, v in values.items()}
        save_file(tensors, twin / "model.safetensors", metadata={"format": "pt"})
        (twin / "config.json").write_text(json.dumps(keys | {"torch_dtype": "float32"}))
        return make.measure(spec, keys, reference.load(twin))


def write(kind, out, readers):
    folder = Path(out) / kind
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    golden, logits = make_one(kind, CONFIGS[kind], folder, readers)
    if not make.good(golden):
        raise SystemExit(f"{kind}: close calls with its seed; --search finds another")
    make.write_golden(golden, logits, folder)
    return golden


def search(kind, readers):
    for seed in range(1, 10000):
        with tempfile.TemporaryDirectory() as scratch:
            golden, _ = make_one(kind, CONFIGS[kind] | {"seed": seed}, Path(scratch), readers)
        if make.good(golden):
            return golden
    raise SystemExit(f"{kind}: no good seed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--search", action="store_true", help="find seeds, write nothing")
    parser.add_argument("--gptq", type=Path, required=True, help="auto-gptq's wheel, unpacked")
    parser.add_argument("--awq", type=Path, required=True, help="autoawq's wheel, unpacked")
    parser.add_argument("arguments", nargs="+", metavar="OUT [NAME...]")
    args = parser.parse_args()
    readers = {
        "gptq": quantisers.load_module(args.gptq / "auto_gptq/nn_modules/qlinear/qlinear_cuda.py"),
        "awq": quantisers.load_module(args.awq / "awq/utils/packing_utils.py"),
    }
    out, names = (None, args.arguments) if args.search else (args.arguments[0], args.arguments[1:])
    for name in names or CONFIGS:
        make.report(name, search(name, readers) if args.search else write(name, out, readers))


if __name__ == "__main__":
    main()
