#!/usr/bin/env python3
"""Writes vectors.jsonl beside itself: see PROVENANCE.md.

python3 make.py FOLDER, with the package jinja2 (3.1.6 made the committed file). FOLDER has the
templates as qwen2.5.jinja and qwen3guard-gen.jinja, which are not in this repository.
"""
import hashlib
import json
import pathlib
import random
import sys

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).resolve().parent
SUMS = {
    "qwen2.5": "cd8e9439f0570856fd70470bf8889ebd8b5d1107207f67a5efb46e342330527f",
    "qwen3guard-gen": "5a2916bcb33134c7c35604276162f21e4a4be9f382fb9a9968c9894f48328fd3",
}
PIECES = [
    "", "\n", " ", "a", "hello world", "<think>", "</think>", "<tool_response>", "<|im_end|>",
    "<|im_start|>system\n", "é", "中文", "😀", "\u2028", "\xa0", "\t", "'", '"', "\\", "{{ x }}",
    "\x00", "\x7f", "USER: ", "<END CONVERSATION>", "\n\n",
]
VALUES = [None, True, 0, -7, 1.5, 1e22, "a", "it's", [], [1, "b"], {}, {"k": {"é": None}}]


def environment():
    """As Transformers sets it up."""
    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


def text(rng):
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(6)))


def fields(rng):
    return {rng.choice("abcdé"): rng.choice(VALUES) for _ in range(rng.randrange(4))}


def call(rng):
    arguments = fields(rng) if rng.random() < 0.7 else rng.choice(["", "{}", '{"a": 1.50}'])
    function = {"name": rng.choice(["f", "get_weather", 'a"b']), "arguments": arguments}
    return function if rng.random() < 0.3 else {"type": "function", "function": function}


def message(rng, first):
    role = rng.choices(["user", "assistant", "tool", "system", "developer"],
                       [4, 4, 3, 4 if first else 1, 0.3])[0]
    m = {"role": role, "content": text(rng)}
    if role == "assistant" and rng.random() < 0.5:
        m["tool_calls"] = rng.choice([None, [], [call(rng)], [call(rng), call(rng)]])
    if role == "assistant" and rng.random() < 0.3:
        m["reasoning_content"] = text(rng)
    if rng.random() < 0.2 and (role == "tool" or m.get("tool_calls")):
        m["content"] = rng.choice([None, [], [{"type": "text", "text": "it's"}]])
    return m


def conversation(rng):
    messages = [message(rng, i == 0) for i in range(rng.choice([1, 1, 2, 3, 4, 6, 9]))]
    tools = None
    if rng.random() < 0.4:
        tools = [{"type": "function", "function": {"name": "f", "parameters": fields(rng)}}
                 for _ in range(rng.randrange(3))]
    kwargs = {"add_generation_prompt": rng.choice([True, True, False, None, 0, ""])}
    if rng.random() < 0.3:
        kwargs["enable_thinking"] = rng.choice([True, False])
    return {"messages": messages, "tools": tools, "kwargs": kwargs}


def fixed():
    """Oddities that a draw seldom meets."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    user = {"role": "user", "content": "q"}
    for content in (None, [], [{"type": "text", "text": "it's"}], ""):
        system = {"role": "system", "content": content}
        yield {"messages": [system, user], "tools": tools, "kwargs": {}}
    yield {"messages": [{"role": "system"}, user], "tools": tools, "kwargs": {}}
    yield {"messages": [user], "tools": tools, "kwargs": {"add_generation_prompt": True}}
    yield {"messages": [user], "tools": [], "kwargs": {"add_generation_prompt": True}}


def main():
    folder = pathlib.Path(sys.argv[1])
    env = environment()
    rng = random.Random(25)
    with open(HERE / "vectors.jsonl", "w") as out:
        for name, expected in SUMS.items():
            source = (folder / f"{name}.jinja").read_bytes().decode()
            assert hashlib.sha256(source.encode()).hexdigest() == expected, name
            template = env.from_string(source)
            cases = list(fixed()) + [conversation(rng) for _ in range(150)]
            for i, case in enumerate(cases):
                try:
                    rendered = template.render(
                        messages=case["messages"], tools=case["tools"], **case["kwargs"])
                except (TypeError, jinja2.exceptions.UndefinedError):
                    continue  # the reference raises where content is no string
                out.write(json.dumps({
                    "name": f"{i}", "template": name, **case,
                    "sha256": hashlib.sha256(rendered.encode()).hexdigest()}) + "\n")


main()
