"""What schemathesis asks of every answer in generated.py's run of it: all that test_openapi.py asks, streams' events
too. It loads this by the variable SCHEMATHESIS_HOOKS, in its own virtual environment."""

import json
import os

import schemathesis

import document

LOG = open(os.environ["WITAN_GENERATED_LOG"], "a", buffering=1)
# The one documented refusal that is a 5xx: what of Ollama's API would change the models.
NOT_OFFERED = ("/api/{action}", 501)
MODEL = "lexicon"
ERROR = document.whole({"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Error", "AnthropicError")]})


def mend(body: dict):
    """Makes of fields that are good one by one a body that is: what they ask of one another no schema says."""
    if body.get("model", MODEL) is None:
        body["model"] = MODEL
    if not body.get("stream"):
        body.pop("stream_options", None)
    if body.get("top_logprobs"):
        body["logprobs"] = True
    if body.get("stream") or not isinstance(body.get("n"), int):
        for name in ("best_of", "prompt_logprobs", "echo"):
            body.pop(name, None)
    if body.get("best_of"):
        body["best_of"] = max(body["best_of"], body["n"])
    if isinstance(body.get("tool_choice"), dict) or not body.get("tools"):
        body.pop("tool_choice", None)
    if body.get("response_format") or body.get("format") or body.get("text"):
        for name in ("tools", "tool_choice", "min_tokens", "ignore_eos", "logit_bias", "stop_token_ids",
                     "thinking_budget", "thinking_token_budget"):
            body.pop(name, None)
    if body.get("tool_choice") or isinstance(body.get("thinking"), dict):
        for part, name in ((body, "thinking_budget"), (body, "thinking_token_budget"),
                           (body.get("thinking") or {}, "budget_tokens")):
            part.pop(name, None)
    for name in ("max_tokens", "max_completion_tokens", "min_tokens"):
        if body.get(name):
            body[name] = 24


@schemathesis.hook
def before_call(context, case, kwargs):
    """Asks for the model that there is: with another name a body is 404 whatever else it says. Few streams have an
    event of theirs to go on from: most of the good requests ask for none."""
    fuzzing = case.meta.phase.name.value == "fuzzing"
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = MODEL
    if case.meta.generation.mode.value != "positive":
        return
    if isinstance(case.body, dict) and fuzzing:
        mend(case.body)
    if case.headers and fuzzing:
        case.headers.pop("Last-Event-ID", None)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Of a request of Ollama's that only wants the model loaded nothing else is looked at (docs/api.md)."""
    return b'"done_reason":"load"' not in response.content


def other_method(method: str, answer, kind: str, text: str):
    """What the document says of all paths at once."""
    status = answer.status_code
    if method == "options":
        assert status == 204 and answer.headers["allow"] and not text, f"OPTIONS has {status}"
        return
    # Methods of which nobody knows how long they are are refused with a body.
    refused = method in ("trace", "query") and answer.request.body
    assert status == (400 if refused else 405), f"{method} has {status}"
    assert status == 400 or answer.headers["allow"], "no Allow"
    for value in document.values_of(kind, text):
        document.check(ERROR, value)


@schemathesis.check
def fits_the_document(ctx, response, case):
    """Status, content type, headers and content."""
    headers = {name: values[0] for name, values in response.headers.items()}
    kind = headers.get("content-type", "").partition(";")[0]
    text, method, path = response.content.decode(), case.method.lower(), case.operation.path
    assert not response.stream_cut_short and response.content_size == len(response.content), "cut short"
    if method not in document.DOCUMENT["paths"][path]:
        other_method(method, response, kind, text)
    else:
        document.check_answer(path, method, response.status_code, headers, kind, text)


@schemathesis.check
def no_server_error(ctx, response, case):
    status = response.status_code
    assert status < 500 or (case.operation.path, status) == NOT_OFFERED, f"{status}"


@schemathesis.hook
def after_call(context, case, response):
    LOG.write(json.dumps({
        "path": case.operation.path, "method": case.method, "status": response.status_code,
        "mode": case.meta.generation.mode.value, "phase": case.meta.phase.name.value,
        "seconds": response.elapsed,
        "refusal": response.content[:200].decode(errors="replace") if response.status_code >= 400 else ""}) + "\n")
