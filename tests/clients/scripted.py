"""A model that says what a test has written down: each token follows from the one before it.

Embeddings are one-hot and the layer between adds nothing, so the weights are a table of successors. Pieces of
the script are tokens of their own, added to the shipped model's tokenizer; its chat template is as it is.
"""

import json
import shutil
import struct
from pathlib import Path

import server

HIDDEN = 128
HEAD = 32
INTERMEDIATE = 128
VOCAB = 3072
ONE = struct.pack("<H", 0x3F80)  # 1.0 in bf16


def matrix(rows: int, columns: int, ones=()) -> bytes:
    """All zeros but for `ones`: (row, column) and as many more ones as make its weight."""
    data = bytearray(2 * rows * columns)
    for row, column, weight in ones:
        at = 2 * (row * columns + column)
        data[at:at + 2] = struct.pack("<f", weight)[2:]
    return bytes(data)


def write_weights(path: Path, successors: list[tuple[int, int, float]]):
    """Of (token, the next, how likely)."""
    slots = {token: slot for slot, token in enumerate(dict.fromkeys(t for t, _, _ in successors))}
    assert len(slots) <= HIDDEN
    layer = "model.layers.0."
    tensors = {
        "model.embed_tokens.weight": ([VOCAB, HIDDEN], matrix(
            VOCAB, HIDDEN, [(token, slot, 1.0) for token, slot in slots.items()])),
        "lm_head.weight": ([VOCAB, HIDDEN], matrix(
            VOCAB, HIDDEN, [(after, slots[token], weight) for token, after, weight in successors])),
        layer + "self_attn.q_proj.weight": ([2 * HEAD, HIDDEN], matrix(2 * HEAD, HIDDEN)),
        layer + "self_attn.k_proj.weight": ([HEAD, HIDDEN], matrix(HEAD, HIDDEN)),
        layer + "self_attn.v_proj.weight": ([HEAD, HIDDEN], matrix(HEAD, HIDDEN)),
        layer + "self_attn.o_proj.weight": ([HIDDEN, 2 * HEAD], matrix(HIDDEN, 2 * HEAD)),
        layer + "self_attn.q_norm.weight": ([HEAD], ONE * HEAD),
        layer + "self_attn.k_norm.weight": ([HEAD], ONE * HEAD),
        layer + "mlp.gate_proj.weight": ([INTERMEDIATE, HIDDEN], matrix(INTERMEDIATE, HIDDEN)),
        layer + "mlp.up_proj.weight": ([INTERMEDIATE, HIDDEN], matrix(INTERMEDIATE, HIDDEN)),
        layer + "mlp.down_proj.weight": ([HIDDEN, INTERMEDIATE], matrix(HIDDEN, INTERMEDIATE)),
        layer + "input_layernorm.weight": ([HIDDEN], ONE * HIDDEN),
        layer + "post_attention_layernorm.weight": ([HIDDEN], ONE * HIDDEN),
        "model.norm.weight": ([HIDDEN], ONE * HIDDEN),
    }
    header, at = {}, 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(words)) + words)
        for _, data in tensors.values():
            out.write(data)


def make(folder: Path, scripts: list[list[str]]) -> list[int]:
    """A checkpoint that answers with the first script, of pieces that are no tokens yet, or where its first
    token is forbidden with the second, and so on. Returns the first tokens."""
    folder.mkdir(parents=True)
    for name in ("tokenizer_config.json", "generation_config.json"):
        shutil.copy(server.MODEL / name, folder)
    tokenizer = json.loads((server.MODEL / "tokenizer.json").read_text())
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    for piece in dict.fromkeys(piece for script in scripts for piece in script):
        if piece in ids:
            continue
        ids[piece] = max(ids.values()) + 1
        tokenizer["added_tokens"].append({
            "id": ids[piece], "content": piece, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": False})
    assert max(ids.values()) < VOCAB
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    begin = tokenizer["model"]["vocab"]["\u010a"]  # the newline that every prompt ends with
    successors, likely = [], 4.0
    for script in scripts:
        chain = [begin, *(ids[piece] for piece in script), ids["<|im_end|>"]]
        successors += [(token, after, likely) for token, after in zip(chain, chain[1:])]
        likely /= 2
    write_weights(folder / "model.safetensors", successors)
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": VOCAB,
        "hidden_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": HEAD, "intermediate_size": INTERMEDIATE,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "max_position_embeddings": 4096,
        "hidden_act": "silu", "attention_bias": False, "rope_scaling": None,
        "sliding_window": None, "use_sliding_window": False, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "eos_token_id": ids["<|im_end|>"]}))
    return [ids[script[0]] for script in scripts]
