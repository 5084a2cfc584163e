"""litellm against the HTTP door, which it speaks to as several providers. Not among the tests that run by
themselves, for the size of its packages: tests/clients/run BIN_DIR test_litellm.py."""

import asyncio
import json

import elsewhere
import litellm
import pytest

import server
from agents import FUNCTIONS, HEAT, LENGTH, QUESTION, SEED, TOOLS, chat_choice, chat_turn, three_turns
from ask import messages
from test_tools import ASKED, check_calls, running  # noqa: F401 (a fixture)

pytestmark = pytest.mark.filterwarnings("ignore")  # of its own making
litellm.suppress_debug_info = True
GREEDY = {"temperature": 0}


@pytest.fixture(scope="module")
def provider(main):
    """The fields that make litellm speak to our server as to one of these."""
    def fields(name: str, address: str = main.http, model: str = "lexicon") -> dict:
        base = f"http://{address}" + ("/v1" if name in ("openai", "hosted_vllm", "text-completion-openai") else "")
        return {"model": f"{name}/{model}", "api_base": base, "api_key": "none", "max_retries": 0,
                "num_retries": 0, "timeout": 60 * server.FACTOR}
    return fields


@pytest.mark.parametrize("name", ["openai", "hosted_vllm", "anthropic", "ollama_chat"])
def test_chat_whole_and_streamed(main, monkeypatch, provider, lighthouse, name):
    monkeypatch.setenv("OLLAMA_API_BASE", f"http://{main.http}")  # it looks at the model there, whatever the base
    asked = {"messages": messages(lighthouse), "max_tokens": 100, **provider(name), **GREEDY}
    whole = litellm.completion(**asked)
    chunks = list(litellm.completion(stream=True, stream_options={"include_usage": True}, **asked))
    built = litellm.stream_chunk_builder(chunks, messages=asked["messages"])
    for answer in (whole, built):
        assert answer.choices[0].message.content == lighthouse["answer"]
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.prompt_tokens > 5 and answer.usage.completion_tokens > 5
    assert sum(1 for c in chunks if c.choices and c.choices[0].delta.content) > 3
    assert (built.usage.prompt_tokens, built.usage.completion_tokens) == (
        whole.usage.prompt_tokens, whole.usage.completion_tokens)


def test_usage_is_the_servers(client, provider, lighthouse):
    asked = {"messages": messages(lighthouse), "seed": 7, "max_tokens": 20, **HEAT}
    plain = client.chat.completions.create(model="lexicon", **asked)
    answer = litellm.completion(**asked, **provider("openai"))
    assert answer.choices[0].message.content == plain.choices[0].message.content
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        plain.usage.prompt_tokens, plain.usage.completion_tokens, plain.usage.total_tokens)
    assert answer.system_fingerprint == plain.system_fingerprint


def test_async(provider, entries):
    async def all_at_once():
        return await asyncio.gather(*(litellm.acompletion(messages=messages(e), **GREEDY, **provider("openai"))
                                      for e in entries[:4]))
    answers = asyncio.run(all_at_once())
    assert [a.choices[0].message.content for a in answers] == [e["answer"] for e in entries[:4]]


@pytest.mark.parametrize("name", ["openai", "anthropic"])
@pytest.mark.parametrize("choice", ["required", "count"])
def test_a_call_that_must_be(provider, name, choice):
    asked = {"messages": [{"role": "user", "content": QUESTION}], "tools": TOOLS, "max_tokens": LENGTH,
             "tool_choice": chat_choice(choice), **GREEDY, **provider(name)}
    whole = litellm.completion(**asked).choices[0]
    built = litellm.stream_chunk_builder(list(litellm.completion(stream=True, **asked)),
                                         messages=asked["messages"]).choices[0]
    assert whole.finish_reason == built.finish_reason == "tool_calls"
    for found in (whole, built):
        [call] = found.message.tool_calls
        assert call.function.name in ([choice] if choice != "required" else [f["name"] for f in FUNCTIONS])
        assert isinstance(json.loads(call.function.arguments), dict)
    assert json.loads(whole.message.tool_calls[0].function.arguments) == json.loads(
        built.message.tool_calls[0].function.arguments)


def test_json_mode(provider, lighthouse):
    asked = {"messages": messages(lighthouse), "response_format": {"type": "json_object"}, "max_tokens": 40,
             "seed": 3, **HEAT, **provider("openai")}
    whole = litellm.completion(**asked).choices[0].message.content
    assert isinstance(json.loads(whole), dict)
    streamed = "".join(c.choices[0].delta.content or "" for c in litellm.completion(stream=True, **asked))
    assert streamed == whole


def test_a_thought_and_the_calls_behind_it(running, provider):  # noqa: F811
    asked = {**ASKED, **provider("openai", running.http, "scripted")}
    whole = litellm.completion(**asked).choices[0].message
    built = litellm.stream_chunk_builder(list(litellm.completion(stream=True, **asked)),
                                         messages=ASKED["messages"]).choices[0].message
    for message in (whole, built):
        check_calls(message, message.tool_calls)


def test_responses_and_completions(provider, client, lighthouse):
    response = litellm.responses(input=QUESTION, **GREEDY, **provider("openai"))
    assert response.output[-1].content[0].text == lighthouse["answer"]
    asked = {"prompt": "A lighthouse is", "max_tokens": 12, **GREEDY}
    text = litellm.text_completion(**asked, **provider("text-completion-openai"))
    assert text.choices[0].text == client.completions.create(model="lexicon", **asked).choices[0].text


class Agent:
    def __init__(self, provider):
        self.fields, self.said, self.answer = provider("openai"), [{"role": "user", "content": QUESTION}], None

    def ask(self, choice, stream):
        asked = {"messages": self.said, "tools": TOOLS, "tool_choice": chat_choice(choice),
                 "max_tokens": LENGTH, **SEED, **HEAT, **self.fields}
        if stream:
            chunks = litellm.completion(stream=True, stream_options={"include_usage": True}, **asked)
            return chat_turn(litellm.stream_chunk_builder(list(chunks), messages=self.said))
        self.answer = litellm.completion(**asked)
        return chat_turn(self.answer)

    def give(self, result):
        message = self.answer.choices[0].message
        self.said += [message.model_dump(), {"role": "tool", "tool_call_id": message.tool_calls[0].id,
                                             "content": result}]


def test_three_turns_with_two_tools(client, provider):
    three_turns(client, Agent(provider))


@pytest.mark.parametrize("name", ["openai", "anthropic"])
@pytest.mark.parametrize("kind,status,wrong", [
    (litellm.BadRequestError, 400, {"temperature": -1}),
    (litellm.ContextWindowExceededError, 400, {"messages": [{"role": "user", "content": "word " * 3000}]}),
    (litellm.NotFoundError, 404, {"model": "atlas"}),
])
def test_errors_are_the_librarys_own(provider, lighthouse, name, kind, status, wrong):
    wrong = dict(wrong)
    served = provider(name, model=wrong.pop("model", "lexicon"))
    fields = {"messages": messages(lighthouse), "max_tokens": 8, **served, **wrong}
    with pytest.raises(kind) as refused:
        litellm.completion(**fields)
    assert type(refused.value) is kind and refused.value.status_code == status
    with pytest.raises(kind):
        list(litellm.completion(stream=True, **fields))


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_key_that_is_missing(guarded_by_keys, provider, lighthouse, name):
    with pytest.raises(litellm.AuthenticationError) as refused:
        litellm.completion(messages=messages(lighthouse), **provider(name, guarded_by_keys.http))
    assert refused.value.status_code == 401


def test_no_other_host_was_asked():
    assert elsewhere.asked == []
