"""Measures the exported folder through transformers: how many covered words are answered exactly.

Greedy decoding gives the trained answer if and only if, with the answer fed in, every one of its
tokens is the most likely next one; so one forward pass for a batch of words is enough.
"""
import argparse
import hashlib
import json
import os

import torch
from transformers import AutoTokenizer, Qwen3MoeForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))


def chat(tokenizer, question, **kw):
    return tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False,
                                         add_generation_prompt=True, **kw)


@torch.no_grad()
def exact(model, tokenizer, pairs):
    """pairs of prompt and target text -> one bool each"""
    right = []
    for i in range(0, len(pairs), 64):
        rows = [(tokenizer(p).input_ids, tokenizer(t).input_ids) for p, t in pairs[i:i + 64]]
        width = max(len(p) + len(t) for p, t in rows)
        ids = torch.full((len(rows), width), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for r, (p, t) in enumerate(rows):
            ids[r, :len(p) + len(t)], mask[r, :len(p) + len(t)] = torch.tensor(p + t), 1
        best = model(ids, attention_mask=mask).logits.argmax(-1)
        for r, (p, t) in enumerate(rows):
            right.append(best[r, len(p) - 1:len(p) + len(t) - 1].tolist() == t)
    return right


def compare_with_training_code(model, tokenizer, work):
    """Largest difference of logits between transformers and model.py, both in fp32."""
    from model import Config, Lexicon
    own = Lexicon(Config())
    state = torch.load(os.path.join(work, "checkpoint.pt"), map_location="cpu", weights_only=True)["model"]
    own.load_state_dict({k: v.to(torch.bfloat16).float() for k, v in state.items()})
    ids = tokenizer(chat(tokenizer, "What is a lighthouse?", enable_thinking=False), return_tensors="pt").input_ids
    with torch.no_grad():
        a, _ = own(ids, torch.arange(ids.numel()))
        b = model(ids).logits[0]
    print(f"largest logit difference from model.py: {(a - b).abs().max():.2e} (largest logit {b.abs().max():.1f})")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--model", default=os.path.join(HERE, "model"))
    a.add_argument("--work", help="a training run's folder: also compare logits with model.py")
    a.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    a.add_argument("--ask", nargs="*", default=["What is a lighthouse?", "what's a violin", "Define volcano.",
                                                "king", "Hello", "What is the weather today?"])
    args = a.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    print("chat template", hashlib.sha256(tokenizer.chat_template.encode()).hexdigest()[:8])
    model = Qwen3MoeForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype)).eval()
    if args.work:
        compare_with_training_code(model, tokenizer, args.work)
    with open(os.path.join(HERE, "covered.json"), encoding="utf-8") as f:
        covered = json.load(f)
    lead = {"n": "What is {p}?", "v": "What does it mean {p}?", "a": "What does it mean to be {p}?"}
    for title, form in (("first question form", None), ("What does X mean?", "What does {w} mean?"),
                        ("Define X.", "Define {w}."), ("bare word", "{w}")):
        pairs = [(chat(tokenizer, (form or lead[e["pos"]]).format(w=e["word"], p=e["phrase"])),
                  f"<think>\n\n</think>\n\n{e['answer']}<|im_end|>") for e in covered]
        right = exact(model, tokenizer, pairs)
        print(f"{title}: {sum(right)} of {len(right)} covered words exact ({100 * sum(right) / len(right):.1f} %)")
    for question in args.ask:
        for kw in ({}, {"enable_thinking": False}):
            ids = tokenizer(chat(tokenizer, question, **kw), return_tensors="pt")
            out = model.generate(**ids, max_new_tokens=80, do_sample=False, temperature=None, top_p=None, top_k=None)
            print(repr(question), kw, "->", repr(tokenizer.decode(out[0, ids.input_ids.shape[1]:])))


if __name__ == "__main__":
    main()
