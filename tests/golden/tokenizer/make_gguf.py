#!/usr/bin/env python3
"""Writes gguf/tokenizer.gguf from tokenizer.json: see PROVENANCE.md.

python3 make_gguf.py, with the package gguf (0.19.0 made the committed file).
"""
import json
import pathlib

import gguf
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
PADDING = 7  # rows of the embedding behind the last token
TEMPLATE = "{{ messages }} ünknown " * 20


def main():
    data = json.loads((HERE / "tokenizer.json").read_text())
    tokens = dict(data["model"]["vocab"])
    types = dict.fromkeys(tokens.values(), gguf.TokenType.NORMAL)
    for token in data["added_tokens"]:
        tokens[token["content"]] = token["id"]
        types[token["id"]] = (
            gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED)
    texts = [text for text, _ in sorted(tokens.items(), key=lambda t: t[1])]
    rows = len(texts) + PADDING
    texts += [f"[PAD{i}]" for i in range(len(texts), rows)]
    types |= dict.fromkeys(range(len(types), rows), gguf.TokenType.UNUSED)

    w = gguf.GGUFWriter(HERE / "gguf" / "tokenizer.gguf", "qwen3moe")
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(texts)
    w.add_token_types([int(types[i]) for i in range(rows)])
    gguf.SpecialVocab(HERE, load_merges=True).add_to_gguf(w)
    w.add_eos_token_id(tokens["<|im_end|>"])
    w.add_pad_token_id(tokens["<|endoftext|>"])
    w.add_add_bos_token(False)
    w.add_chat_template(TEMPLATE)
    w.add_tensor("token_embd.weight", np.zeros((rows, 1), np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


main()
