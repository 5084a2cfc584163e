"""docs/openapi.yaml, and whether an answer fits it. Knows nothing of the server: another virtual environment
reads it too (hooks.py)."""

import functools
import json
import os
from pathlib import Path

import jsonschema
import referencing
import referencing.jsonschema
import yaml

PATH = Path(os.environ["WITAN_TOP"]) / "docs" / "openapi.yaml"
DOCUMENT = yaml.safe_load(PATH.read_text())
RESOURCE = referencing.Resource(DOCUMENT, referencing.jsonschema.DRAFT202012)
REGISTRY = referencing.Registry().with_resource("urn:openapi", RESOURCE)


def follow(node):
    """The node, or what it refers to."""
    while isinstance(node, dict) and "$ref" in node:
        at = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            at = at[part]
        node = at
    return node


def whole(schema):
    """"#/..." inside a schema that is taken out of the document means the document."""
    if isinstance(schema, dict):
        return {k: "urn:openapi" + v if k == "$ref" and v.startswith("#") else whole(v)
                for k, v in schema.items()}
    return [whole(v) for v in schema] if isinstance(schema, list) else schema


def check(schema: dict, value):
    validator = jsonschema.Draft202012Validator(schema, registry=REGISTRY)
    error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    assert error is None, f"{error.message} at {error.json_path}, of {json.dumps(value)[:500]}"


def forms(schema) -> list:
    """The schema and all that it is made of: what is said of a value may be said in any of them."""
    schema, found = follow(schema), []
    for word in ("allOf", "anyOf", "oneOf"):
        found += [form for part in schema.get(word, []) for form in forms(part)]
    return [schema, *found]


def check_names(schemas: list, value, at: str = "$"):
    """Every field of the value is a property of one of these forms. One without properties says nothing of them."""
    if isinstance(value, list):
        items = [form for s in schemas if "items" in s for form in forms(s["items"])]
        for i, item in enumerate(value):
            check_names(items, item, f"{at}[{i}]")
    elif isinstance(value, dict):
        fields = [s for s in schemas if "properties" in s]
        free = not fields or any("additionalProperties" in s for s in schemas)
        for name, inner in value.items():
            known = [form for s in fields if name in s["properties"] for form in forms(s["properties"][name])]
            assert known or free, f"{at}.{name} is not documented"
            check_names(known, inner, f"{at}.{name}")


@functools.cache
def body_schema(path: str, method: str) -> dict:
    body = DOCUMENT["paths"][path][method]["requestBody"]
    return whole(body["content"]["application/json"]["schema"])


@functools.cache
def answer_schema(path: str, method: str, status: int, kind: str) -> dict:
    """The schema of a response, as it stands in the document."""
    responses = DOCUMENT["paths"][path][method]["responses"]
    assert str(status) in responses, f"{method} {path}: {status} is not documented"
    content = follow(responses[str(status)])["content"]
    assert kind in content, f"{method} {path} {status}: {kind} is not documented"
    return content[kind]["schema"]


def events(text: str):
    """Names and data of a stream's events; None for a name that there is not. Comments are left out."""
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and line[0] != ":")
        if "data" in fields:
            yield fields.get("event"), fields["data"]


def streamed(text: str) -> list:
    """The values of server-sent events. OpenAI's have an end of their own, others have names."""
    told = list(events(text))
    if told and told[-1][1] == "[DONE]":
        told.pop()
    else:
        last = json.loads(told[-1][1])
        assert told[-1][0] or "error" in last, f"the stream has no end: {last}"
    values = [json.loads(data) for _, data in told]
    for (name, _), value in zip(told, values, strict=True):
        assert name is None or name == value["type"], f"event {name} has the type {value['type']}"
    return values


def values_of(kind: str, text: str) -> list:
    """What of an answer of this content type a schema is about."""
    if kind == "text/event-stream":
        return streamed(text)
    if kind == "application/x-ndjson":
        assert text.endswith("\n"), "the last line is cut"
        return [json.loads(line) for line in text.splitlines()]
    return [json.loads(text) if kind == "application/json" else text]


def check_answer(path: str, method: str, status: int, headers, kind: str, text: str) -> list:
    """Status, headers, content type and all values must be documented. Returns the values."""
    schema = answer_schema(path, method, status, kind)
    wanted = follow(DOCUMENT["paths"][path][method]["responses"][str(status)]).get("headers", {})
    always = [name for name, header in wanted.items() if follow(header).get("required", True)]
    assert all(name in headers for name in ("x-request-id", *always)), dict(headers)
    values = values_of(kind, text)
    for value in values:
        check(whole(schema), value)
        check_names(forms(schema), value)
    return values
