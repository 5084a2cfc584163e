#!/usr/bin/env python3
"""Holds Witan's logits, or a regenerated golden, against Hugging Face Transformers.

    compare.py WITAN DIR...               run the binary WITAN on each checkpoint folder
    compare.py --golden COMMITTED AGAIN   hold two sets made by make.py or quantised.py against
                                          each other
    compare.py --same COMMITTED AGAIN     and two made by quant.py, byte for byte

With a binary: reference logits are computed afresh in fp32 for several token sequences (the
golden's own, where the folder has one, then random ones), Witan is given the same ids on standard
input of

    witan logits DIR --all --kv f32 --out FILE

and the largest difference must not exceed 2e-4 of the largest |logit| of the sequence.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import reference

LIMIT = 2e-4  # of the largest |logit|: Witan against the reference
# What a remade golden must repeat exactly (seed: of made weights; weights_sha256: of shipped ones).
GIVEN = (
    "prompt",
    "greedy",
    "vocab_size",
    "positions",
    "logits_at",
    "near_ties",
    "seed",
    "weights_sha256",
)
SAME = 1e-5  # of the largest |logit|: a golden against its own remake, perhaps on another processor


def sequences(model, folder, count, length):
    """Token sequences and their reference logits, none with a router decision within rounding.

    A sequence with a near tie says nothing about correctness (NEAR_TIE in reference.py); it is
    drawn again and the number of those is returned, so that it can be printed.
    """
    vocab = model.config.vocab_size
    golden = Path(folder) / "golden.json"
    found, redrawn = [], 0
    if golden.exists():
        told = json.loads(golden.read_text())
        ids = told["prompt"] + told["greedy"]
        found.append((ids, reference.forward(model, ids)[0]))
    rng = np.random.Generator(np.random.PCG64(20))
    # The whole length, just past a KV page of 16, one token alone, exactly a page; then at length.
    lengths = [length, 33, 1, 16] + [length] * count
    while len(found) < count:
        ids = rng.integers(0, vocab, lengths[len(found)]).tolist()
        logits, gap = reference.forward(model, ids)
        if gap.min() >= reference.NEAR_TIE:
            found.append((ids, logits))
        elif (redrawn := redrawn + 1) > 50:
            raise SystemExit(f"{folder}: router near ties in every sequence")
    return found, redrawn


def witan_logits(witan, folder, batch, vocab):
    """Witan's logits for each sequence of the batch, in order."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "logits.f32"
        lines = "".join(json.dumps({"ids": ids}) + "\n" for ids in batch)
        command = [str(witan), "logits", str(folder), "--all", "--kv", "f32", "--out", str(out)]
        done = subprocess.run(command, check=False, input=lines, text=True, capture_output=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
        flat = np.fromfile(out, dtype="<f4") if out.exists() else np.empty(0, "<f4")
    wanted = sum(len(ids) for ids in batch) * vocab
    if flat.size != wanted:
        raise SystemExit(f"{folder}: expected {wanted} logits, found {flat.size}")
    rows = flat.reshape(-1, vocab)
    cuts = np.cumsum([len(ids) for ids in batch])[:-1]
    return np.split(rows, cuts)


def difference(got, want):
    """Largest difference over largest |reference|; infinite if a value is not a number."""
    worst = np.abs(got.astype(np.float64) - want).max() / np.abs(want).max()
    return float(worst) if np.isfinite(worst) else float("inf")


def against_witan(witan, folder, count, length, limit):
    """Compares one folder and prints its figure. True when within the limit."""
    model = reference.load(folder)
    found, redrawn = sequences(model, folder, count, length)
    got = witan_logits(witan, folder, [ids for ids, _ in found], model.config.vocab_size)
    each = [difference(mine, theirs) for mine, (_, theirs) in zip(got, found)]
    rows = sum(len(ids) for ids, _ in found)
    word = "ok" if max(each) <= limit else "FAIL"
    again = f", {redrawn} redrawn for near ties" if redrawn else ""
    print(
        f"{word:4} {folder}: {len(found)} sequences, {rows} rows{again}:"
        f" max difference {max(each):.2e} of max |logit| (limit {limit:.0e})"
    )
    return max(each) <= limit


def tensors(folder):
    """name -> (type, shape, raw little-endian bytes) of every tensor of a checkpoint folder."""
    found = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        raw = path.read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:start])
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            found[name] = (entry["dtype"], tuple(entry["shape"]), raw[start + begin : start + end])
    return found


def golden_logits(folder, told):
    return np.fromfile(folder / "logits.f32", dtype="<f4").reshape(-1, told["vocab_size"])


def same_golden(committed, again):
    """Compares a committed configuration with its remake and prints the result. True when equal."""
    for folder in (committed, again):
        if not (folder / "golden.json").exists():
            print(f"FAIL {committed.name}: not in {folder.parent}")
            return False
    faults = []
    if tensors(committed) != tensors(again):
        faults.append("weights differ")
    for name in ("config.json", "model.safetensors.index.json", "model.gguf", "values.crc"):
        both = [(f / name).read_bytes() if (f / name).exists() else b"" for f in (committed, again)]
        if both[0] != both[1]:
            faults.append(f"{name} differs")
    old, new = (json.loads((f / "golden.json").read_text()) for f in (committed, again))
    for key in GIVEN:
        if old.get(key) != new.get(key):
            faults.append(f"golden.json: {key} differs")
    old_rows, new_rows = golden_logits(committed, old), golden_logits(again, new)
    if old_rows.shape != new_rows.shape:
        faults.append("logits.f32: size differs")
    elif (worst := difference(new_rows, old_rows)) > SAME:
        faults.append(f"logits.f32: differs by {worst:.2e} of max |logit| (limit {SAME:.0e})")
    if not faults:
        print(f"ok   {committed}: weights identical, logits within {worst:.1e} of max |logit|")
    for fault in faults:
        print(f"FAIL {committed}: {fault}")
    return not faults


def same_files(committed, again):
    """Holds every file of two trees against the other, PROVENANCE.md aside. True when equal."""
    found = [
        {p.relative_to(side): p.read_bytes() for p in side.glob("**/*") if p.is_file()}
        for side in (committed, again)
    ]
    found[0].pop(Path("PROVENANCE.md"), None)
    names = sorted(found[0].keys() | found[1].keys())
    faults = [name for name in names if found[0].get(name) != found[1].get(name)]
    if names and not faults:
        print(f"ok   {committed}: {len(names)} files identical")
    for name in faults:
        print(f"FAIL {committed / name}: differs, or is on one side alone")
    return bool(names) and not faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--golden", action="store_true", help="compare COMMITTED with AGAIN")
    parser.add_argument("--same", action="store_true", help="compare the files of two trees")
    parser.add_argument("--sequences", type=int, default=4, help="token sequences a folder")
    parser.add_argument("--length", type=int, default=96, help="tokens of the longest")
    parser.add_argument("--limit", type=float, default=LIMIT)
    parser.add_argument("paths", nargs="+", metavar="PATH")
    args = parser.parse_args()
    if (args.golden or args.same) and len(args.paths) != 2:
        parser.error("--golden and --same take two folders")
    committed, again = map(Path, args.paths[:2]) if len(args.paths) >= 2 else (None, None)
    if args.same:
        results = [same_files(committed, again)]
    elif args.golden:
        # Every configuration of either side: one that is missing on the other must fail.
        names = {p.parent.name for side in (committed, again) for p in side.glob("*/golden.json")}
        results = [same_golden(committed / name, again / name) for name in sorted(names)]
    else:
        if len(args.paths) < 2:
            parser.error("takes the binary and at least one checkpoint folder")
        witan, *folders = args.paths
        results = [
            against_witan(witan, folder, args.sequences, args.length, args.limit)
            for folder in folders
        ]
    if not results:
        raise SystemExit("nothing to compare")
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
