"""distributed-llama's side of tests/bench/compare: files of random weights in its format, and its own
program, run anew for every turn, whose own figure counts. The format is as its reader has it (src/llm.cpp,
src/tokenizer.cpp, commit 8d624a7): pairs of a key and an int32 value, then the tensors in the order of use."""
import random
import re
import struct
import subprocess
import sys

import compare_gguf
import compare_sides

QWEN3_MOE, SILU, Q40, EPSILON_1E6 = 0xABCD02, 1, 2, 6 # values of keys
TURN_STEPS = 64 # generated in a turn


def pairs(magic, values):
    data = b"".join(struct.pack("<ii", k, v) for k, v in values.items())
    return struct.pack("<ii", magic, 8 + len(data)) + data


def header(shape):
    return pairs(0xA00ABCD, {
        0: 0, 1: QWEN3_MOE, 2: shape["hidden"], 3: shape["moe"], 4: shape["layers"], 5: shape["heads"],
        6: shape["kv_heads"], 7: shape["experts"], 8: shape["top_k"], 9: shape["vocab"], 10: compare_gguf.CONTEXT,
        11: SILU, 12: 1000000, 13: Q40, 19: shape["head_dim"], 20: EPSILON_1E6, 21: shape["moe"]})


def tensors(shape):
    """Type and sizes (columns first) of each."""
    h, d, m = shape["hidden"], shape["head_dim"], shape["moe"]
    q, kv = shape["heads"] * d, shape["kv_heads"] * d
    yield "F32", (h, shape["vocab"])
    for _ in range(shape["layers"]):
        yield from (("Q4_0", (h, q)), ("Q4_0", (h, kv)), ("Q4_0", (h, kv)), ("Q4_0", (q, h)))
        yield "F32", (h, shape["experts"])
        yield from (("Q4_0", (h, m)), ("Q4_0", (m, h)), ("Q4_0", (h, m))) * shape["experts"] # gate, down, up
        yield from (("F32", (d,)), ("F32", (d,)), ("F32", (h,)), ("F32", (h,)))
    yield "F32", (h,)
    yield "Q4_0", (h, shape["vocab"])


def word(token):
    return f"{token:05x}"


def write_files(model, tokenizer, shape):
    """Q40 is Q4_0. All tokens but the first are special ones, which the program takes from a prompt as they
    are, without merging."""
    if not model.exists():
        random.seed(1)
        patterns, new = {}, model.with_suffix(".new")
        with open(new, "wb") as out:
            out.write(header(shape))
            for kind, sizes in tensors(shape):
                compare_gguf.write_tensor(out, kind, sizes, patterns)
        new.rename(model)
    words = b"".join(struct.pack("<fi", 0.0, 5) + word(t).encode() for t in range(shape["vocab"]))
    first_special = 1
    tokenizer.write_bytes(pairs(0x567124, {0: 1, 1: shape["vocab"], 2: 5, 3: first_special, 10: 0}) + words)


class DistributedLlama:
    """A root and, for every rank but one, a worker, with so many threads each. Decodes one sequence."""

    def __init__(self, program, folder, label, shape, ranks, threads, context):
        self.name, self.vocab, self.workers, self.turns = "distributed-llama Q40", shape["vocab"], ranks - 1, 0
        model, tokenizer = folder / f"{label}-dllama.m", folder / f"{label}-dllama.t"
        write_files(model, tokenizer, shape)
        self.worker = [program, "worker", "--host", "127.0.0.1", "--port", "PORT", "--nthreads", threads]
        self.root = [program, "inference", "--model", model, "--tokenizer", tokenizer, "--buffer-float-type", "q80",
                     "--nthreads", threads, "--max-seq-len", context, "--temperature", "1", "--topp", "1"]

    def open(self):
        pass

    def prepare(self, case):
        pass

    def close(self):
        pass

    def turn(self, case):
        """Tokens a second, as the program tells: of its layers and what its ranks say to each other."""
        self.turns += 1
        depth, draw = case[2], random.Random(self.turns)
        prompt = "".join(word(draw.randrange(2, self.vocab)) for _ in range(depth))
        found = [compare_sides.serve(self.name, self.worker) for _ in range(self.workers)]
        words = [*self.root, "--steps", depth + TURN_STEPS, "--seed", self.turns, "--prompt", prompt]
        if found:
            words += ["--workers", *(f"127.0.0.1:{port}" for _, port in found)]
        root = compare_sides.start(words, stdout=subprocess.PIPE, errors="replace")
        said = root.communicate()[0]
        for worker, _ in found:
            worker.kill()
            worker.wait()
        figure = re.search(r"Prediction\s+nTokens:\s+\d+\s+tokens/s:\s+([0-9.]+)", said)
        if root.returncode != 0 or not figure:
            sys.exit(f"compare: {self.name} ended with {root.returncode}; expected its tokens/s, found '{said[-200:]}'")
        return float(figure[1])
