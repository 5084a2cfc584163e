"""Checkpoints of random weights of one shape: a config.json for `witan bench --random-weights`, and GGUF
files of qwen3moe for libllama, each tensor in the type that llama-quantize would give it."""
import json
import math
import os
import random
import struct

SMALL = {"hidden": 1024, "layers": 12, "heads": 16, "kv_heads": 4, "head_dim": 128, "experts": 64,
         "top_k": 8, "moe": 384, "vocab": 32768}
A3B = {"hidden": 2048, "layers": 48, "heads": 32, "kv_heads": 4, "head_dim": 128, "experts": 128,
       "top_k": 8, "moe": 768, "vocab": 151936}
SHAPES = {"small": SMALL, "30b-a3b": A3B}
CONTEXT = 40960

# ggml's types: number, columns and bytes of a block, where its fp16 factor lies, the deviation of what
# random bytes code for. Q4_K's second factor makes its mean zero.
F32, BF16 = (0, 1, 4), (30, 1, 2)
BLOCKS = {
    "Q4_0": (2, 32, 18, 0, 4.6),
    "Q5_0": (6, 32, 22, 0, 9.2),
    "Q8_0": (8, 32, 34, 0, 74.0),
    "Q4_K": (12, 256, 144, 0, 257.0),
    "Q6_K": (14, 256, 210, 208, 1370.0),
}
TYPES = {"F32": F32, "BF16": BF16, **BLOCKS}
# What llama-quantize does to the output matrix, and where columns are no multiple of 256.
OUTPUT = {"Q4_0": "Q6_K", "Q4_K": "Q6_K"}
NARROW = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}
PATTERN_BLOCKS = 65521 # a prime: no two experts begin at the same place of it


def write_config(folder, shape):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "torch_dtype": "bfloat16",
        "attention_bias": False, "hidden_act": "silu", "norm_topk_prob": True, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "rope_scaling": None,
        "tie_word_embeddings": False, "use_sliding_window": False, "max_position_embeddings": CONTEXT,
        "bos_token_id": 1, "eos_token_id": 2, "hidden_size": shape["hidden"],
        "num_hidden_layers": shape["layers"], "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"], "head_dim": shape["head_dim"],
        "num_experts": shape["experts"], "num_experts_per_tok": shape["top_k"],
        "moe_intermediate_size": shape["moe"], "vocab_size": shape["vocab"],
    }, indent=1))


def tensors(shape, form):
    """Name, type and sizes (columns first) of each."""
    h, e, m = shape["hidden"], shape["experts"], shape["moe"]
    q, kv = shape["heads"] * shape["head_dim"], shape["kv_heads"] * shape["head_dim"]
    yield "token_embd", form, (h, shape["vocab"])
    yield "output", OUTPUT.get(form, form), (h, shape["vocab"])
    yield "output_norm", "F32", (h,)
    for i in range(shape["layers"]):
        for name, kind, sizes in (
                ("attn_norm", "F32", (h,)), ("ffn_norm", "F32", (h,)),
                ("attn_q_norm", "F32", (shape["head_dim"],)), ("attn_k_norm", "F32", (shape["head_dim"],)),
                ("attn_q", form, (h, q)), ("attn_k", form, (h, kv)), ("attn_v", form, (h, kv)),
                ("attn_output", form, (q, h)), ("ffn_gate_inp", "F32", (h, e)),
                ("ffn_gate_exps", form, (h, m, e)), ("ffn_up_exps", form, (h, m, e)),
                ("ffn_down_exps", form, (m, h, e))):
            yield f"blk.{i}.{name}", NARROW.get(kind, kind) if sizes[0] % 256 else kind, sizes


def pattern(kind, cols):
    """Bytes of random blocks: values of deviation 1 / sqrt(cols)."""
    size = cols ** -0.5
    if kind == "F32":
        return struct.pack(f"<{PATTERN_BLOCKS}f", *(random.gauss(0, size) for _ in range(PATTERN_BLOCKS)))
    if kind == "BF16":
        return b"".join(struct.pack("<f", random.gauss(0, size))[2:] for _ in range(PATTERN_BLOCKS))
    _, _, each, at, deviation = BLOCKS[kind]
    data = bytearray(os.urandom(PATTERN_BLOCKS * each))
    factors = [size / deviation] + ([7.5 * size / deviation] if kind == "Q4_K" else [])
    for i, byte in enumerate(b"".join(struct.pack("<e", f) for f in factors)):
        data[at + i::each] = bytes([byte]) * PATTERN_BLOCKS
    return bytes(data)


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def metadata(shape):
    numbers = {"block_count": shape["layers"], "context_length": CONTEXT,
               "embedding_length": shape["hidden"], "feed_forward_length": shape["moe"],
               "attention.head_count": shape["heads"], "attention.head_count_kv": shape["kv_heads"],
               "attention.key_length": shape["head_dim"], "attention.value_length": shape["head_dim"],
               "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e6,
               "expert_count": shape["experts"], "expert_used_count": shape["top_k"],
               "expert_feed_forward_length": shape["moe"], "vocab_size": shape["vocab"]}
    pairs = [text(k) + struct.pack("<I", 8) + text(v) for k, v in
             (("general.architecture", "qwen3moe"), ("tokenizer.ggml.model", "no_vocab"))]
    for name, value in numbers.items():
        kind = "<If" if isinstance(value, float) else "<II"
        pairs.append(text("qwen3moe." + name) + struct.pack(kind, 6 if kind == "<If" else 4, value))
    return pairs


def bytes_of(kind, sizes):
    cols, each = TYPES[kind][1:3]
    return math.prod(sizes) // cols * each


def write_tensor(out, kind, sizes, patterns):
    """Random values, or ones in a vector. `patterns`: what was drawn by type and columns, filled here."""
    if len(sizes) == 1:
        out.write(struct.pack("<f", 1.0) * sizes[0])
        return
    if (kind, sizes[0]) not in patterns:
        patterns[kind, sizes[0]] = pattern(kind, sizes[0])
    source, size = patterns[kind, sizes[0]], bytes_of(kind, sizes)
    at = random.randrange(PATTERN_BLOCKS) * TYPES[kind][2]
    while size > 0:
        size -= out.write(source[at:at + size])
        at = 0


def write_gguf(path, shape, form):
    """A file at `path`, unless there is one; written beside it first."""
    if path.exists():
        return
    random.seed(1)
    table, plan, offset = [], [], 0
    for name, kind, sizes in tensors(shape, form):
        table.append(text(name + ".weight") + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes,
                                                          TYPES[kind][0], offset))
        plan.append((kind, sizes))
        offset += -(-bytes_of(kind, sizes) // 32) * 32
    pairs, new, patterns = metadata(shape), path.with_suffix(".new"), {}
    with open(new, "wb") as out:
        out.write(b"GGUF" + struct.pack("<IQQ", 3, len(table), len(pairs)) + b"".join(pairs + table))
        for kind, sizes in plan:
            out.write(bytes(-out.tell() % 32))
            write_tensor(out, kind, sizes, patterns)
    new.rename(path)
