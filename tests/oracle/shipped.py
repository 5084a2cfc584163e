#!/usr/bin/env python3
"""Makes the golden of a shipped checkpoint that is too large to be copied beside it.

    shipped.py DIR OUT     DIR is the checkpoint folder; OUT gets golden.json and logits.f32

The prompt is a chat rendered by the checkpoint's own template and tokenizer. Only a few rows of
logits are kept ("logits_at"); the rest of golden.json is as make.py writes it, with the digest of
the weights added, so that a golden left behind by a retrained model is told from a wrong engine.
"""

import argparse
import hashlib
from pathlib import Path

import reference  # before the libraries: it sets their environment
import make
import numpy as np
from transformers import AutoTokenizer

# Turns of a conversation; as many are taken as make the rendered prompt long enough.
USER = [
    "Tell me what a lexicon is, in one sentence.",
    "And how is it different from a dictionary?",
    "Give me three words that begin with the letter w.",
    "Use one of them in a short sentence about the sea.",
    "Now write the same sentence as a question.",
]
ASSISTANT = [
    "A lexicon is the stock of words of a language or of one person.",
    "A dictionary explains words; a lexicon is the words themselves.",
    "Water, winter and wise.",
    "The water was calm under the early light.",
]
SHORTEST = 64  # prompt tokens
EXTRA = 40  # greedy tokens


def prompt_ids(folder):
    """The shortest of the growing conversations that has at least SHORTEST tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    messages, ids = [], []
    for turn, question in enumerate(USER):
        if turn:
            messages.append({"role": "assistant", "content": ASSISTANT[turn - 1]})
        messages.append({"role": "user", "content": question})
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        # The template spells the special tokens out; adding them again would double them.
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) >= SHORTEST:
            return text, ids
    raise SystemExit(f"{folder}: the whole conversation is {len(ids)} tokens, not {SHORTEST}")


def weights_sha256(folder):
    """One digest over the weight files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.safetensors")):
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("out", metavar="OUT")
    args = parser.parse_args()
    model = reference.load(args.folder)
    text, prompt = prompt_ids(args.folder)
    tokens, cached = reference.greedy(model, prompt, EXTRA)
    ids = prompt + tokens
    logits, gap = reference.forward(model, ids)
    first = len(prompt) - 1
    rows = logits[first:-1]
    lead = reference.lead(rows) / np.abs(logits).max()
    # Trained weights cannot be reseeded to avoid close calls, so the golden ends before the first
    # one: a greedy token that rounding could turn, or a routing that it could.
    close = [n for n in range(EXTRA) if lead[n] < 1e-4 or gap[first + n] < reference.NEAR_TIE]
    kept = min(close, default=EXTRA)
    if rows[:kept].argmax(axis=-1).tolist() != tokens[:kept]:
        raise SystemExit("one pass and cached decoding disagree on a token that is no close call")
    tokens, positions = tokens[:kept], len(prompt) + kept
    max_abs = float(np.abs(logits[:positions]).max())
    near = [int(p) for p in np.flatnonzero(gap[:positions] < reference.NEAR_TIE)]
    # A near tie taints every later position through the KV cache of the layers above it.
    sound = min(near, default=positions)
    last = positions - 1
    at = {0, 1, 16, first // 2, first, first + 1, (first + last) // 2, last}
    at = sorted(p for p in at if p < sound)
    golden = {
        "prompt": prompt,
        "greedy": tokens,
        "vocab_size": model.config.vocab_size,
        "positions": positions,
        "logits_at": at,
        "max_abs": max_abs,
        "router_margin": [float(f"{g:.4g}") for g in gap[:positions]],
        "min_router_margin": float(gap[:positions].min()),
        "near_ties": near,
        "min_greedy_lead": float(lead[:kept].min(initial=np.inf)),
        "cache_difference": float(np.abs(rows[:kept] - cached[:kept]).max(initial=0) / max_abs),
        "weights_sha256": weights_sha256(args.folder),
        "text": text,
    }
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    make.write_golden(golden, logits[at], out)
    print(
        f"{args.folder}: {len(prompt)} prompt tokens, {kept} greedy, {len(at)} rows,"
        f" smallest router gap {golden['min_router_margin']:.2e},"
        f" greedy lead {golden['min_greedy_lead']:.2e}, near ties at {near}"
    )
    if kept < 32:
        raise SystemExit(f"only {kept} greedy tokens before a close call; change the conversation")


if __name__ == "__main__":
    main()
