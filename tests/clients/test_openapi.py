"""docs/openapi.yaml against the server: real responses fit, and what lies out of bounds is refused."""

import json
import re
import urllib.error
import urllib.request

import jsonschema
import pytest

import server
from document import DOCUMENT, body_schema, check, check_answer, follow

pytestmark = pytest.mark.skipif(server.MODE != "direct", reason="the same in either mode: run with --direct")
CHAT, TEXT, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
OLLAMA_CHAT, GENERATE = "/api/chat", "/api/generate"
TALK = [{"role": "user", "content": "What is a lighthouse?"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def send(main, method: str, at: str, body=None, **headers):
    """Status, headers, content type and text."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{main.http}{at}", data=data, method=method.upper(),
                                     headers={"Content-Type": "application/json", **headers})
    try:
        answer = urllib.request.urlopen(request, timeout=60 * server.FACTOR)
    except urllib.error.HTTPError as refusal:
        answer = refusal
    with answer:
        return answer.status, answer.headers, answer.headers.get_content_type(), answer.read().decode()


@pytest.fixture(scope="module")
def ask_door(main):
    """One request; its response must fit the document. Returns the status and the content."""
    def ask(method: str, path: str, body=None, at: str = "", **headers):
        status, told, kind, text = send(main, method, at or path, body, **headers)
        return status, check_answer(path, method, status, told, kind, text)
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


def test_the_document_has_every_path_of_the_server(main):
    """The server's own table has the document's paths, and says so when it is asked."""
    table = (server.TOP / "coordinator" / "http_api.c").read_text()
    routes = re.findall(r'\{HTTP_(GET|POST), "([^"]+)"', table)
    assert len(routes) > 20
    documented = {(method.upper(), re.sub(r"\{.*\}", "*", path))
                  for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert documented == set(routes)
    for path, methods in DOCUMENT["paths"].items():
        status, headers, _, _ = send(main, "options", re.sub(r"\{.*\}", "lexicon", path))
        wanted = "GET, HEAD, OPTIONS" if "get" in methods else "POST, OPTIONS"
        assert (status, headers["Allow"]) == (204, wanted), path


def test_the_pages_have_every_path():
    """docs/protocol.md lists the paths that the document has."""
    page = (server.TOP / "docs" / "protocol.md").read_text().partition("## Clients over HTTP")[2]
    table = "\n".join(line for line in page.splitlines() if line.startswith("|"))
    listed = {f"{method} {re.sub('[A-Z]+', '*', path)}" for method, path in re.findall(r"`(GET|POST) (/[^`]*)`", table)}
    documented = {f"{method.upper()} {re.sub(r'{.*}', '*', path)}"
                  for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert listed == documented


def raw_schema(path: str) -> dict:
    return follow(DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"])


def names_in(node) -> set:
    """All names of properties and all words that a schema and those inside it have."""
    node, found = follow(node), set()
    if isinstance(node, dict):
        found |= set(node.get("properties", {})) | set(node.get("enum", [])) | {node.get("const")}
        for key, value in node.items():
            found |= names_in(value) if key not in ("enum", "const") else set()
    elif isinstance(node, list):
        for value in node:
            found |= names_in(value)
    return found


def bounds_of(schema: dict) -> set:
    """As a page writes them; those of 32 and 64 bits are no reader's."""
    words = ("minimum", "maximum", "exclusiveMinimum", "maxItems", "maxProperties")
    return {f"{schema[word]:g}" for word in words if abs(schema.get(word, 2**40)) < 2**31 - 1}


SECTIONS = {"Fields of `/v1/chat": (CHAT, TEXT), "OpenAI: `POST /v1/responses`": (RESPONSES,),
            "Anthropic: `POST /v1/messages`": (MESSAGES,), "Ollama: `POST /api/chat`": (OLLAMA_CHAT, GENERATE)}
# What pages tell of and bodies have not: headers, fields of any block, kinds of other fields.
BESIDE = {"anthropic-version", "anthropic-beta", "cache_control"}


@pytest.mark.parametrize("title", SECTIONS)
def test_the_page_of_fields_is_the_documents(title):
    """docs/api.md and the document have the same fields, and of those with a row of their own the same bounds."""
    page = (server.TOP / "docs" / "api.md").read_text()
    section = re.split(r"\n#+ ", page.partition(f"# {title}")[2])[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in section.splitlines() if line.startswith("| ")]
    taken = [row for row in rows[1:] if "refused" not in row[1]]
    schemas = [raw_schema(path) for path in SECTIONS[title]]
    known = set().union(*map(names_in, schemas))
    told = {part for row in taken for word in re.findall(r"`([^`]+)`", row[0]) for part in word.split(".")}
    assert told - BESIDE <= known, f"not in the document: {sorted(told - BESIDE - known)}"
    for field, schema in (pair for whole in schemas for pair in bounded(whole)):
        assert f"`{field}`" in section or f"`{field.split('.')[-1]}`" in section, f"{field} is not on the page"
        for row in rows:
            if CHAT in SECTIONS[title] and re.fullmatch(rf"`{field}`( \((chat|text)\))?", row[0]):
                assert bounds_of(schema) <= set(re.findall(r"-?[0-9.]+", row[1])), (field, row[1])


# What each door is asked.
ASKED = {
    CHAT: {"messages": TALK, "max_tokens": 16},
    TEXT: {"prompt": "A cat is", "max_tokens": 16},
    RESPONSES: {"input": "What is a lighthouse?", "max_output_tokens": 16},
    MESSAGES: {"messages": TALK, "max_tokens": 16},
    COUNT: {"messages": TALK},
    OLLAMA_CHAT: {"model": "lexicon", "messages": TALK, "options": {"num_predict": 16}},
    GENERATE: {"model": "lexicon", "prompt": "What is a lighthouse?", "options": {"num_predict": 16}},
}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
ANSWERED = [
    (CHAT, {}), (CHAT, {"stream": True}), (CHAT, {"n": 2, "logprobs": True, "top_logprobs": 3}),
    (CHAT, {"logprobs": True, **USAGE}),
    (CHAT, {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
    (CHAT, {"prompt_logprobs": 2, "temperature": 0, "enable_thinking": False}),
    (CHAT, {"tools": [TOOL], "reasoning_effort": "low"}),
    (CHAT, {"tools": [TOOL], "tool_choice": "required", "max_tokens": 60}),
    (CHAT, {"tools": [TOOL], "tool_choice": "required", "max_tokens": 60, **USAGE}),
    (TEXT, {}), (TEXT, {"stream": True}), (TEXT, {"logprobs": 0}), (TEXT, {"logprobs": 3, "echo": True}),
    (TEXT, {"logprobs": 2, **USAGE}), (TEXT, {"prompt_logprobs": 1, "n": 2, "best_of": 3}),
    (RESPONSES, {}), (RESPONSES, {"stream": True}), (RESPONSES, {"max_output_tokens": 900, "stream": True}),
    (RESPONSES, {"instructions": "Be brief.", "reasoning": {"effort": "low"},
                 "text": {"format": {"type": "json_object"}}}),
    (MESSAGES, {}), (MESSAGES, {"stream": True}), (MESSAGES, {"max_tokens": 900, "stream": True}),
    (MESSAGES, {"system": "Be brief.", "stop_sequences": [" "], "thinking": {"type": "adaptive"}}),
    (COUNT, {}), (COUNT, {"system": [{"type": "text", "text": "Be brief."}]}),
    (OLLAMA_CHAT, {}), (OLLAMA_CHAT, {"stream": False, "think": True}), (OLLAMA_CHAT, {"messages": []}),
    (OLLAMA_CHAT, {"stream": False, "format": "json", "options": {"num_predict": 40}}),
    (GENERATE, {}), (GENERATE, {"stream": False, "raw": True}), (GENERATE, {"prompt": ""}),
]


@pytest.mark.parametrize("path, fields", ANSWERED)
def test_answers_fit(ask_door, path, fields):
    body = {**ASKED[path], **fields}
    check(body_schema(path, "post"), body)
    status, values = ask_door("post", path, body)
    assert status == 200 and len(values) >= (2 if fields.get("stream") else 1)


def test_refusals_fit(ask_door):
    """Those of each API have its own form."""
    for path, body in ASKED.items():
        assert ask_door("post", path, [])[0] == 400
        assert ask_door("post", path, {**body, "model": "absent"})[0] == 404
        for field in ("messages", "input", "prompt"):
            if field in body:
                assert ask_door("post", path, {**body, field: 3})[0] == 400
        if path not in (CHAT, TEXT, COUNT):
            headers = {"Idempotency-Key": "k", "Last-Event-ID": "5"}
            assert ask_door("post", path, body, **headers)[0] == 400


def test_answers_without_a_group_fit(tmp_path):
    """503, in each API's own form and with Retry-After."""
    bare = server.Direct(tmp_path, workers=False)
    try:
        for path, body in ASKED.items():
            if path == COUNT:
                continue
            told = send(bare, "post", path, body)
            assert told[0] == 503
            check_answer(path, "post", *told)
        for path in ("/health/live", "/health/ready", "/v1/models", "/api/tags", "/admin/status"):
            told = send(bare, "get", path)
            assert told[0] == (503 if path == "/health/ready" else 200)
            check_answer(path, "get", *told)
        told = send(bare, "get", "/admin/experts/g0")
        assert told[0] == 200
        check_answer("/admin/experts/{group}", "get", *told)
    finally:
        bare.stop()


def test_the_other_routes_fit(ask_door, main):
    assert ask_door("get", "/v1/models")[0] == 200
    assert ask_door("get", "/v1/models/{model}", at="/v1/models/lexicon")[0] == 200
    assert ask_door("get", "/v1/models/{model}", at="/v1/models/absent")[0] == 404
    anthropics = {"anthropic-version": "2023-06-01"}
    assert "has_more" in ask_door("get", "/v1/models", **anthropics)[1][0]
    assert ask_door("get", "/v1/models/{model}", at="/v1/models/lexicon", **anthropics)[1][0]["display_name"]
    assert ask_door("get", "/v1/models/{model}", at="/v1/models/absent", **anthropics)[1][0]["type"] == "error"
    assert ask_door("get", "/health/live")[0] == 200
    assert ask_door("get", "/health/ready")[0] == 200
    assert ask_door("get", "/metrics")[0] == 200
    assert ask_door("get", "/admin/status")[0] == 200
    assert ask_door("get", "/admin/experts/{group}", at="/admin/experts/g0")[0] == 200
    assert ask_door("get", "/admin/experts/{group}", at="/admin/experts/absent")[0] == 404
    assert ask_door("get", "/")[0] == 200
    assert ask_door("get", "/", Accept="text/html")[0] == 200
    assert ask_door("get", "/page/{file}", at="/page/absent")[0] == 404
    for name in re.findall(r'(?:src|href)="/?page/([^"]+)"', send(main, "get", "/", Accept="text/html")[3]):
        assert ask_door("get", "/page/{file}", at=f"/page/{name}")[0] == 200
    status, (tokens,) = ask_door("post", "/tokenize", {"prompt": "A cat is"})
    assert status == 200
    assert ask_door("post", "/detokenize", {"tokens": tokens["tokens"]}) == (200, [{"prompt": "A cat is"}])
    assert ask_door("post", "/tokenize", {"messages": TALK})[0] == 200
    assert ask_door("post", "/tokenize", {})[0] == 400
    assert ask_door("post", "/detokenize", {"tokens": [-1]})[0] == 400
    assert ask_door("get", "/api/tags")[0] == 200
    assert ask_door("get", "/api/ps")[0] == 200
    assert ask_door("get", "/api/version")[0] == 200
    assert ask_door("post", "/api/show", {"model": "lexicon:latest"})[0] == 200
    assert ask_door("post", "/api/show", {"name": "absent"})[0] == 404
    assert ask_door("post", "/api/show", {})[0] == 400
    for path, at in (("/v1/embeddings",) * 2, ("/v1/audio/{audio}", "/v1/audio/speech"),
                     ("/v1/images/{image}", "/v1/images/generations")):
        status, (answer,) = ask_door("post", path, {"model": "lexicon", "input": "x"}, at=at)
        assert status == 404 and "not offered" in answer["error"]["message"]
    for name in ("pull", "push", "create", "copy", "embed", "embeddings", "blobs/sha256:0"):
        assert ask_door("post", "/api/{action}", {}, at=f"/api/{name}")[0] == 501


def outside(schema: dict):
    """Values just outside of what a field may have, and of another kind."""
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    if lowest is not None and lowest > -2**63:
        yield lowest - 1
    if "exclusiveMinimum" in schema:
        yield schema["exclusiveMinimum"]
    if highest is not None and highest < 2**63 - 1:
        yield highest + 1
    if "enum" in schema:
        yield 12345
    if "type" in schema and "object" not in schema["type"]:
        yield {"of": "another kind"}
    if "type" in schema and "string" not in schema["type"]:
        yield "words"


def bounded(schema: dict):
    """A body's fields with their schemas; of Ollama's `options` those."""
    for part in map(follow, schema.get("allOf", [schema])):
        for field, inner in part.get("properties", {}).items():
            if "properties" in follow(inner) and field == "options":
                yield from ((f"options.{name}", s) for name, s in follow(inner)["properties"].items())
            yield field, follow(inner)
        if "allOf" in part:
            yield from bounded(part)


def with_field(body: dict, field: str, value) -> dict:
    outer, _, inner = field.partition(".")
    return {**body, outer: {**body.get(outer, {}), inner: value} if inner else value}


@pytest.mark.parametrize("path", [p for p in ASKED if p != COUNT])
def test_what_lies_outside_is_refused_by_name(ask_door, path):
    count = 0
    for field, inner in bounded(raw_schema(path)):
        for value in outside(follow(inner)):
            # What a field needs besides, so that it is this one that is refused.
            body = {**ASKED[path], "stream": field == "stream_options"}
            body |= {"logprobs": True} if field == "top_logprobs" else {}
            status, (answer,) = ask_door("post", path, with_field(body, field, value))
            assert status == 400, f"{field}: {value!r} was taken"
            words = answer["error"] if isinstance(answer["error"], str) else answer["error"]["message"]
            assert field in words, answer
            count += 1
    assert count > 20
