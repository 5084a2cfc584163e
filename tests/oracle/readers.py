#!/usr/bin/env python3
"""Reads the quantised checkpoints with a second reader, whole folders at once.

    readers.py --onnxruntime DIR DIR...

quantised.py takes the values of each weight from one reader, given one matrix at a time. Here others
open what it wrote: Transformers reads FP8 and GGUF as it would a published folder, compressed-tensors
converts AWQ to its own format and reads that, onnxruntime-genai unpacks GPTQ (gptqmodel, which
Transformers calls for it, has no wheel). Every weight must have the bits of values.crc, and nothing
else may be there. --onnxruntime names the unpacked wheel of onnxruntime-genai, of which the loaders
are taken, without the library that they make models for.
"""

import argparse
import json
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import reference  # before the libraries: it sets their environment
import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from compressed_tensors.entrypoints.convert import AutoAWQConverter
from compressed_tensors.quantization.lifecycle.forward import dequantize
from safetensors.torch import load_file


def by_transformers(folder):
    """published name -> values; the module keeps the experts of a layer in two tensors."""
    found = {}
    for name, value in reference.load(folder).state_dict().items():
        if name.endswith(".experts.gate_up_proj"):
            for part, values in zip(("gate", "up"), value.chunk(2, dim=1)):
                for e, expert in enumerate(values):
                    found[name.replace("gate_up_proj", f"{e}.{part}_proj.weight")] = expert
        elif name.endswith(".experts.down_proj"):
            for e, expert in enumerate(value):
                found[name.replace("down_proj", f"{e}.down_proj.weight")] = expert
        else:
            found[name] = value
    return found


def by_compressed_tensors(folder):
    """published name -> values of an AWQ folder; factors made fp32 before they are multiplied."""
    said = json.loads((folder / "config.json").read_text())["quantization_config"]
    converter = AutoAWQConverter.from_autoawq_config(said)
    scheme = converter.update_config(None).config_groups["config_group_0"].weights
    parts = converter.process(load_file(folder / "model.safetensors"))
    found = {}
    for name in [n for n in parts if n.endswith(".weight_packed")]:
        module = name.removesuffix("_packed")
        scale = parts.pop(f"{module}_scale").float()
        shape = torch.Size(parts.pop(f"{module}_shape").tolist())
        codes = unpack_from_int32(parts.pop(name), 4, shape)
        zeros = unpack_from_int32(parts.pop(f"{module}_zero_point"), 4, scale.shape, packed_dim=0)
        found[module] = dequantize(codes, scale, zeros, args=scheme, dtype=torch.float32)
    return found | {name: value.float() for name, value in parts.items()}


def by_onnxruntime(folder):
    """published name -> values of a GPTQ folder. The loader says which integer, zero and group each
    value has; it would multiply in fp16, which is its arithmetic and not the format's."""
    from loaders.gptq import GPTQModel

    said = json.loads((folder / "config.json").read_text())["quantization_config"]
    reader = object.__new__(GPTQModel)  # which would otherwise look for a published model's folder
    parts = load_file(folder / "model.safetensors")
    found = {}
    for name in [n for n in parts if n.endswith(".qweight")]:
        module = name.removesuffix(".qweight")
        m = SimpleNamespace(bits=said["bits"], group_size=said["group_size"])
        for part in ("qweight", "qzeros", "scales", "g_idx"):
            setattr(m, part, parts.pop(f"{module}.{part}"))
        reader.set_quantized_tensor_properties(m)
        reader.prepare_quantized_tensor(m)
        reader.unpack_qzeros(m)
        reader.unpack_qweight(m)
        codes = (m.qweight - m.qzeros[m.g_idx]).float()
        found[f"{module}.weight"] = (codes * m.scales.float()[m.g_idx]).T
    return found | {name: value.float() for name, value in parts.items()}


def check(folder):
    """Reads one folder, holds it against values.crc and prints the result. True when equal."""
    config = json.loads((folder / "config.json").read_text())
    method = config.get("quantization_config", {}).get("quant_method")
    readers = {"awq": by_compressed_tensors, "gptq": by_onnxruntime}
    reader = readers.get(method, by_transformers)
    found = {
        name: f"{zlib.crc32(np.ascontiguousarray(value.float().numpy(), '<f4').tobytes()):08x}"
        for name, value in reader(folder).items()
    }
    lines = (folder / "values.crc").read_text().split("\n")[:-1]
    want = {name: crc for crc, name in (line.split() for line in lines)}
    faults = sorted(n for n in found.keys() | want.keys() if found.get(n) != want.get(n))
    if want and not faults:
        print(f"ok   {folder}: {len(want)} weights bit-identical {reader.__name__.replace('_', ' ')}")
    for name in faults:
        print(f"FAIL {folder}: {name}: {want.get(name, 'no value')} expected, {found.get(name)} found")
    return bool(want) and not faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--onnxruntime", type=Path, required=True, metavar="DIR")
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    args = parser.parse_args()
    sys.path.append(str(args.onnxruntime / "onnxruntime_genai" / "models"))
    results = [check(folder) for folder in args.folders]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
