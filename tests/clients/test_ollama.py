"""Ollama's own client against the HTTP door."""

import json

import httpx2
import ollama
import pytest

import server
from ask import messages, question

GREEDY = {"temperature": 0}
HOT = {"temperature": 3, "top_p": 1.0, "top_k": 0, "num_predict": 24}


@pytest.fixture(scope="module")
def llama(main):
    return ollama.Client(host=f"http://{main.http}", timeout=60 * server.FACTOR)


def test_chat_answers_exactly(llama, entries):
    for entry in entries[:2]:
        answer = llama.chat("lexicon", messages=messages(entry), options=GREEDY)
        assert answer.message.content == entry["answer"]
        assert (answer.message.role, answer.model) == ("assistant", "lexicon")
        assert answer.done and answer.done_reason == "stop"
        assert answer.total_duration >= answer.eval_duration >= 0


def test_chat_stream_is_the_whole_answer_in_pieces(llama, lighthouse):
    parts = list(llama.chat("lexicon:latest", messages=messages(lighthouse), stream=True,
                            options=GREEDY))
    assert "".join(p.message.content for p in parts) == lighthouse["answer"]
    assert len(parts) > 4 and [p.done for p in parts] == [False] * (len(parts) - 1) + [True]
    whole = llama.chat("lexicon", messages=messages(lighthouse), options=GREEDY)
    assert parts[-1].eval_count == whole.eval_count
    assert parts[-1].prompt_eval_count == whole.prompt_eval_count


def test_streams_unless_told_otherwise(main, lighthouse):
    body = {"model": "lexicon", "messages": messages(lighthouse), "options": GREEDY}
    answer = httpx2.post(f"http://{main.http}/api/chat", json=body, timeout=60 * server.FACTOR)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert json.loads(answer.text.splitlines()[-1])["done"] is True


def test_seed_and_usage_are_the_chat_doors(llama, client, lighthouse):
    asked = [{"role": "system", "content": "You are a dictionary."}, *messages(lighthouse)]
    chat = client.chat.completions.create(messages=asked, model="lexicon", seed=9, temperature=3,
                                          top_p=1, max_tokens=24, extra_body={"top_k": 0})
    answer = llama.chat("lexicon", messages=asked, options={**HOT, "seed": 9})
    assert answer.message.content == chat.choices[0].message.content
    assert answer.prompt_eval_count == chat.usage.prompt_tokens
    assert answer.eval_count == chat.usage.completion_tokens
    generated = llama.generate("lexicon", prompt=question(lighthouse), system="You are a dictionary.",
                               options={**HOT, "seed": 9})
    assert generated.response == answer.message.content


def test_generate_raw_is_a_completion(llama, client):
    text = client.completions.create(model="lexicon", prompt="A lighthouse is", max_tokens=16,
                                     temperature=0).choices[0].text
    asked = {"prompt": "A lighthouse is", "raw": True, "options": {**GREEDY, "num_predict": 16}}
    assert llama.generate("lexicon", **asked).response == text
    parts = list(llama.generate("lexicon", stream=True, **asked))
    assert "".join(p.response for p in parts) == text
    assert parts[-1].done_reason in ("length", "stop")


def test_length_and_stop(llama, lighthouse):
    answer = llama.chat("lexicon", messages=messages(lighthouse), options={**GREEDY, "num_predict": 6})
    assert (answer.done_reason, answer.eval_count) == ("length", 6)
    cut = lighthouse["answer"].find(" tower")
    answer = llama.chat("lexicon", messages=messages(lighthouse),
                        options={**GREEDY, "stop": [" tower"], "num_predict": -1})
    assert answer.message.content == lighthouse["answer"][:cut]


def test_models(llama, main):
    listed = llama.list().models
    assert [m.model for m in listed] == ["lexicon"]
    assert listed[0].size > 0 and listed[0].details.parameter_size
    shown = llama.show("lexicon:latest")
    assert "completion" in shown.capabilities
    assert shown.modelinfo["general.parameter_count"] > 0
    assert shown.details.family == shown.modelinfo["general.architecture"]
    version = httpx2.get(f"http://{main.http}/api/version", timeout=30 * server.FACTOR).json()
    assert version["version"]


def test_loading_is_nothing_to_do(llama):
    assert llama.generate("lexicon").done_reason == "load"
    assert llama.chat("lexicon").done_reason == "load"


@pytest.mark.parametrize("words,wrong", [
    ("options.temperature: expected", {"options": {"temperature": -1}}),
    ("options.top_k: expected", {"options": {"top_k": -7}}),
    ("options.mirostat: not supported", {"options": {"mirostat": 2}}),
    ("messages[0].images: not supported",
     {"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}),
    ("messages[0].role: expected", {"messages": [{"role": "wizard", "content": "x"}]}),
    ("logprobs: not supported", {"logprobs": True}),
])
def test_bad_requests_name_the_field(llama, lighthouse, words, wrong):
    with pytest.raises(ollama.ResponseError) as refused:
        llama.chat(**{"model": "lexicon", "messages": messages(lighthouse), **wrong})
    assert refused.value.status_code == 400 and words in refused.value.error


def test_what_there_is_not(llama, lighthouse):
    with pytest.raises(ollama.ResponseError) as refused:
        llama.chat("atlas", messages=messages(lighthouse))
    assert refused.value.status_code == 404 and "lexicon" in refused.value.error
    for call in (lambda: llama.pull("lexicon"), lambda: llama.embed("lexicon", input="x")):
        with pytest.raises(ollama.ResponseError) as refused:
            call()
        assert refused.value.status_code == 501
