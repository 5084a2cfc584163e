"""docs/openapi.yaml against the server: real responses fit, and what lies out of bounds is refused."""

import json
import urllib.error
import urllib.request

import jsonschema
import pytest
import referencing
import referencing.jsonschema
import yaml

import server

pytestmark = pytest.mark.skipif(server.MODE != "direct", reason="the same in either mode: run with --direct")
DOCUMENT = yaml.safe_load((server.TOP / "docs/openapi.yaml").read_text())
RESOURCE = referencing.Resource(DOCUMENT, referencing.jsonschema.DRAFT202012)
REGISTRY = referencing.Registry().with_resource("urn:openapi", RESOURCE)
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
TALK = [{"role": "user", "content": "What is a lighthouse?"}]


def follow(node):
    """The node, or what it refers to."""
    while isinstance(node, dict) and "$ref" in node:
        at = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            at = at[part]
        node = at
    return node


def check(schema: dict, value):
    validator = jsonschema.Draft202012Validator(schema, registry=REGISTRY)
    error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    assert error is None, f"{error.message} at {error.json_path}, of {json.dumps(value)[:500]}"


def schema_at(path: str, method: str, status: int, kind: str) -> dict:
    """The schema of a response, its references made whole."""
    responses = DOCUMENT["paths"][path][method]["responses"]
    assert str(status) in responses, f"{method} {path}: {status} is not documented"
    content = follow(responses[str(status)])["content"]
    assert kind in content, f"{method} {path} {status}: {kind} is not documented"
    return whole(content[kind]["schema"])


def whole(schema):
    """"#/..." inside a schema that is taken out of the document means the document."""
    if isinstance(schema, dict):
        return {k: "urn:openapi" + v if k == "$ref" and v.startswith("#") else whole(v)
                for k, v in schema.items()}
    return [whole(v) for v in schema] if isinstance(schema, list) else schema


@pytest.fixture(scope="module")
def ask_door(main):
    """One request; its response must fit the document. Returns the status and the content."""
    def ask(method: str, path: str, body=None, at: str = ""):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://{main.http}{at or path}", data=data, method=method.upper(),
            headers={"Content-Type": "application/json"})
        try:
            answer = urllib.request.urlopen(request, timeout=60 * server.FACTOR)
        except urllib.error.HTTPError as refusal:
            answer = refusal
        with answer:
            kind, text = answer.headers.get_content_type(), answer.read().decode()
            schema = schema_at(path, method, answer.status, kind)
            headers = DOCUMENT["paths"][path][method]["responses"][str(answer.status)].get("headers", {})
            assert all(name in answer.headers for name in headers), answer.headers
        if kind == "text/event-stream":
            events = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
            assert events[-1] == "[DONE]"
            values = [json.loads(event) for event in events[:-1]]
        else:
            values = [json.loads(text) if kind == "application/json" else text]
        for value in values:
            check(schema, value)
        return answer.status, values
    return ask


def test_the_document_is_sound():
    """Every reference leads somewhere, and every schema is one."""
    def walk(node):
        if isinstance(node, dict):
            if "$ref" in node:
                follow(node)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)
    walk(DOCUMENT)
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    names = [op["operationId"] for path in DOCUMENT["paths"].values() for op in path.values()]
    assert len(names) == len(set(names))
    assert DOCUMENT["info"]["version"] == server.witan("--version").stdout.split()[1]


ANSWERED = [
    (CHAT, {}), (CHAT, {"stream": True}), (CHAT, {"n": 2, "logprobs": True, "top_logprobs": 3}),
    (CHAT, {"stream": True, "logprobs": True, "stream_options": {"include_usage": True}}),
    (CHAT, {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
    (CHAT, {"prompt_logprobs": 2, "temperature": 0, "enable_thinking": False}),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "reasoning_effort": "low"}),
    (TEXT, {}), (TEXT, {"stream": True}), (TEXT, {"logprobs": 0}), (TEXT, {"logprobs": 3, "echo": True}),
    (TEXT, {"stream": True, "logprobs": 2, "stream_options": {"include_usage": True}}),
    (TEXT, {"prompt_logprobs": 1, "n": 2, "best_of": 3}),
]


@pytest.mark.parametrize("path, fields", ANSWERED)
def test_answers_fit(ask_door, path, fields):
    body = {"max_tokens": 16, **({"messages": TALK} if path == CHAT else {"prompt": "A cat is"}), **fields}
    check(whole(DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]), body)
    status, values = ask_door("post", path, body)
    assert status == 200 and len(values) >= (2 if fields.get("stream") else 1)


def test_the_other_routes_fit(ask_door):
    assert ask_door("get", "/v1/models")[0] == 200
    assert ask_door("get", "/v1/models/{model}", at="/v1/models/lexicon")[0] == 200
    assert ask_door("get", "/v1/models/{model}", at="/v1/models/absent")[0] == 404
    assert ask_door("get", "/health/live")[0] == 200
    assert ask_door("get", "/health/ready")[0] == 200
    assert ask_door("get", "/metrics")[0] == 200
    status, (tokens,) = ask_door("post", "/tokenize", {"prompt": "A cat is"})
    assert status == 200
    assert ask_door("post", "/detokenize", {"tokens": tokens["tokens"]}) == (200, [{"prompt": "A cat is"}])
    assert ask_door("post", "/tokenize", {"messages": TALK})[0] == 200
    assert ask_door("post", "/tokenize", {})[0] == 400
    assert ask_door("post", "/detokenize", {"tokens": [-1]})[0] == 400
    assert ask_door("post", CHAT, {"messages": []})[0] == 400
    assert ask_door("post", TEXT, {"prompt": "a", "model": "absent"})[0] == 404


def outside(schema: dict):
    """Values just outside of what a field may have, and one of another kind."""
    if "minimum" in schema:
        yield schema["minimum"] - 1
    if "exclusiveMinimum" in schema:
        yield schema["exclusiveMinimum"]
    if "maximum" in schema:
        yield schema["maximum"] + 1
    if "type" in schema and "object" not in schema["type"]:
        yield {"of": "another kind"}
    if "type" in schema and "string" not in schema["type"]:
        yield "words"


@pytest.mark.parametrize("path, name", [(CHAT, "ChatRequest"), (TEXT, "CompletionRequest")])
def test_what_lies_outside_is_refused_by_name(ask_door, path, name):
    count = 0
    parts = [follow(part) for part in DOCUMENT["components"]["schemas"][name]["allOf"]]
    for field, schema in (pair for part in parts for pair in part["properties"].items()):
        for value in outside(follow(schema)):
            # What a field needs besides, so that it is this one that is refused.
            body = {"messages": TALK} if path == CHAT else {"prompt": "A cat is"}
            body |= {"logprobs": True} if field == "top_logprobs" else {}
            body |= {"stream": True} if field == "stream_options" else {}
            body |= {"max_tokens": 2, field: value}
            status, (answer,) = ask_door("post", path, body)
            assert status == 400, f"{field}: {value!r} was taken"
            assert field in (answer["error"]["param"] or "") + answer["error"]["message"], answer
            count += 1
    assert count > 40
