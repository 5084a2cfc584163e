#!/usr/bin/env python3
"""Makes the tiny random-weight checkpoints of the oracle and their reference logits.

    make.py OUT [NAME...]        write OUT/NAME/ for every (or each named) configuration
    make.py --search NAME...     find the first seed that meets the conditions below, write nothing

Each OUT/NAME/ is a checkpoint folder in the published layout with golden.json and logits.f32 beside
it; PROVENANCE.md next to the committed ones says what every file holds.

A seed is good when nothing in the golden hangs on rounding: no router decision and no greedy token
is a close call (ROUTER_GAP, GREEDY_LEAD), the continuation is not a short loop (DISTINCT), and
the end token is never produced, so that a test may generate through the whole of it.
"""

import argparse
import json
import shutil
import tempfile
import zlib
from pathlib import Path

import reference  # before the libraries: it sets their environment
import numpy as np
import torch
import transformers
from safetensors import safe_open

ROUTER_GAP = 2e-3  # of the k-th probability
GREEDY_LEAD = 3e-3  # of the largest |logit|
DISTINCT = 20
EXTRA = 40  # greedy tokens

# What every configuration has unless it says otherwise, in the keys of a published config.json.
COMMON = {
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 512,
    "max_window_layers": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
}

# And what one family adds: the keys that its released checkpoints have besides.
FAMILIES = {
    "qwen3_moe": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "attention_bias": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
        "output_router_logits": False,
        "rope_scaling": None,
        "router_aux_loss_coef": 0.001,
    },
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "rope_scaling": None,
    },
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "sliding_window": 512},
}


def dense_sizes(vocab, hidden, layers, heads, kv_heads, dense):
    """The shape of a dense model, in the keys of config.json. Qwen2 states no head_dim."""
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": dense,
    }


def sizes(vocab, hidden, layers, heads, kv_heads, head_dim, experts, top, moe, dense):
    """The shape of a model with experts."""
    return dense_sizes(vocab, hidden, layers, heads, kv_heads, dense) | {
        "head_dim": head_dim,
        "num_experts": experts,
        "num_experts_per_tok": top,
        "moe_intermediate_size": moe,
    }


# config_style "published": config.json as the released checkpoints have it (rope_theta,
# num_experts, torch_dtype). "current": as the pinned Transformers writes it (rope_parameters,
# num_local_experts, dtype). names "expert": one tensor per expert and projection. "fused": two per
# layer.
# The prompts' lengths differ so that they end at different places in a KV page.
CONFIGS = {
    "gqa16": {
        "what": "16 query heads on one KV head",
        "dtype": "bfloat16",
        "seed": 48,
        "prompt": 64,
        "config": sizes(320, 64, 2, 16, 1, 8, 16, 4, 20, 128),
    },
    "headdim": {
        "what": "heads * head_dim (192) is not hidden_size (40); five layers do not halve",
        "dtype": "bfloat16",
        "seed": 62,
        "prompt": 71,
        "config": sizes(288, 40, 5, 12, 4, 16, 12, 3, 16, 96),
    },
    "dense": {
        "what": "dense layers by mlp_only_layers and by decoder_sparse_step; F32 weights; dense"
        " columns of four 128 blocks and one of 88",
        "dtype": "float32",
        "seed": 3,
        "prompt": 66,
        "config": sizes(256, 32, 4, 4, 2, 8, 6, 2, 24, 600)
        | {"mlp_only_layers": [1], "decoder_sparse_step": 2},
    },
    "nonorm": {
        "what": "router weights are not renormalised; F16 weights; config.json of current style",
        "dtype": "float16",
        "config_style": "current",
        "seed": 19,
        "prompt": 65,
        "config": sizes(300, 48, 3, 8, 2, 12, 8, 3, 28, 128)
        | {"norm_topk_prob": False, "rope_theta": 200000.0},
    },
    "tied": {
        "what": "tied embeddings: no lm_head tensor; vocabulary and expert columns not round",
        "dtype": "bfloat16",
        "seed": 35,
        "prompt": 67,
        "config": sizes(515, 32, 2, 4, 2, 16, 6, 2, 200, 128) | {"tie_word_embeddings": True},
    },
    "odd": {
        "what": "no size is a power of two or divides evenly; rope_theta 1e4",
        "dtype": "bfloat16",
        "seed": 6,
        "prompt": 79,
        "config": sizes(331, 72, 2, 6, 2, 24, 10, 3, 40, 104) | {"rope_theta": 10000.0},
    },
    "fused": {
        "what": "fused expert tensors; config.json of current style",
        "dtype": "bfloat16",
        "config_style": "current",
        "names": "fused",
        "seed": 3,
        "prompt": 70,
        "config": sizes(272, 48, 3, 8, 4, 8, 6, 2, 36, 128) | {"rope_theta": 50000.0},
    },
    "sharded": {
        "what": "several shards and an index, as published checkpoints are",
        "dtype": "bfloat16",
        "shard": "250KB",
        "seed": 4,
        "prompt": 73,
        "config": sizes(384, 32, 2, 16, 4, 8, 8, 2, 256, 128),
    },
    "qwen3": {
        "what": "Qwen3 dense; heads * head_dim (96) is not hidden_size (56); columns of one 128 block"
        " and one of 24",
        "family": "qwen3",
        "dtype": "bfloat16",
        "seed": 6,
        "prompt": 69,
        "config": dense_sizes(310, 56, 3, 6, 2, 152) | {"head_dim": 16},
    },
    "qwen3tied": {
        "what": "Qwen3 dense with tied embeddings, as the small ones are; config.json of current"
        " style",
        "family": "qwen3",
        "dtype": "float32",
        "config_style": "current",
        "seed": 17,
        "prompt": 77,
        "config": dense_sizes(261, 40, 2, 4, 4, 300)
        | {"head_dim": 20, "tie_word_embeddings": True, "rope_theta": 500000.0},
    },
    "qwen2": {
        "what": "Qwen2: biases of q, k and v, no norms of q and k, no head_dim in config.json",
        "family": "qwen2",
        "dtype": "bfloat16",
        "seed": 343,
        "prompt": 81,
        "config": dense_sizes(333, 72, 3, 6, 3, 200),
    },
    "yarn": {
        "what": "Qwen3 dense with YaRN: 64 trained positions made 256",
        "family": "qwen3",
        "dtype": "bfloat16",
        "seed": 13,
        "prompt": 150,
        "config": dense_sizes(270, 48, 3, 4, 2, 140)
        | {
            "head_dim": 32,
            "max_position_embeddings": 256,
            "rope_theta": 10000.0,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    },
}


def values(seed, name, shape, low, high):
    """Uniform float32 values for one tensor, from the seed and the tensor's name alone.

    Uniform rather than normal: its values need no logarithm or cosine, so they are the same bits
    on every machine. Seeding by name keeps a tensor the same when another is added.
    """
    rng = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    unit = rng.random(shape, dtype=np.float32)
    return np.float32(low) + unit * np.float32(high - low)


def keys_of(spec):
    """config.json of one configuration, in the keys of a published one."""
    family = spec.get("family", "qwen3_moe")
    keys = COMMON | FAMILIES[family] | {"model_type": family} | spec["config"]
    return keys | {"eos_token_id": keys["vocab_size"] - 3, "bos_token_id": keys["vocab_size"] - 4}


def module(keys):
    """The module that a config.json asks for, with the library's own first weights."""
    config = transformers.AutoConfig.for_model(**json.loads(json.dumps(keys)))
    return getattr(transformers, keys["architectures"][0])(config)


def weight(seed, name, shape):
    """One tensor of the model, scaled so that every part of the network bears on the logits.

    A matrix has a standard deviation of gain / sqrt(fan in). With the customary 0.02 the layers
    would add next to nothing to the residual stream, and an error in one would not be seen.
    """
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        # Above 1, so that attention picks positions out instead of averaging over all of them.
        return values(seed, name, shape, 0.8, 2.2)
    if name.endswith("norm.weight"):
        return values(seed, name, shape, 0.5, 1.5)
    if name.endswith("proj.bias"):
        return values(seed, name, shape, -1, 1)
    if name.endswith("embed_tokens.weight"):
        # Small beside what the layers add: otherwise a tied head just repeats its input.
        deviation = 0.4
    else:
        gain = 1.0
        if name.endswith("mlp.gate.weight"):
            gain = 2.0  # decisive but not one-sided
        elif name.endswith("o_proj.weight"):
            gain = 2.0
        elif "down_proj" in name:
            gain = 3.0  # silu(gate) * up shrinks what passes through
        elif name.endswith("lm_head.weight"):
            gain = 2.0
        deviation = gain / shape[-1] ** 0.5
    reach = 3**0.5 * deviation
    return values(seed, name, shape, -reach, reach)


def build(spec):
    """The module with its weights in the stored type."""
    keys = keys_of(spec)
    model = module(keys)
    tied = keys["tie_word_embeddings"]
    state = {
        name: torch.from_numpy(weight(spec["seed"], name, tuple(tensor.shape)))
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    # assign=False keeps the tie; the names left out must be the tied ones alone.
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert missing == (["lm_head.weight"] if tied else []), missing
    return keys, model.to(getattr(torch, spec["dtype"])).eval()


def save(spec, keys, model, folder):
    """Writes the checkpoint with Transformers, then config.json in the style asked for."""
    # save_original_format is the library's word for per-expert names.
    model.save_pretrained(
        folder,
        max_shard_size=spec.get("shard", "1GB"),
        save_original_format=spec.get("names", "expert") == "expert",
    )
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # the library makes them private
    if spec.get("config_style", "published") == "published":
        text = json.dumps(keys | {"torch_dtype": spec["dtype"]}, indent=2, sort_keys=True)
        (folder / "config.json").write_text(text + "\n")


def check_loaded(spec, keys, stored, loaded):
    """What was read back is what was made: every weight to the bit, every setting that matters."""
    wide = {name: tensor.float() for name, tensor in stored.state_dict().items()}
    back = loaded.state_dict()
    assert wide.keys() == back.keys()
    for name, tensor in wide.items():
        assert torch.equal(tensor, back[name]), name
    config = loaded.config
    assert config.rope_parameters["rope_theta"] == keys["rope_theta"]
    rope = keys.get("rope_scaling") or {"rope_type": "default"}
    for key, value in rope.items():
        assert config.rope_parameters[key] == value, key
    for key in set(spec["config"]) - {"rope_theta", "rope_scaling"}:
        assert getattr(config, key) == keys[key], key


def check_fused(spec, keys, model, folder):
    """Proves the axis orders of the fused tensors that PROVENANCE.md states.

    First by arithmetic, on the tensors as they lie in the file, against the module's own experts;
    then against the same weights saved one tensor per expert, which must give the same logits.
    """
    experts, top = keys["num_experts"], keys["num_experts_per_tok"]
    hidden, inner = keys["hidden_size"], keys["moe_intermediate_size"]
    with safe_open(folder / "model.safetensors", "pt") as file:
        gate_up = file.get_tensor("model.layers.0.mlp.experts.gate_up_proj").float()
        down = file.get_tensor("model.layers.0.mlp.experts.down_proj").float()
    assert tuple(gate_up.shape) == (experts, 2 * inner, hidden)  # [expert, out, in], gate first
    assert tuple(down.shape) == (experts, hidden, inner)  # [expert, out, in]
    x = torch.from_numpy(values(spec["seed"], "check", (5, hidden), -1, 1))
    index = torch.arange(5 * top).reshape(5, top) % experts
    share = torch.from_numpy(values(spec["seed"], "share", (5, top), 0, 1))
    want = model.model.layers[0].mlp.experts(x, index, share)
    got = torch.zeros_like(want)
    for row in range(5):
        for slot in range(top):
            e = index[row, slot]
            gate = gate_up[e, :inner] @ x[row]
            up = gate_up[e, inner:] @ x[row]
            got[row] += share[row, slot] * (down[e] @ (gate / (1 + torch.exp(-gate)) * up))
    assert torch.allclose(got, want, rtol=1e-4, atol=1e-5)
    ids = list(range(20))
    with tempfile.TemporaryDirectory() as other:
        save(spec | {"names": "expert"}, keys, build(spec)[1], Path(other))
        with safe_open(Path(other) / "model.safetensors", "pt") as file:
            name = "model.layers.0.mlp.experts.1."
            for part, want in (
                ("gate_proj", gate_up[1, :inner]),
                ("up_proj", gate_up[1, inner:]),
                ("down_proj", down[1]),
            ):
                assert torch.equal(file.get_tensor(f"{name}{part}.weight").float(), want), part
        twin = reference.load(other)
    assert np.array_equal(reference.forward(model, ids)[0], reference.forward(twin, ids)[0])


def measure(spec, keys, model):
    """The golden of a loaded model: (the object of golden.json, the logits)."""
    rng = np.random.Generator(np.random.PCG64([spec["seed"], zlib.crc32(b"prompt")]))
    # The last four ids stand for special tokens and are kept out.
    prompt = rng.integers(0, keys["vocab_size"] - 4, spec["prompt"]).tolist()
    tokens, cached = reference.greedy(model, prompt, EXTRA)
    ids = prompt + tokens
    logits, gap = reference.forward(model, ids)
    rows = logits[len(prompt) - 1 : -1]
    assert rows.argmax(axis=-1).tolist() == tokens
    max_abs = float(np.abs(logits).max())
    # A model without experts routes nothing: infinite gaps, which JSON cannot say.
    margins = (
        {}
        if np.isinf(gap).all()
        else {
            "router_margin": [float(f"{g:.4g}") for g in gap],
            "min_router_margin": float(gap.min()),
        }
    )
    return {
        "prompt": prompt,
        "greedy": tokens,
        "vocab_size": keys["vocab_size"],
        "positions": len(ids),
        "logits_at": list(range(len(ids))),
        "max_abs": max_abs,
        **margins,
        "near_ties": [int(p) for p in np.flatnonzero(gap < reference.NEAR_TIE)],
        "min_greedy_lead": float(reference.lead(rows).min() / max_abs),
        # How far one pass and token-by-token decoding with a cache lie apart in the reference
        # itself: what fp32 rounding alone does, against which a tolerance can be judged.
        "cache_difference": float(np.abs(rows - cached).max() / max_abs),
        "seed": spec["seed"],
    }, logits


def good(golden):
    """Whether nothing in the golden is a close call (the module's text says why)."""
    eos = golden["vocab_size"] - 3
    return (
        golden.get("min_router_margin", ROUTER_GAP) >= ROUTER_GAP
        and golden["min_greedy_lead"] >= GREEDY_LEAD
        and len(set(golden["greedy"])) >= DISTINCT
        and eos not in golden["greedy"]
    )


def write_golden(golden, logits, folder):
    """golden.json, one key a line, and logits.f32."""
    lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in golden.items()]
    (folder / "golden.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    logits.astype("<f4").tofile(folder / "logits.f32")


def make(name, out):
    """One configuration, whole. Returns its golden."""
    spec = CONFIGS[name]
    folder = Path(out) / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    keys, stored = build(spec)
    save(spec, keys, stored, folder)
    # From here on only what lies on disk counts.
    model = reference.load(folder)
    check_loaded(spec, keys, stored, model)
    if spec.get("names") == "fused":
        check_fused(spec, keys, model, folder)
    golden, logits = measure(spec, keys, model)
    if not good(golden):
        raise SystemExit(f"{name}: close calls with seed {spec['seed']}; --search finds another")
    write_golden(golden, logits, folder)
    return golden


def search(name):
    """The first seed that is good. By way of the disk, as the golden itself is measured: casting a
    module to bf16 and back in memory would also round its rotary frequencies."""
    for seed in range(1, 10000):
        spec = CONFIGS[name] | {"seed": seed}
        keys, stored = build(spec)
        with tempfile.TemporaryDirectory() as scratch:
            save(spec, keys, stored, Path(scratch))
            golden, _ = measure(spec, keys, reference.load(scratch))
        if good(golden):
            return golden
    raise SystemExit(f"{name}: no good seed")


def report(name, golden):
    print(
        f"{name:8} seed {golden['seed']:5}  max |logit| {golden['max_abs']:7.3f}"
        f"  smallest router gap {golden.get('min_router_margin', float('inf')):.2e}"
        f"  greedy lead {golden['min_greedy_lead']:.2e}"
        f"  cache difference {golden['cache_difference']:.1e}"
        f"  distinct tokens {len(set(golden['greedy'])):2}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--search", action="store_true", help="find seeds, write nothing")
    parser.add_argument("arguments", nargs="+", metavar="OUT [NAME...]")
    args = parser.parse_args()
    out, names = (None, args.arguments) if args.search else (args.arguments[0], args.arguments[1:])
    for name in names or CONFIGS:
        report(name, search(name) if args.search else make(name, out))


if __name__ == "__main__":
    main()
