"""What Hugging Face Transformers says about a checkpoint: fp32 logits, router gaps, greedy tokens.

Every figure of the oracle comes through here, so that the committed goldens, the regenerated ones
and the live comparison cannot differ in how the reference was run.
"""

import json
import os
from pathlib import Path

# A folder on disk is all that is ever loaded; a typing error in its name must not become a
# look-up on the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import torch
import transformers

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
# One thread: the order of the additions, hence the last bit, does not follow the machine's cores.
torch.set_num_threads(1)
torch.set_grad_enabled(False)

# A router gap below this is within reach of fp32 rounding: which expert is taken may then
# legitimately differ between two correct programs, and the logits with it.
NEAR_TIE = 1e-5


def unquantising(folder):
    """What Transformers must be told to read a quantised folder by itself, as fp32: FP8 and GGUF."""
    folder = Path(folder)
    if (folder / "model.gguf").exists():
        # Of a GGUF's metadata it leaves out how wide an expert is; config.json beside it says so.
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        return {"gguf_file": "model.gguf", "config": config}
    config = json.loads((folder / "config.json").read_text())
    if config.get("quantization_config", {}).get("quant_method") == "fp8":
        return {"quantization_config": transformers.FineGrainedFP8Config(dequantize=True)}
    return {}


def load(folder):
    """The model of a checkpoint folder, its weights widened to fp32, attention and experts plain.

    Refuses a folder whose tensors do not match the module one to one, because Transformers would
    otherwise fill the missing ones with random values and go on.
    """
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        local_files_only=True,
        output_loading_info=True,
        **unquantising(folder),
    )
    wrong = {k: v for k, v in info.items() if v}
    if wrong:
        raise SystemExit(f"{folder}: tensors do not match the model: {wrong}")
    for parameter in model.parameters():  # beside FP8 the plain ones come in bf16
        parameter.data = parameter.data.float()
    return model.eval()


def forward(model, ids):
    """One pass over ids, no cache. Returns (logits [n, vocab] float32, router gap [n] float64).

    The gap of a position is the smallest, over the MoE layers, of (p_k - p_k+1) / p_k, where p is
    the router's softmax in descending order and k the number of experts taken. It is infinite when
    every expert is taken or no layer has experts.
    """
    gap = np.full(len(ids), np.inf)
    k = getattr(model.config, "num_experts_per_tok", 0)

    def watch(_module, _inputs, output):
        # The router's logits come first; widening them costs nothing and keeps the gap itself
        # free of rounding.
        p = torch.softmax(output[0].double(), dim=-1).sort(dim=-1, descending=True).values
        if p.shape[-1] > k:
            here = ((p[:, k - 1] - p[:, k]) / p[:, k - 1]).numpy()
            np.minimum(gap, here, out=gap)

    hooks = [
        layer.mlp.gate.register_forward_hook(watch)
        for layer in model.model.layers
        if hasattr(layer.mlp, "gate")
    ]
    try:
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        for hook in hooks:
            hook.remove()
    return logits.numpy().astype("<f4"), gap


def greedy(model, prompt, count):
    """count greedy tokens after prompt, with the KV cache. An end token does not stop it.

    Returns (tokens, logits of the rows they were taken from).
    """
    step = torch.tensor([prompt])
    cache = None
    tokens, rows = [], []
    for _ in range(count):
        out = model(step, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        rows.append(out.logits[0, -1].numpy())
        tokens.append(int(rows[-1].argmax()))
        step = torch.tensor([[tokens[-1]]])
    return tokens, np.stack(rows)


def lead(rows):
    """For each row of logits, how far the best is ahead of the second."""
    best = np.partition(rows, -2, axis=-1)[:, -2:]
    return best[:, 1].astype(np.float64) - best[:, 0]
