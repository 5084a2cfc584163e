#!/usr/bin/env python3
"""Makes the golden values of tests/golden/quant: quantised blocks, and what their own readers say.

    quant.py OUT --gptq DIR --awq DIR

DIR are the unpacked wheels of auto-gptq and autoawq, of which one module each is loaded by itself
(neither package imports on a machine without a GPU). PROVENANCE.md beside the golden files tells
where they come from and which are which.
"""

import argparse
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from quantisers import load_module
from safetensors.numpy import save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

SEED = 20


def write(out, name, tensors):
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    save_file(arrays, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)
    print(f"{name:10}", {key: value.shape for key, value in arrays.items()})


def every_e4m3(rng, shape):
    """All codes in turn, then random ones; the two NaN left out."""
    codes = np.array([c for c in range(256) if c & 0x7F != 0x7F], np.uint8)
    flat = rng.choice(codes, np.prod(shape))
    flat[: len(codes)] = codes
    return flat.reshape(shape)


def fp8(out, rng):
    """Whole blocks by Transformers; blocks that the matrix cuts short by torch's own conversion."""
    torch_scale = {"f32": torch.float32, "bf16": torch.bfloat16}
    for name, rows, cols, block, kind in (
        ("fp8", 96, 160, 32, "f32"),
        ("fp8_bf16", 96, 160, 32, "bf16"),
        ("fp8_cut", 130, 140, 128, "f32"),
    ):
        values = every_e4m3(rng, (rows, cols))
        scales = rng.uniform(1e-4, 3e-3, (-(-rows // block), -(-cols // block)))
        scales = torch.from_numpy(scales).to(torch_scale[kind])
        weight = torch.from_numpy(values).view(torch.float8_e4m3fn)
        if name == "fp8_cut":
            wide = scales.float().repeat_interleave(block, 0).repeat_interleave(block, 1)
            want = weight.float() * wide[:rows, :cols]
        else:
            want = Fp8Dequantize(None)._dequantize_one(weight, scales, torch.float32)
        # The scale as fp32: the test widens nothing that the reader would not.
        write(
            out,
            name,
            {"weight": values, "scale": scales.float().numpy(), "want": want.float().numpy()},
        )


def gptq(out, rng, module):
    """AutoGPTQ's module multiplies the identity by the matrix; its scales are made fp32 first, so
    that nothing is rounded to fp16 on the way."""
    for name, bits, inputs, outputs, group, order in (
        ("gptq4", 4, 64, 64, 16, False),
        ("gptq4_order", 4, 64, 64, 16, True),
        ("gptq8", 8, 64, 32, 32, False),
    ):
        layer = module.QuantLinear(bits, group, inputs, outputs, bias=False)
        groups = inputs // group
        words = np.iinfo(np.int32)
        layer.qweight = torch.from_numpy(
            rng.integers(words.min, words.max, layer.qweight.shape, np.int32, endpoint=True)
        )
        layer.qzeros = torch.from_numpy(
            rng.integers(words.min, words.max, layer.qzeros.shape, np.int32, endpoint=True)
        )
        scales = rng.uniform(1e-3, 2e-2, (groups, outputs)).astype(np.float16)
        layer.scales = torch.from_numpy(scales.astype(np.float32))
        index = np.arange(inputs, dtype=np.int32) // group
        if order:
            index = rng.permutation(index).astype(np.int32)
        layer.g_idx = torch.from_numpy(index)
        want = layer(torch.eye(inputs)).detach().numpy().T
        write(
            out,
            name,
            {
                "qweight": layer.qweight.numpy(),
                "qzeros": layer.qzeros.numpy(),
                "scales": scales,
                "g_idx": index,
                "want": want,
            },
        )


def awq(out, rng, module):
    """AutoAWQ's dequantize_gemm, with its scales made fp32 first."""
    inputs, outputs, group = 64, 48, 16
    words = np.iinfo(np.int32)
    qweight = rng.integers(words.min, words.max, (inputs, outputs // 8), np.int32, endpoint=True)
    qzeros = rng.integers(
        words.min, words.max, (inputs // group, outputs // 8), np.int32, endpoint=True
    )
    scales = rng.uniform(1e-3, 2e-2, (inputs // group, outputs)).astype(np.float16)
    want = module.dequantize_gemm(
        torch.from_numpy(qweight),
        torch.from_numpy(qzeros),
        torch.from_numpy(scales.astype(np.float32)),
        4,
        group,
    )
    index = np.arange(inputs, dtype=np.int32) // group
    write(
        out,
        "awq",
        {
            "qweight": qweight,
            "qzeros": qzeros,
            "scales": scales,
            "g_idx": index,
            "want": want.numpy().T,
        },
    )


def k_blocks(rng, count, size, places):
    """Random bytes, but for the fp16 that stand at `places`."""
    blocks = rng.integers(0, 256, (count, size), np.uint8)
    for place in places:
        d = rng.uniform(-1e-3, 1e-3, count).astype(np.float16)
        blocks[:, place : place + 2] = d.view(np.uint8).reshape(-1, 2)
    return blocks


def ggml(out, rng):
    """Blocks of every type, dequantised by the gguf package. It quantises Q8_0, Q4_0, F16 and BF16;
    of the K types it only reads blocks, so those are random bytes with d and dmin of a sane size."""
    rows, cols = 3, 1024
    values = rng.normal(0, 0.05, (rows, cols)).astype(np.float32)
    # Bytes of a block, and where its fp16 lie.
    random = {"Q4_K": (144, (0, 2)), "Q5_K": (176, (0, 2)), "Q6_K": (210, (208,))}
    for name in ("F16", "BF16", "Q8_0", "Q4_0", *random):
        kind = gguf.GGMLQuantizationType[name]
        if name in random:
            data = k_blocks(rng, rows * cols // 256, *random[name]).reshape(rows, -1)
        else:
            data = gguf.quantize(values, kind)
        want = gguf.dequantize(data, kind).astype(np.float32)
        data = np.ascontiguousarray(data).view(np.uint8).reshape(rows, -1)
        write(out, f"ggml_{name.lower()}", {"blocks": data, "want": want.reshape(rows, cols)})


def container(out, rng):
    """A whole GGUF by the package's own writer: metadata of every type, and each tensor twice, as
    blocks and as the F32 that the package's reader makes of them."""
    path = out / "gguf" / "types.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    w = gguf.GGUFWriter(path, "qwen3moe")
    for bits in (8, 16, 32, 64):
        getattr(w, f"add_uint{bits}")(f"test.u{bits}", 2 ** (bits - 1) + 3)
        getattr(w, f"add_int{bits}")(f"test.i{bits}", -(2 ** (bits - 1)))
    w.add_float32("test.f32", 0.1)
    w.add_float64("test.f64", 0.1)
    w.add_bool("test.bool", True)
    w.add_string("test.string", "caf\u00e9")
    w.add_string("test.long", "long " * 100)
    w.add_array("test.strings", ["one", "", "three"])
    w.add_array("test.numbers", [1, 2, 3])
    w.add_block_count(3)
    w.add_context_length(4096)
    w.add_embedding_length(256)
    w.add_head_count(8)
    w.add_head_count_kv(2)
    w.add_key_length(32)
    w.add_value_length(32)
    w.add_rope_freq_base(1000000.0)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_expert_count(6)
    w.add_expert_used_count(2)
    w.add_expert_feed_forward_length(128)
    w.add_eos_token_id(7)
    w.add_tensor("token_embd.weight", rng.normal(0, 1, (10, 256)).astype(np.float16))
    random = {"Q4_K": (144, (0, 2)), "Q5_K": (176, (0, 2)), "Q6_K": (210, (208,))}
    for name in ("F16", "BF16", "Q8_0", "Q4_0", *random):
        kind = gguf.GGMLQuantizationType[name]
        data = k_blocks(rng, 2, *random[name]) if name in random else None
        if data is None:
            data = gguf.quantize(rng.normal(0, 0.05, (2, 256)).astype(np.float32), kind)
        w.add_tensor(f"{name}.blocks", data, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    path.chmod(0o644)
    # Read back by the package, from the file alone.
    tensors = [t for t in gguf.GGUFReader(path).tensors if t.name.endswith(".blocks")]
    write(
        out,
        "gguf_want",
        {
            t.name.removesuffix(".blocks"): gguf.dequantize(t.data, t.tensor_type)
            .astype(np.float32)
            .reshape(2, 256)
            for t in tensors
        },
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--gptq", type=Path, required=True, help="auto-gptq's wheel, unpacked")
    parser.add_argument("--awq", type=Path, required=True, help="autoawq's wheel, unpacked")
    args = parser.parse_args()
    sys.dont_write_bytecode = True
    rng = np.random.Generator(np.random.PCG64(SEED))
    fp8(args.out, rng)
    gptq(args.out, rng, load_module(args.gptq / "auto_gptq/nn_modules/qlinear/qlinear_cuda.py"))
    awq(args.out, rng, load_module(args.awq / "awq/utils/packing_utils.py"))
    ggml(args.out, rng)
    container(args.out, rng)


if __name__ == "__main__":
    main()
