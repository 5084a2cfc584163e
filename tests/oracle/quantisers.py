"""Simple quantisers for test checkpoints, and the readers of others that say what they made.

The quantisers round to nearest and search for nothing: what matters is that every field of a format
is used. What a block is worth is never taken from here but from the format's own reader.
"""

import importlib.util
from pathlib import Path

import gguf
import numpy as np
import torch


def load_module(path):
    """One Python file as a module, without its package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def divide(a, b):
    """a / b, and 0 where b is."""
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape, np.float32), where=b != 0)


def fp8(w, block, dtype):
    """(e4m3, factors of dtype, values): torch converts both ways."""
    rows, cols = w.shape
    wide = np.zeros((-(-rows // block) * block, -(-cols // block) * block), np.float32)
    wide[:rows, :cols] = w
    most = np.abs(wide.reshape(wide.shape[0] // block, block, -1, block)).max((1, 3))
    scale = torch.from_numpy(most / np.float32(448)).to(dtype)
    each = scale.float().repeat_interleave(block, 0).repeat_interleave(block, 1)[:rows, :cols]
    codes = (torch.from_numpy(w) / each).clamp(-448, 448).to(torch.float8_e4m3fn)
    return codes, scale, (codes.float() * each).numpy()


def pack(q, order):
    """Eight 4-bit integers of the last axis a word, number order[i] in place i."""
    q = q.reshape(*q.shape[:-1], -1, 8)[..., order].astype(np.uint32)
    return (q << np.arange(0, 32, 4, dtype=np.uint32)).sum(-1, dtype=np.uint32).view(np.int32)


def grouped(w, index, symmetric):
    """(integers [inputs, outputs], zeros and fp16 scales [groups, outputs]) of w [outputs, inputs]."""
    groups = index.max() + 1
    scales = np.zeros((groups, w.shape[0]), np.float16)
    zeros = np.full((groups, w.shape[0]), 8)
    for g in range(groups):
        part = w[:, index == g]
        low, high = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
        if symmetric:
            scales[g] = np.abs(part).max(1) * 2 / 15
        else:
            scales[g] = (high - low) / 15
            zeros[g] = np.clip(np.round(-low / scales[g].astype(np.float32)), 1, 15)
    each = scales.astype(np.float32)[index]
    q = np.clip(np.round(w.T / each) + zeros[index], 0, 15).astype(np.uint32)
    return q, zeros.astype(np.uint32), scales


def gptq(w, index, symmetric, module):
    """(tensors, values): AutoGPTQ's module multiplies the identity, its scales made fp32 first."""
    q, zeros, scales = grouped(w, index, symmetric)
    plain = list(range(8))
    tensors = {
        "qweight": np.ascontiguousarray(pack(q.T, plain).T),
        "qzeros": pack(zeros - 1, plain),
        "scales": scales,
        "g_idx": index.astype(np.int32),
    }
    layer = module.QuantLinear(4, w.shape[1] // len(scales), w.shape[1], w.shape[0], bias=False)
    for name, value in tensors.items():
        setattr(layer, name, torch.from_numpy(value))
    layer.scales = layer.scales.float()
    return tensors, layer(torch.eye(w.shape[1])).detach().numpy().T


def awq(w, group, module):
    """(tensors, values): AutoAWQ's dequantize_gemm, its scales made fp32 first."""
    q, zeros, scales = grouped(w, np.arange(w.shape[1]) // group, False)
    order = module.AWQ_ORDER
    tensors = {"qweight": pack(q, order), "qzeros": pack(zeros, order), "scales": scales}
    got = module.dequantize_gemm(
        torch.from_numpy(tensors["qweight"]),
        torch.from_numpy(tensors["qzeros"]),
        torch.from_numpy(scales.astype(np.float32)),
        4,
        group,
    )
    return tensors, got.numpy().T


def halves(x):
    """fp16 [n] as bytes [n, 2]."""
    return x.astype(np.float16).reshape(-1, 1).view(np.uint8)


def k_45(w, five):
    """Blocks of Q4_K or Q5_K: 256 elements in eight runs of 32 with a scale and a minimum each."""
    x = w.reshape(-1, 8, 32)
    most = np.float32(31 if five else 15)
    low = np.maximum(-x.min(-1), 0)
    step = (x.max(-1) + low) / most
    d = (step.max(-1, keepdims=True) / 63).astype(np.float16)
    dmin = (low.max(-1, keepdims=True) / 63).astype(np.float16)
    sc = np.clip(np.round(divide(step, d.astype(np.float32))), 0, 63).astype(np.uint8)
    m = np.clip(np.round(divide(low, dmin.astype(np.float32))), 0, 63).astype(np.uint8)
    each, off = (d.astype(np.float32) * sc)[..., None], (dmin.astype(np.float32) * m)[..., None]
    q = np.clip(np.round(divide(x + off, each)), 0, most).astype(np.uint8)
    scales = np.concatenate(
        [
            sc[:, :4] | (sc[:, 4:] >> 4) << 6,
            m[:, :4] | (m[:, 4:] >> 4) << 6,
            (sc[:, 4:] & 15) | (m[:, 4:] & 15) << 4,
        ],
        axis=1,
    )
    qs = ((q[:, 0::2] & 15) | (q[:, 1::2] & 15) << 4).reshape(len(x), 128)
    parts = [halves(d), halves(dmin), scales]
    if five:
        parts.append(((q >> 4) << np.arange(8, dtype=np.uint8)[:, None]).sum(1, dtype=np.uint8))
    return np.concatenate([*parts, qs], axis=1)


def k_6(w):
    """Blocks of Q6_K: 256 elements in sixteen runs of 16 with a signed scale each."""
    x = w.reshape(-1, 16, 16)
    step = np.abs(x).max(-1) / 31
    d = (step.max(-1, keepdims=True) / 127).astype(np.float16)
    sc = np.clip(np.round(divide(step, d.astype(np.float32))), -128, 127).astype(np.int8)
    each = (d.astype(np.float32) * sc)[..., None]
    q = (np.clip(np.round(divide(x, each)), -32, 31) + 32).astype(np.uint8)
    q = q.reshape(len(x), 2, 4, 32)  # halves, runs of 32
    low = ((q[:, :, :2] & 15) | (q[:, :, 2:] & 15) << 4).reshape(len(x), 128)
    shift = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = ((q >> 4) << shift).sum(2, dtype=np.uint8).reshape(len(x), 64)
    return np.concatenate([low, high, sc.view(np.uint8), halves(d)], axis=1)


def ggml(w, name):
    """(bytes as GGUFWriter takes them, values), the latter by gguf.dequantize."""
    kind = gguf.GGMLQuantizationType[name]
    if name.endswith("_K"):
        blocks = k_6(w) if name == "Q6_K" else k_45(w, name == "Q5_K")
        data = blocks.reshape(*w.shape[:-1], -1)
    else:
        data = gguf.quantize(w, kind)
    return data, gguf.dequantize(data, kind).astype(np.float32).reshape(w.shape)
