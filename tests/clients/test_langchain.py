"""langchain-openai against the HTTP door. Not among the tests that run by themselves, for the size of its
packages: tests/clients/run BIN_DIR test_langchain.py."""

import asyncio
import functools
import json
import operator

import elsewhere
import pytest
from langchain_core import exceptions
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

import server
from agents import HEAT, LENGTH, QUESTION, SEED, TOOLS, Turn, three_turns
from ask import question
from test_tools import ASKED, running  # noqa: F401 (a fixture)


@pytest.fixture(scope="module")
def chat(main):
    def made(address: str = main.http, **fields):
        return ChatOpenAI(**{"model": "lexicon", "base_url": f"http://{address}/v1", "api_key": "none",
                             "max_retries": 0, "timeout": 60 * server.FACTOR, "temperature": 0, **fields})
    return made


def joined(chunks):
    """The message that the chunks of a stream are."""
    return functools.reduce(operator.add, chunks)


def test_chat_whole_and_streamed(chat, lighthouse):
    model = chat(stream_usage=True)
    whole = model.invoke(question(lighthouse))
    chunks = list(model.stream(question(lighthouse)))
    for message in (whole, joined(chunks)):
        assert message.content == lighthouse["answer"]
        assert message.response_metadata["finish_reason"] == "stop"
        assert message.response_metadata["model_name"] == "lexicon"
    assert len(chunks) > 4
    assert joined(chunks).usage_metadata == whole.usage_metadata


def test_usage_is_the_servers(chat, client, lighthouse):
    plain = client.chat.completions.create(model="lexicon", messages=[
        {"role": "user", "content": question(lighthouse)}], seed=7, max_tokens=20, **HEAT)
    message = chat(seed=7, max_tokens=20, **HEAT).invoke(question(lighthouse))
    assert message.content == plain.choices[0].message.content
    usage = message.usage_metadata
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (
        plain.usage.prompt_tokens, plain.usage.completion_tokens, plain.usage.total_tokens)


def test_batches_and_async(chat, entries):
    questions, answers = zip(*((question(e), e["answer"]) for e in entries[:4]))
    assert tuple(m.content for m in chat().batch(list(questions))) == answers
    assert tuple(m.content for m in asyncio.run(chat().abatch(list(questions)))) == answers


@pytest.mark.parametrize("responses", [False, True])
@pytest.mark.parametrize("choice", ["required", "count"])
def test_a_call_that_must_be(chat, responses, choice):
    model = chat(max_tokens=LENGTH, use_responses_api=responses).bind_tools(TOOLS, tool_choice=choice)
    whole, streamed = model.invoke(QUESTION), joined(model.stream(QUESTION))
    for message in (whole, streamed):
        [call] = message.tool_calls
        assert call["name"] in ([choice] if choice != "required" else [t["function"]["name"] for t in TOOLS])
        assert message.invalid_tool_calls == [] and message.text == ""
    assert whole.tool_calls[0]["args"] == streamed.tool_calls[0]["args"]


class Word(BaseModel):
    """A word and what it means."""
    word: str = ""
    meanings: list = []


def test_json_mode_and_structures(chat, lighthouse):
    model = chat(max_tokens=40, seed=3, **HEAT).bind(response_format={"type": "json_object"})
    whole = model.invoke(question(lighthouse)).content
    assert isinstance(json.loads(whole), dict)
    assert joined(model.stream(question(lighthouse))).content == whole
    for method in ("json_mode", "function_calling"):
        made = chat(max_tokens=LENGTH).with_structured_output(Word, method=method, include_raw=True)
        found = made.invoke(question(lighthouse))
        assert found["raw"].tool_calls or isinstance(json.loads(found["raw"].content), dict)
    with pytest.raises(exceptions.ModelInvalidRequestError, match="json_schema"):
        chat().with_structured_output(Word, method="json_schema").invoke(question(lighthouse))


def test_a_thought_and_the_calls_behind_it(running, chat):  # noqa: F811
    """The library takes thoughts from whole responses alone, not from chat nor from streams."""
    for responses in (False, True):
        model = chat(running.http, model="scripted", use_responses_api=responses).bind_tools(ASKED["tools"])
        whole, streamed = model.invoke(ASKED["messages"]), joined(model.stream(ASKED["messages"]))
        for message in (whole, streamed):
            assert message.text == "Let me look."
            assert [(c["name"], c["args"]) for c in message.tool_calls] == [
                ("get_weather", {"city": "Oslo", "days": 3}), ("now", {})]
        if responses:
            [thought] = [b for b in whole.content_blocks if b["type"] == "reasoning"]
            assert "I need the weather of two." in json.dumps(thought)


class Agent:
    def __init__(self, chat):
        self.model = chat(max_tokens=LENGTH, stream_usage=True, **SEED, **HEAT)
        self.said, self.answer = [HumanMessage(QUESTION)], None

    def ask(self, choice, stream):
        model = self.model.bind_tools(TOOLS, tool_choice=choice)
        answer = joined(model.stream(self.said)) if stream else model.invoke(self.said)
        if not stream:
            self.answer = answer
        assert answer.invalid_tool_calls == []
        return Turn(answer.text, [(c["name"], c["args"]) for c in answer.tool_calls],
                    answer.usage_metadata["input_tokens"], answer.usage_metadata["output_tokens"])

    def give(self, result):
        [call] = self.answer.tool_calls
        self.said += [self.answer, ToolMessage(result, tool_call_id=call["id"])]

def test_three_turns_with_two_tools(chat, client):
    three_turns(client, Agent(chat))


@pytest.mark.parametrize("kind,status,fields,words", [
    (exceptions.ModelInvalidRequestError, 400, {"temperature": -1}, "x"),
    (exceptions.ContextOverflowError, 400, {}, "word " * 3000),
    (exceptions.ModelNotFoundError, 404, {"model": "atlas"}, "x"),
])
def test_errors_are_the_librarys_own(chat, kind, status, fields, words):
    for ask in (lambda m: m.invoke(words), lambda m: list(m.stream(words))):
        with pytest.raises(kind) as refused:
            ask(chat(**fields))
        assert refused.value.status_code == status


def test_a_key_that_is_missing(guarded_by_keys, chat):
    with pytest.raises(exceptions.ModelAuthenticationError) as refused:
        chat(guarded_by_keys.http).invoke("x")
    assert refused.value.status_code == 401


def test_no_other_host_was_asked():
    assert elsewhere.asked == []
