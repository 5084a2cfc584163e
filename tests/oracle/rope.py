#!/usr/bin/env python3
"""RoPE's inverse frequencies and attention factors by Hugging Face Transformers.

    rope.py OUT              write OUT
    rope.py --check GOLDEN   compute again and compare with GOLDEN

One object of {"NAME": {"config", "frequencies", "scale"}}: `config` is a whole config.json, the
frequencies are float32 values. The numbers are those of released models, with the YaRN that their
model cards tell people to add, and some that turn every knob.
"""

import json
import sys
from pathlib import Path

import make  # before the libraries: what it imports sets their environment
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

NEAR = 1e-6  # relative: another processor's power may differ in the last bit


def yarn(factor, original, **more):
    """A rope_scaling of type yarn."""
    stated = {"factor": factor, "original_max_position_embeddings": original}
    return {"rope_scaling": {"rope_type": "yarn"} | stated | more}


CASES = {
    "qwen3-8b": ("qwen3", 128, 40960, 1e6, {}),
    "qwen3-8b-yarn": ("qwen3", 128, 40960, 1e6, yarn(4.0, 32768)),
    "qwen3-30b-a3b-yarn": ("qwen3_moe", 128, 40960, 1e6, yarn(4.0, 32768)),
    "qwen3-coder-480b-yarn": ("qwen3_moe", 128, 262144, 1e7, yarn(4.0, 262144)),
    "qwen2.5-7b-yarn": ("qwen2", 128, 32768, 1e6, yarn(4.0, 32768)),
    "factor-not-whole": ("qwen3", 64, 4096, 5e5, yarn(2.5, 4096)),
    "attention-factor": ("qwen3", 64, 4096, 1e4, yarn(8, 512, attention_factor=0.75)),
    "betas": ("qwen3", 96, 4096, 1e4, yarn(8, 512, beta_fast=64, beta_slow=0.5)),
    "mscales": ("qwen3", 32, 4096, 1e4, yarn(8, 512, mscale=0.7, mscale_all_dim=1.3)),
    "one-mscale": ("qwen3", 32, 4096, 1e4, yarn(8, 512, mscale=0.7)),
    "not-truncated": ("qwen3", 80, 4096, 1e4, yarn(4, 1024, truncate=False)),
    "no-ramp": ("qwen3", 16, 4096, 1e4, yarn(4, 8, beta_fast=2, beta_slow=2)),
    "factor-one": ("qwen3", 16, 4096, 1e4, yarn(1, 1024)),
}


def case(family, head_dim, positions, theta, scaling):
    """One entry of the golden."""
    size = make.dense_sizes(256, 4 * head_dim, 1, 4, 2, 128)
    if family == "qwen3_moe":
        size = make.sizes(256, 4 * head_dim, 1, 4, 2, head_dim, 4, 2, 128, 128)
    more = {"max_position_embeddings": positions, "rope_theta": theta, "head_dim": head_dim}
    keys = make.keys_of({"family": family, "config": size | more | scaling})
    config = transformers.AutoConfig.for_model(**json.loads(json.dumps(keys)))
    if scaling:
        frequencies, scale = ROPE_INIT_FUNCTIONS["yarn"](config)
    else:
        frequencies, scale = Qwen3RotaryEmbedding.compute_default_rope_parameters(config)
    return {"config": keys, "frequencies": frequencies.tolist(), "scale": scale}


def check(golden, again):
    """Names of the cases in which two goldens differ."""
    wrong = set(golden) ^ set(again)
    for name in set(golden) & set(again):
        old, new = golden[name], again[name]
        pairs = list(zip(old["frequencies"], new["frequencies"], strict=True))
        pairs.append((old["scale"], new["scale"]))
        if old["config"] != new["config"] or any(abs(a - b) > NEAR * abs(a) for a, b in pairs):
            wrong.add(name)
    return sorted(wrong)


def main():
    again = {name: case(*numbers) for name, numbers in CASES.items()}
    if len(sys.argv) == 3 and sys.argv[1] == "--check":
        wrong = check(json.loads(Path(sys.argv[2]).read_text()), again)
        print(f"FAIL {sys.argv[2]}: {', '.join(wrong)}" if wrong else f"ok   {sys.argv[2]}")
        return 1 if wrong else 0
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    lines = [f"  {json.dumps(k)}: {json.dumps(v, sort_keys=True)}" for k, v in again.items()]
    Path(sys.argv[1]).write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
