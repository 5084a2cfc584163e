"""response_format json_object: whatever the model would say, what it says parses, and it says it in time."""

import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import inference_pb2 as pb
import openai
import pytest

import server
from ask import chat_text, completion_text, messages, question

OBJECT = {"type": "json_object"}
WILD = {"temperature": 1.5, "top_p": 1}
EACH = 10  # answers of a request
ANSWERS = max(5, int(50 / server.FACTOR)) * EACH
LENGTHS = (3, 4, 5, 6, 7, 9, 12, 16, 24, 40)


def complete(client, extra=None, **asked):
    """Completions have no response_format of OpenAI's."""
    return client.completions.create(
        model="lexicon", extra_body={"response_format": OBJECT, **(extra or {})}, **asked)


def is_object(choice) -> bool:
    text = choice.message.content if hasattr(choice, "message") else choice.text
    return choice.finish_reason == "stop" and isinstance(json.loads(text), dict)


def test_every_answer_parses(client, entries):
    """Drawn from all tokens at temperature 1.5, cut short and long, many at once."""
    def ask(i: int) -> list:
        entry, most = entries[i % len(entries)], LENGTHS[i % len(LENGTHS)]
        raw = {"seed": i, "n": EACH, "max_tokens": most, **WILD}
        if i % 2:
            return complete(client, {"top_k": 0}, prompt=question(entry), **raw).choices
        return client.chat.completions.create(
            model="lexicon", messages=messages(entry), response_format=OBJECT,
            extra_body={"top_k": 0, "enable_thinking": False}, **raw).choices

    with ThreadPoolExecutor(8) as pool:
        answers = [c for choices in pool.map(ask, range(ANSWERS // EACH)) for c in choices]
    assert len(answers) == ANSWERS
    assert all(is_object(c) for c in answers)
    # Where the prompt has closed the thought there is no other.
    assert not any(getattr(c.message, "reasoning_content", None) for c in answers if hasattr(c, "message"))
    texts = {getattr(c, "text", None) or c.message.content for c in answers}
    assert len(texts) > ANSWERS / 3  # no few that all fall back to


def test_a_thought_comes_before_and_is_free(client, entries):
    for i, most in enumerate((11, 16, 19, 30, 60)):
        answer = client.chat.completions.create(
            model="lexicon", messages=messages(entries[i]), max_tokens=most, seed=i, n=3,
            extra_body={"top_k": 0}, response_format=OBJECT, **WILD)
        assert all(is_object(c) for c in answer.choices)


def test_one_answer_however_it_is_asked(client, inference, lighthouse, entries):
    """Alone, beside others, streamed, over gRPC, greedy too: the same."""
    asked = {"prompt": question(lighthouse), "max_tokens": 60, "seed": 7, **WILD}
    alone = complete(client, **asked).choices[0].text
    with ThreadPoolExecutor(6) as pool:
        other = [pool.submit(client.completions.create, model="lexicon", prompt=question(e),
                             max_tokens=60) for e in entries[:5]]
        beside = complete(client, **asked).choices[0].text
        assert all(o.result().choices for o in other)
    assert beside == alone
    assert completion_text(complete(client, stream=True, **asked)) == alone
    logprobs = complete(client, logprobs=2, **asked).choices[0]
    assert logprobs.text == alone and "".join(logprobs.logprobs.tokens[:-1]) == alone
    sampling = pb.Sampling(temperature=pb.Float(value=1.5), top_p=pb.Float(value=1),
                           seed=pb.Seed(value=7))
    told = inference.Generate(
        pb.GenerateRequest(text=question(lighthouse), max_tokens=60, sampling=sampling,
                           response_format="json_object"), timeout=60 * server.FACTOR)
    assert "".join(r.delta.text for r in told) == alone
    greedy = {"model": "lexicon", "messages": messages(lighthouse), "max_tokens": 40,
              "temperature": 0, "response_format": OBJECT}
    whole = client.chat.completions.create(**greedy).choices[0]
    assert is_object(whole)
    streamed = chat_text(client.chat.completions.create(stream=True, **greedy))
    assert streamed == whole.message.content


@pytest.mark.parametrize("field, fields", [
    ("response_format", {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
    ("response_format", {"response_format": {"type": 1}}),
    ("response_format", {"response_format": "json_object"}),
    ("max_tokens", {"max_tokens": 2}),
    ("min_tokens", {"min_tokens": 1}),
    ("ignore_eos", {"ignore_eos": True}),
    ("logit_bias", {"logit_bias": {"9": -100}}),
])
def test_what_cannot_be_kept_is_refused_by_name(client, field, fields):
    asked = {"prompt": "A cat", "max_tokens": 9, "response_format": OBJECT, **fields}
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="lexicon", prompt="A cat", extra_body=asked)
    assert refused.value.param.startswith(field) and field in refused.value.message


def test_grpc_refuses_what_it_does_not_know(inference):
    with pytest.raises(grpc.RpcError) as refused:
        list(inference.Generate(pb.GenerateRequest(text="A cat", response_format="xml"),
                                timeout=60 * server.FACTOR))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "response_format" in refused.value.details()


def test_it_goes_on_where_its_group_was_lost(tmp_path, entries):
    """The tokens told before are taken through the form again: the answer is what it would have been."""
    running = server.Direct(tmp_path)
    try:
        with openai.OpenAI(base_url=f"http://{running.http}/v1", api_key="none", max_retries=0,
                           timeout=120 * server.FACTOR) as asks:
            for seed in range(30):  # one that does not end at once
                asked = {"prompt": question(entries[0]), "max_tokens": 150, "seed": seed,
                         "stream": True, **WILD}
                whole = completion_text(complete(asks, {"top_k": 0}, **asked))
                assert isinstance(json.loads(whole), dict)
                if len(whole) > 150:
                    break
            assert len(whole) > 150
            stream, told = complete(asks, {"top_k": 0}, **asked), ""
            for chunk in stream:
                told += chunk.choices[0].text
                if len(told) > 20 and len(running.workers) == 1 and running.workers[0].name == "worker":
                    running.workers.pop().child.kill()
                    running.workers.append(running.start_worker("another", running.pki))
            assert told == whole
    finally:
        running.stop()


TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
         for name in ("weather", "weather_now", "ask")]


@pytest.mark.parametrize("choice, names", [
    ("required", {"weather", "weather_now", "ask"}),
    ({"type": "function", "function": {"name": "weather"}}, {"weather"}),
])
def test_a_call_that_must_be_is_one(client, entries, choice, names):
    """Whatever the model would say, and however short it must be: one call of a tool, whose arguments parse."""
    found = set()
    for i, most in enumerate((85, 100, 120)):
        asked = {"model": "lexicon", "messages": messages(entries[i]), "tools": TOOLS,
                 "tool_choice": choice, "max_tokens": most, "seed": i, "n": 3, **WILD}
        answer = client.chat.completions.create(extra_body={"top_k": 0}, **asked)
        for c in answer.choices:
            call, = c.message.tool_calls
            assert c.finish_reason == "tool_calls" and not c.message.content
            assert isinstance(json.loads(call.function.arguments), dict)
            found.add(call.function.name)
    assert found <= names
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{**asked, "max_tokens": 12})
    assert refused.value.param == "max_tokens"
