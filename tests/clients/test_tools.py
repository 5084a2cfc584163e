"""Tool calls as OpenAI's own client has them, from a model that says what is written here."""

import json

import openai
import pytest

import scripted
import server
import document

CALLS = ["<think>", "\nI need the ", "weather of two.\n", "</think>", "\n\nLet me ", "look.\n",
         "<tool_call>", "\n{\"na", "me\": \"get_weather\", ", "\"arguments\": {\"ci", "ty\": \"Os",
         "lo\", \"days\": 3}", "}\n", "</tool_call>", "\n<tool_call>\n{\"name\": \"now\", ",
         "\"arguments\": {}}\n</to", "ol_call>"]
ANSWER = ["It is ", "3 degrees ", "in Oslo."]
BROKEN = ["So:<tool_call>", "{\"name\": \"now\", \"arguments\": {\"a\": \"b", "\"; ", "rm}}"]
TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city.", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"]}}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}]
ASKED = {"model": "scripted", "temperature": 0, "tools": TOOLS,
         "messages": [{"role": "user", "content": "How is the weather in Oslo?"}]}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools")
    firsts = scripted.make(folder / "model", [CALLS, ANSWER, BROKEN])
    made = server.Direct(folder, model={"path": folder / "model", "name": "scripted"},
                         limits={"context": 2048})
    made.firsts = firsts
    yield made
    made.stop()


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=f"http://{running.http}/v1", api_key="none", max_retries=0,
                       timeout=60 * server.FACTOR) as made:
        yield made


def forbidding(running, count: int) -> dict:
    return {str(token): -100 for token in running.firsts[:count]}


def check_calls(message, calls):
    assert message.reasoning_content == "I need the weather of two."
    assert message.content == "Let me look."
    assert [c.function.name for c in calls] == ["get_weather", "now"]
    assert json.loads(calls[0].function.arguments) == {"city": "Oslo", "days": 3}
    assert calls[1].function.arguments == "{}"
    assert len({c.id for c in calls}) == 2 and {c.type for c in calls} == {"function"}


def test_a_whole_answer(client):
    choice = client.chat.completions.create(**ASKED).choices[0]
    assert choice.finish_reason == "tool_calls"
    check_calls(choice.message, choice.message.tool_calls)


def test_a_stream(client):
    with client.chat.completions.stream(**ASKED) as stream:
        events = list(stream)
        last = stream.get_final_completion().choices[0]
    assert last.finish_reason == "tool_calls"
    check_calls(last.message, last.message.tool_calls)
    done = [e for e in events if e.type == "tool_calls.function.arguments.done"]
    assert [(e.name, e.index) for e in done] == [("get_weather", 0), ("now", 1)]
    deltas = [e.arguments_delta for e in events if e.type == "tool_calls.function.arguments.delta"]
    assert len(deltas) > 3  # as they are drawn, not at the end


def test_both_are_as_documented(client):
    def check(name, value):
        document.check(document.whole({"$ref": f"#/components/schemas/{name}"}), value)
    check("ChatRequest", {k: v for k, v in ASKED.items() if k != "model"})
    check("ChatCompletion", client.chat.completions.with_raw_response.create(**ASKED).http_response.json())
    for chunk in client.chat.completions.create(**ASKED, stream=True):
        check("ChatChunk", chunk.model_dump(exclude_unset=True))


def test_n_and_logprobs(client):
    choices = client.chat.completions.create(**ASKED, n=2, logprobs=True).choices
    for choice in choices:
        check_calls(choice.message, choice.message.tool_calls)
        listed = "".join(t.token for t in choice.logprobs.content)
        assert "<tool_call>" in listed and listed.endswith("ol_call>")
    assert len({c.id for choice in choices for c in choice.message.tool_calls}) == 4


def test_one_call_at_a_time(client):
    answer = client.chat.completions.create(**ASKED, parallel_tool_calls=False)
    choice = answer.choices[0]
    assert [c.function.name for c in choice.message.tool_calls] == ["get_weather"]
    assert choice.finish_reason == "tool_calls"
    assert answer.usage.completion_tokens < len(CALLS)


def test_no_tools_no_calls(client):
    for asked in ({**ASKED, "tool_choice": "none"}, {k: v for k, v in ASKED.items() if k != "tools"}):
        choice = client.chat.completions.create(**asked).choices[0]
        assert choice.finish_reason == "stop" and choice.message.tool_calls is None
        assert choice.message.content.startswith("Let me look.\n<tool_call>\n{\"name\"")


def test_a_call_that_breaks_off(client, running):
    choice = client.chat.completions.create(
        **ASKED, logit_bias=forbidding(running, 2)).choices[0]
    assert choice.finish_reason == "stop"
    assert choice.message.content == "So:; rm}}"
    with pytest.raises(ValueError):
        json.loads(choice.message.tool_calls[0].function.arguments)
    cut = client.chat.completions.create(**ASKED, max_tokens=11).choices[0]
    assert cut.finish_reason == "length"
    assert cut.message.tool_calls[0].function.arguments == "{\"city\": \"Os"


def test_a_loop_of_three_turns(client, running):
    """An agent that answers each call and asks again, until there is none."""
    said = {"get_weather": lambda city, days: f"{days} degrees in {city}", "now": lambda: "noon"}
    conversation, bias, turns = list(ASKED["messages"]), {}, 0
    while turns < 3:
        message = client.chat.completions.create(**{**ASKED, "messages": conversation},
                                                 logit_bias=bias).choices[0].message
        conversation.append(message.model_dump(exclude_none=True))
        turns += 1
        for call in message.tool_calls or []:
            result = said[call.function.name](**json.loads(call.function.arguments))
            conversation.append({"role": "tool", "tool_call_id": call.id, "content": result})
        bias = forbidding(running, 1) if turns == 2 else {}
        if not message.tool_calls:
            break
    assert turns == 3 and message.content == "It is 3 degrees in Oslo."
    assert [m["role"] for m in conversation[1:]] == ["assistant", "tool", "tool"] * 2 + ["assistant"]
