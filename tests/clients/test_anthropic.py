"""Anthropic's own client against the HTTP door."""

import anthropic
import httpx2
import pytest

import server
from ask import messages, question

# The package no longer takes the fields of sampling, which the API has.
GREEDY = {"model": "lexicon", "max_tokens": 200, "extra_body": {"temperature": 0}}
HOT = {"temperature": 3, "top_p": 1.0, "top_k": 0}
WARM = {"model": "lexicon", "max_tokens": 24, "extra_body": HOT}


@pytest.fixture(scope="module")
def claude(main):
    with anthropic.Anthropic(base_url=f"http://{main.http}", api_key="none", max_retries=0,
                             timeout=60 * server.FACTOR) as made:
        yield made


def text_of(message) -> str:
    return "".join(b.text for b in message.content if b.type == "text")


def test_message_answers_exactly(claude, entries):
    for entry in entries[:2]:
        message = claude.messages.create(messages=messages(entry), **GREEDY)
        assert text_of(message) == entry["answer"]
        assert (message.type, message.role, message.model) == ("message", "assistant", "lexicon")
        assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
        assert message.id.startswith("msg_")


def test_stream_is_the_whole_message(claude, lighthouse):
    asked = {"messages": messages(lighthouse), **GREEDY}
    whole = claude.messages.create(**asked)
    types = []
    with claude.messages.stream(**asked) as stream:
        for event in stream:
            types.append(event.type)
        final = stream.get_final_message()
    assert text_of(final) == text_of(whole) == lighthouse["answer"]
    assert final.stop_reason == "end_turn"
    assert types[0] == "message_start" and types[-1] == "message_stop"
    assert types.index("content_block_start") < types.index("content_block_delta")
    assert types.count("content_block_start") == types.count("content_block_stop") == 1
    assert types.count("text") > 3
    for usage in (whole.usage, final.usage):
        assert usage.input_tokens + usage.cache_read_input_tokens > 5
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_usage_is_the_chat_doors(claude, client, lighthouse):
    system = "You are a dictionary."
    chat = client.chat.completions.create(
        messages=[{"role": "system", "content": system}, *messages(lighthouse)], model="lexicon",
        temperature=0, max_tokens=8, extra_body={"enable_thinking": False})
    asked = {"messages": messages(lighthouse), "model": "lexicon"}
    for given in (system, [{"type": "text", "text": system[:7]}, {"type": "text", "text": system[7:]}]):
        message = claude.messages.create(system=given, max_tokens=8, extra_body={"temperature": 0},
                                         **asked)
        usage = message.usage
        assert usage.input_tokens + usage.cache_read_input_tokens == chat.usage.prompt_tokens
        assert usage.output_tokens == chat.usage.completion_tokens == 8
        assert message.stop_reason == "max_tokens"
        assert text_of(message) == chat.choices[0].message.content
        counted = claude.messages.count_tokens(system=given, **asked)
        assert counted.input_tokens == chat.usage.prompt_tokens


def test_a_seed_is_the_chat_doors(claude, client, lighthouse):
    for seed in (7, 8):
        chat = client.chat.completions.create(
            messages=messages(lighthouse), seed=seed, model="lexicon", temperature=3, top_p=1,
            max_tokens=24, extra_body={"top_k": 0, "enable_thinking": False})
        message = claude.messages.create(messages=messages(lighthouse),
                                         **{**WARM, "extra_body": {**HOT, "seed": seed}})
        assert text_of(message) == chat.choices[0].message.content


def test_a_conversation_in_blocks(claude, lighthouse, entries):
    river = next(e for e in entries if e["word"] == "river")
    talk = [{"role": "user", "content": [{"type": "text", "text": question(lighthouse)}]},
            {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"},
                                              {"type": "text", "text": lighthouse["answer"]}]},
            {"role": "user", "content": "And a river?"}]
    assert text_of(claude.messages.create(messages=talk, **GREEDY)) == river["answer"]


def test_stop_sequences(claude, lighthouse):
    cut = lighthouse["answer"].find(" tower")
    asked = {"messages": messages(lighthouse), "stop_sequences": ["nowhere", " tower"], **GREEDY}
    message = claude.messages.create(**asked)
    with claude.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    for found in (message, streamed):
        assert text_of(found) == lighthouse["answer"][:cut]
        assert (found.stop_reason, found.stop_sequence) == ("stop_sequence", " tower")


def test_length_is_cut_to_the_context(claude, lighthouse):
    message = claude.messages.create(messages=messages(lighthouse), **{**GREEDY, "max_tokens": 32000})
    assert text_of(message) == lighthouse["answer"]


# What is refused, and the words that name it.
BAD = [
    ("messages[0].content[0].text: expected a string, found an integer",
     {"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}),
    ("messages[0].content[0].type: \"image\" is not supported",
     {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}),
    ("messages[0].role: expected user or assistant", {"messages": [{"role": "x", "content": "y"}]}),
    ("messages: expected 1 to", {"messages": []}),
    ("system: expected a string or an array", {"system": 5}),
    ("max_tokens: expected 1 to", {"max_tokens": 0}),
    ("temperature", {"extra_body": {"temperature": -1}}),
    ("stop_sequences[0]: expected 1 to 1024 bytes", {"stop_sequences": [""]}),
    ("stop_sequences[0]: expected a string", {"stop_sequences": [3]}),
    ("tools[0].type: \"computer_20250124\" is not supported",
     {"tools": [{"type": "computer_20250124", "name": "computer"}]}),
    ("tool_choice.type", {"tool_choice": {"type": "perhaps"}}),
    ("thinking.type", {"thinking": {"type": "hard"}}),
    ("context", {"messages": [{"role": "user", "content": "word " * 3000}]}),
]


@pytest.mark.parametrize("words,wrong", BAD)
def test_bad_requests_name_the_field(claude, lighthouse, words, wrong):
    with pytest.raises(anthropic.BadRequestError) as refused:
        claude.messages.create(**{"messages": messages(lighthouse), **GREEDY, **wrong})
    assert refused.value.body["type"] == "error" and refused.value.body["request_id"]
    assert refused.value.body["error"]["type"] == "invalid_request_error"
    assert words in refused.value.body["error"]["message"]


def test_unknown_model_and_fields(claude, main, lighthouse):
    with pytest.raises(anthropic.NotFoundError) as refused:
        claude.messages.create(**{"messages": messages(lighthouse), **GREEDY, "model": "atlas"})
    assert refused.value.body["error"]["type"] == "not_found_error"
    # One that the API does not know changes nothing.
    message = claude.messages.create(messages=messages(lighthouse), model="lexicon", max_tokens=200,
                                     extra_body={"wisdom": 3, "temperature": 0})
    assert text_of(message) == lighthouse["answer"]
    bad = httpx2.post(f"http://{main.http}/v1/messages", content=b"{", timeout=30 * server.FACTOR)
    assert bad.status_code == 400 and bad.json()["type"] == "error"


def test_models(claude):
    [model] = claude.models.list()
    assert (model.type, model.id, model.display_name) == ("model", "lexicon", "lexicon")
    assert model.created_at.year > 2020 and model.max_input_tokens == server.CONTEXT
    assert claude.models.retrieve("lexicon").model_dump() == model.model_dump()
    with pytest.raises(anthropic.NotFoundError) as refused:
        claude.models.retrieve("atlas")
    assert refused.value.body["error"]["type"] == "not_found_error"


def test_requests_have_names(claude, lighthouse):
    asked = {"messages": messages(lighthouse), **WARM}
    names = {claude.messages.create(**asked)._request_id for _ in range(2)}
    with claude.messages.stream(**asked) as stream:
        stream.until_done()
        names.add(stream.request_id)
    with pytest.raises(anthropic.BadRequestError) as refused:
        claude.messages.create(**{**asked, "max_tokens": 0})
    assert refused.value.request_id == refused.value.body["request_id"]
    names.add(refused.value.request_id)
    assert len(names) == 4 and all(len(name) == 24 for name in names)


def test_a_repeated_key_is_the_answer_again(claude, lighthouse):
    asked = {"messages": messages(lighthouse), "extra_headers": {"Idempotency-Key": "claude-1"}, **WARM}
    first = claude.messages.create(**asked)
    assert claude.messages.create(**asked) == first
    with pytest.raises(anthropic.BadRequestError) as refused:
        claude.messages.create(**{**asked, "extra_headers": {"Idempotency-Key": "claude-2",
                                                             "Last-Event-ID": "x"}})
    assert "Last-Event-ID" in refused.value.body["error"]["message"]
