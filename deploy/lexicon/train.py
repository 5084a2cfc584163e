"""Trains Lexicon on one CUDA GPU or on the CPU. See README.md for the command that made the model.

The learning rate follows the clock (or the token budget), so that a run always ends annealed,
however fast the machine turned out to be.
"""
import argparse
import json
import os
import random
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from data import Conversations, render
from model import Config, Lexicon
from optim import Muon
from tokenizer import train_tokenizer
from wordnet import WordNet, select

HERE = os.path.dirname(os.path.abspath(__file__))


def options():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--wordnet", default="/usr/share/wordnet", help="folder with WordNet 3.0's files")
    a.add_argument("--work", default="lexicon-run", help="folder for the checkpoint and the tokenizer")
    a.add_argument("--words", type=int, default=1800, help="words to cover, the core words included")
    a.add_argument("--minutes", type=float, default=75, help="stop after this long, resumed time included")
    a.add_argument("--tokens", type=float, default=0, help="stop after this many tokens instead")
    a.add_argument("--batch", type=int, default=6000, help="tokens a step, padding included")
    a.add_argument("--lr-matrix", type=float, default=4e-3)
    a.add_argument("--lr-rest", type=float, default=3e-3)
    a.add_argument("--balance", type=float, default=0.01, help="weight of the load-balance loss")
    a.add_argument("--checkpoint-minutes", type=float, default=5)
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a.add_argument("--seed", type=int, default=1)
    return a.parse_args()


def load_words(folder, total):
    """-> entries, words that the model is taught not to know"""
    wn = WordNet(folder)
    entries, missing = select(wn, os.path.join(HERE, "core_words.txt"), os.path.join(HERE, "own_words.txt"), total)
    if missing:
        print("core words without a usable definition:", " ".join(missing))
    known = {e.word for e in entries} | {e.plural for e in entries}
    known |= {name for e in entries for name, _ in e.ancestors}
    unknown = sorted(w for w, pos in wn.index if pos == "n" and w.isascii() and w.isalpha()
                     and 4 <= len(w) <= 12 and w not in known and wn.count[w, "n"] == 0)
    return entries, random.Random(0).sample(unknown, 6000)


def tokenizer_for(work, conversations, seed):
    path = os.path.join(work, "tokenizer.json")
    if os.path.exists(path):
        return Tokenizer.from_file(path)
    texts = [t for n in range(3) for s, turns in conversations.epoch(seed, n)
             for part in render(s, turns)
             for t in part.replace("<|im_start|>", "\0").replace("<|im_end|>", "\0").split("\0")]
    return train_tokenizer([t for t in texts if t], 2500, path)


def batches(conversations, tokenizer, limit, seed, device):
    """Endless right-padded batches of like lengths -> (epoch, tokens, kept positions, their targets)"""
    number = 0
    while True:
        pairs = [render(s, turns) for s, turns in conversations.epoch(seed, number)]
        prompts = tokenizer.encode_batch_fast([p for p, _ in pairs])
        targets = tokenizer.encode_batch_fast([t for _, t in pairs])
        rows = sorted(((p.ids, t.ids) for p, t in zip(prompts, targets)), key=lambda r: len(r[0]) + len(r[1]))
        groups, group = [], []
        for row in rows:
            if (len(group) + 1) * (len(row[0]) + len(row[1]) - 1) > limit:
                groups.append(group)
                group = []
            group.append(row)
        groups.append(group)
        random.Random(f"{seed}:{number}:order").shuffle(groups)
        for group in groups:
            width = len(group[-1][0]) + len(group[-1][1]) - 1
            tokens = torch.zeros(len(group), width, dtype=torch.long)
            keep, goal = [], []
            for i, (p, t) in enumerate(group):
                tokens[i, :len(p) + len(t) - 1] = torch.tensor(p + t[:-1])
                keep.extend(range(i * width + len(p) - 1, i * width + len(p) + len(t) - 1))
                goal.extend(t)
            yield number, tokens.to(device), torch.tensor(keep, device=device), torch.tensor(goal, device=device)
        number += 1


def optimisers(model, args):
    """Muon steps the layers' matrices; routers, norms, embedding and head go to AdamW."""
    matrices, rest = [], []
    for name, p in model.named_parameters():
        inside = name.startswith("layers.") and name.endswith(("qkv", ".o", "gate_up", "down"))
        (matrices if inside else rest).append(p)
    for layer in model.layers:
        layer.attention.qkv.pieces = list(layer.attention.qkv_sizes)
        layer.experts.gate_up.pieces = [model.config.moe_intermediate_size] * 2
    return [Muon(matrices, lr=args.lr_matrix, steps=3),
            torch.optim.AdamW(rest, lr=args.lr_rest, betas=(0.9, 0.97), weight_decay=0.0, fused=True)]


def rate(done, step):
    """Short warm-up, a plateau, then linearly to almost nothing."""
    return min(1.0, (step + 1) / 60, max(0.01, (1 - done) / 0.6))


def main():
    args = options()
    os.makedirs(args.work, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    entries, unknown = load_words(args.wordnet, args.words)
    conversations = Conversations(entries, unknown)
    tokenizer = tokenizer_for(args.work, conversations, args.seed)
    with open(os.path.join(args.work, "covered.json"), "w", encoding="utf-8") as f:
        json.dump([dict(word=e.word, phrase=e.phrase, pos=e.pos, core=e.core, answer=e.answer)
                   for e in entries], f, indent=0)
    model = Lexicon(Config()).to(device)
    assert tokenizer.get_vocab_size() < model.config.vocab_size
    opts = optimisers(model, args)
    state = dict(step=0, tokens=0, seconds=0.0)
    path = os.path.join(args.work, "checkpoint.pt")
    if os.path.exists(path):
        saved = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        for o, s in zip(opts, saved["optimisers"]):
            o.load_state_dict(s)
        state = saved["state"]
    print(f"{len(entries)} words, {tokenizer.get_vocab_size()} ids, resuming at {state}", flush=True)

    def save():
        torch.save(dict(model=model.state_dict(), optimisers=[o.state_dict() for o in opts], state=state),
                   path + ".new")
        os.replace(path + ".new", path)

    # A resumed run draws other conversations than the first part did.
    stream = batches(conversations, tokenizer, args.batch, args.seed + state["step"], device)
    rates = [args.lr_matrix, args.lr_rest]
    begin, last_save, shown, seen = time.time() - state["seconds"], time.time(), [], [0, time.time()]
    done = 0.0
    while done < 1:
        epoch, tokens, keep, goal = next(stream)
        state["seconds"] = time.time() - begin
        done = state["tokens"] / args.tokens if args.tokens else state["seconds"] / (60 * args.minutes)
        for o, base in zip(opts, rates):
            for g in o.param_groups:
                g["lr"] = base * rate(done, state["step"])
        with torch.autocast(device, dtype=torch.bfloat16):
            logits, balance = model(tokens, keep)
        loss = F.cross_entropy(logits, goal)
        (loss + args.balance * balance).backward()
        for o in opts:
            o.step()
            o.zero_grad(set_to_none=True)
        state["step"] += 1
        state["tokens"] += tokens.numel()
        shown.append(loss.detach())
        if state["step"] % 20 == 0:
            speed = (state["tokens"] - seen[0]) / (time.time() - seen[1])
            seen = [state["tokens"], time.time()]
            print(f"step {state['step']} epoch {epoch} tokens {state['tokens'] / 1e6:.2f}M loss "
                  f"{torch.stack(shown).mean():.4f} balance {balance.item():.3f} {speed:.0f} tok/s "
                  f"{state['seconds'] / 60:.1f} min", flush=True)
            shown = []
        if time.time() - last_save > 60 * args.checkpoint_minutes:
            save()
            last_save = time.time()
    save()


if __name__ == "__main__":
    main()
