"""Trains the byte-level BPE and writes it in the format, and with the pipeline, of Qwen3's."""
import json
import os

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ("<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> "
           "<|box_end|> <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> "
           "<|image_pad|> <|video_pad|>").split()
ADDED = SPECIAL + ("<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> "
                   "<|repo_name|> <|file_sep|> <tool_response> </tool_response> <think> </think>").split()


def byte_alphabet():
    """GPT-2's stand-in characters in byte-rank order: printable bytes first, the others after 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]


def byte_level():
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def train_tokenizer(texts, merges, path):
    """Writes tokenizer.json: ids 0..255 bytes, 256+r for merge r, then the 26 added tokens."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    raw.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=256 + merges, initial_alphabet=byte_alphabet(), show_progress=False))
    learnt = [tuple(m) for m in json.loads(raw.to_str())["model"]["merges"]]
    vocab = {c: i for i, c in enumerate(byte_alphabet())}
    kept = []
    for left, right in learnt:
        # Two merges can build one string; the id of a merge is its rank, so the second is left out.
        if left + right not in vocab:
            vocab[left + right] = 256 + len(kept)
            kept.append([left, right])
    added = [{"id": len(vocab) + i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": t in SPECIAL} for i, t in enumerate(ADDED)]
    spec = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False},
            byte_level()]},
        "post_processor": byte_level(), "decoder": byte_level(),
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": False, "vocab": vocab, "merges": kept}}
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(spec, f, ensure_ascii=False, indent=1)
    return Tokenizer.from_file(path)
