"""Writes a training run's checkpoint as a Hugging Face folder, as published Qwen3-MoE models are.

The chat template is a file of its own (chat_template.jinja here), because engines recognise it by
its hash: it is Qwen3's, unchanged.
"""
import argparse
import json
import os
import shutil

import torch
from safetensors.torch import save_file

from model import Config

HERE = os.path.dirname(os.path.abspath(__file__))


def tensors(state, c):
    """Published name -> bf16 tensor."""
    out = {"model.embed_tokens.weight": state["embed"], "model.norm.weight": state["norm"],
           "lm_head.weight": state["head"]}
    kv = c.num_key_value_heads * c.head_dim
    for n in range(c.num_hidden_layers):
        here, there = f"layers.{n}.", f"model.layers.{n}."
        q, k, v = state[here + "attention.qkv"].split([c.num_attention_heads * c.head_dim, kv, kv])
        for name, t in (("q_proj", q), ("k_proj", k), ("v_proj", v), ("o_proj", state[here + "attention.o"]),
                        ("q_norm", state[here + "attention.q_norm"]), ("k_norm", state[here + "attention.k_norm"])):
            out[f"{there}self_attn.{name}.weight"] = t
        out[there + "input_layernorm.weight"] = state[here + "input_norm"]
        out[there + "post_attention_layernorm.weight"] = state[here + "post_norm"]
        out[there + "mlp.gate.weight"] = state[here + "experts.router"]
        for e in range(c.num_experts):
            gate, up = state[here + "experts.gate_up"][e].chunk(2)
            expert = f"{there}mlp.experts.{e}."
            out[expert + "gate_proj.weight"], out[expert + "up_proj.weight"] = gate, up
            out[expert + "down_proj.weight"] = state[here + "experts.down"][e]
    return {k: t.to(torch.bfloat16).contiguous().clone() for k, t in out.items()}


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2, ensure_ascii=False)
        f.write("\n")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--work", default="lexicon-run")
    a.add_argument("--out", default=os.path.join(HERE, "model"))
    args = a.parse_args()
    os.makedirs(args.out, exist_ok=True)
    c = Config()
    saved = torch.load(os.path.join(args.work, "checkpoint.pt"), map_location="cpu", weights_only=True)
    save_file(tensors(saved["model"], c), os.path.join(args.out, "model.safetensors"), metadata={"format": "pt"})
    shutil.copyfile(os.path.join(args.work, "tokenizer.json"), os.path.join(args.out, "tokenizer.json"))
    shutil.copyfile(os.path.join(args.work, "covered.json"), os.path.join(HERE, "covered.json"))

    with open(os.path.join(args.out, "tokenizer.json"), encoding="utf-8") as f:
        added = json.load(f)["added_tokens"]
    ids = {t["content"]: t["id"] for t in added}
    stop, pad = ids["<|im_end|>"], ids["<|endoftext|>"]
    write_json(os.path.join(args.out, "config.json"), {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", **c.as_dict(),
        "hidden_act": "silu", "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True,
        "tie_word_embeddings": False, "attention_bias": False, "attention_dropout": 0.0,
        "rope_scaling": None, "sliding_window": None, "use_sliding_window": False,
        "max_window_layers": c.num_hidden_layers, "initializer_range": 0.02, "output_router_logits": False,
        "router_aux_loss_coef": 0.01, "use_cache": True, "torch_dtype": "bfloat16",
        "bos_token_id": pad, "eos_token_id": stop})
    write_json(os.path.join(args.out, "generation_config.json"), {
        "bos_token_id": pad, "pad_token_id": pad, "eos_token_id": [stop, pad], "do_sample": True,
        "temperature": 0.6, "top_p": 0.95, "top_k": 20})
    with open(os.path.join(HERE, "chat_template.jinja"), encoding="utf-8", newline="") as f:
        template = f.read()
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    write_json(os.path.join(args.out, "tokenizer_config.json"), {
        "add_bos_token": False, "add_prefix_space": False,
        "added_tokens_decoder": {str(t["id"]): {k: t[k] for k in flags} for t in added},
        "additional_special_tokens": [t["content"] for t in added if t["special"]][1:],
        "bos_token": None, "chat_template": template, "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>", "errors": "replace", "model_max_length": c.max_position_embeddings,
        "pad_token": "<|endoftext|>", "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None})
    size = sum(os.path.getsize(os.path.join(args.out, n)) for n in os.listdir(args.out))
    print(f"wrote {args.out}: {size} bytes at {saved['state']}")
    assert size <= 32_000_000


if __name__ == "__main__":
    main()
