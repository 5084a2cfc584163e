#!/usr/bin/env python3
"""Writes tokenizer.json and vectors.jsonl beside itself: see PROVENANCE.md.

python3 make.py, with the package tokenizers (0.23.3 made the committed files).
"""
import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ORDINARY = ["<think>", "</think>", "<thin", "naïve→token"]
HARD = [
    "",
    "It's I'LL we'Ve 'ſtop 'K 's'S",
    "a\u180eb \u200b\u2003\u0085 \u00a0x  \n \r\n\r\n\t  end  ",
    "e\u0301 \u1e9b\u0323 \u0344 \u212b \u0958 \u1100\u1161\u11a8 \uac00\u11a8 \u2adc",
    "q\u0307\u0323 q\u0323\u0307 \u0323\u0307",
    "\U000105d2\u0307 \U000113b8\u0302 \u1df6\u0315 a\u0897\u0301 \U0001e08f\u0301",
    "\U0001df00's \U0001f8b2's \u1c89's \U00010d40'd \U00016ff2's \U000323b0's",
    "123 ٤٥ Ⅷ ½ 𝟘𝟙",
    "<|im_end|><|im_start|><|im_<|im_end|>> <<think>> <thin <think </think >",
    "nai\u0308ve→token naïve→token",
    "日本語のテキスト 中文 한국어 ไทย हिन्दी עברית العربية",
    "👩‍👩‍👧‍👦 🏳️‍🌈 \U0001fae8\U0001fac3",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "memorymemoryownedownedstatusstatusthethethetheTheTHEerrorerrorerrorerrorlimitlimitlimit",
    "\0\x01\x7f\x1b[0m",
]


def train():
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700, show_progress=False, special_tokens=SPECIAL[:2],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train([str(p) for p in sorted((ROOT / "base").glob("*.h"))], trainer)
    return json.loads(tok.to_str())


def shuffle_ids(data, rng):
    """Ids in no order: that merges' ids count up with their ranks must not matter."""
    vocab = data["model"]["vocab"]
    ids = list(range(len(vocab)))
    rng.shuffle(ids)
    data["model"]["vocab"] = {text: ids[i] for text, i in vocab.items()}
    for token in data["added_tokens"]:
        token["id"] = data["model"]["vocab"][token["content"]]
    return data


def texts(rng):
    yield from HARD
    words = "memory of the caller's error, NULL until\n\t first append; status limit_bytes 1024".split()
    pool = "aeiou tTsS'\n\r \u0301\u0323\u0307\u05b4\u05b0é\u1161\u11a8\u1100가ſ9٤\U0001e4ef\U00010d4a<"
    for _ in range(60):
        yield " ".join(rng.choice(words) for _ in range(rng.randrange(1, 12)))
        yield "".join(rng.choice(pool) for _ in range(rng.randrange(1, 40)))
        yield "".join(chr(rng.choice((rng.randrange(0x20, 0xD800), rng.randrange(0xE000, 0x20000))))
                      for _ in range(rng.randrange(1, 16)))


def main():
    rng = random.Random(9)
    data = shuffle_ids(train(), rng)
    path = HERE / "tokenizer.json"
    path.write_text(json.dumps(data))
    tok = Tokenizer.from_file(str(path))
    tok.add_special_tokens([AddedToken(SPECIAL[2], normalized=False)])
    tok.add_tokens([AddedToken(t, normalized=False) for t in ORDINARY])
    data = json.loads(tok.to_str())
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]  # both occur
    path.write_text(json.dumps(data) + "\n")
    with open(HERE / "vectors.jsonl", "w") as out:
        for text in texts(rng):
            ids = tok.encode(text, add_special_tokens=False).ids
            cut = [rng.randrange(tok.get_vocab_size()) for _ in range(rng.randrange(9))]
            out.write(json.dumps({
                "text": text, "ids": ids, "decoded": tok.decode(ids, skip_special_tokens=False),
                "any_ids": cut, "any_decoded": tok.decode(cut, skip_special_tokens=False),
                "any_skipped": tok.decode(cut, skip_special_tokens=True)}) + "\n")


main()
