"""Tool calls over the other APIs, as their own clients have them: the model of test_tools.py."""

import json

import anthropic
import httpx2
import ollama
import openai
import pytest

import document
import scripted
import server
from test_tools import ANSWER, BROKEN, CALLS, TOOLS

QUESTION = [{"role": "user", "content": "How is the weather in Oslo?"}]
FUNCTIONS = [t["function"] for t in TOOLS]
ANTHROPIC_TOOLS = [{"name": f["name"], "description": f.get("description", ""),
                    "input_schema": f["parameters"]} for f in FUNCTIONS]
RESPONSES_TOOLS = [{"type": "function", "strict": False, **f} for f in FUNCTIONS]
GREEDY = {"extra_body": {"temperature": 0}}
OSLO = {"city": "Oslo", "days": 3}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doors")
    scripted.make(folder / "model", [CALLS, ANSWER, BROKEN])
    made = server.Direct(folder, model={"path": folder / "model", "name": "scripted"},
                         limits={"context": 2048})
    yield made
    made.stop()


def test_anthropic(running):
    asked = {"model": "scripted", "max_tokens": 1500, "messages": QUESTION, "tools": ANTHROPIC_TOOLS,
             "thinking": {"type": "enabled", "budget_tokens": 1024}, **GREEDY}
    with anthropic.Anthropic(base_url=f"http://{running.http}", api_key="none", max_retries=0,
                             timeout=60 * server.FACTOR) as client:
        whole = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            events = [e.type for e in stream]
            streamed = stream.get_final_message()
        counted = client.messages.count_tokens(**{k: asked[k] for k in
                                                  ("model", "messages", "tools", "thinking")})
        # What was said goes back as it came, with what the tools gave.
        results = [{"type": "tool_result", "tool_use_id": b.id, "content": "3 degrees"}
                   for b in whole.content if b.type == "tool_use"]
        talk = [*QUESTION, {"role": "assistant", "content": whole.content},
                {"role": "user", "content": results}]
        assert client.messages.create(**{**asked, "messages": talk}).content
    for message in (whole, streamed):
        assert [b.type for b in message.content] == ["thinking", "text", "tool_use", "tool_use"]
        assert message.content[0].thinking == "I need the weather of two."
        assert message.content[1].text == "Let me look."
        assert (message.content[2].name, message.content[2].input) == ("get_weather", OSLO)
        assert (message.content[3].name, message.content[3].input) == ("now", {})
        assert message.stop_reason == "tool_use"
    assert events.count("input_json") > 3
    assert counted.input_tokens == whole.usage.input_tokens + whole.usage.cache_read_input_tokens


def test_responses(running):
    asked = {"model": "scripted", "input": QUESTION, "tools": RESPONSES_TOOLS, "temperature": 0}
    with openai.OpenAI(base_url=f"http://{running.http}/v1", api_key="none", max_retries=0,
                       timeout=60 * server.FACTOR) as client:
        whole = client.responses.create(**asked)
        with client.responses.stream(**asked) as stream:
            events = [e.type for e in stream]
            streamed = stream.get_final_response()
        outputs = [{"type": "function_call_output", "call_id": i.call_id, "output": "3 degrees"}
                   for i in whole.output if i.type == "function_call"]
        talk = [*QUESTION, *(i.model_dump(exclude_none=True) for i in whole.output), *outputs]
        assert client.responses.create(**{**asked, "input": talk}).output
    for response in (whole, streamed):
        assert [i.type for i in response.output] == ["reasoning", "message", "function_call",
                                                     "function_call"]
        assert response.output_text == "Let me look."
        calls = response.output[2:]
        assert [(c.name, json.loads(c.arguments)) for c in calls] == [("get_weather", OSLO), ("now", {})]
        assert len({c.call_id for c in calls}) == 2
        assert response.status == "completed"
    assert events.count("response.function_call_arguments.delta") > 3
    assert events.count("response.function_call_arguments.done") == 2


def test_ollama(running):
    client = ollama.Client(host=f"http://{running.http}", timeout=60 * server.FACTOR)
    asked = {"model": "scripted", "messages": QUESTION, "tools": TOOLS, "think": True,
             "options": {"temperature": 0}}
    whole = client.chat(**asked)
    parts = list(client.chat(stream=True, **asked))
    calls = [c for p in parts for c in p.message.tool_calls or []]
    assert "".join(p.message.content or "" for p in parts) == whole.message.content == "Let me look."
    assert "".join(p.message.thinking or "" for p in parts) == whole.message.thinking
    for found in (calls, whole.message.tool_calls):
        assert [(c.function.name, dict(c.function.arguments)) for c in found] == [
            ("get_weather", OSLO), ("now", {})]
    talk = [*QUESTION, whole.message, {"role": "tool", "content": "3 degrees", "tool_name": "now"}]
    assert client.chat(**{**asked, "messages": talk}).done
    assert "tools" in client.show("scripted").capabilities


# A thought, a text and two calls, and later a call that breaks off.
DOORS = {
    "/v1/chat/completions": {"messages": QUESTION, "tools": TOOLS, "temperature": 0},
    "/v1/responses": {"input": QUESTION, "tools": RESPONSES_TOOLS, "temperature": 0},
    "/v1/messages": {"messages": QUESTION, "tools": ANTHROPIC_TOOLS, "temperature": 0, "max_tokens": 500,
                     "thinking": {"type": "adaptive"}},
    "/api/chat": {"model": "scripted", "messages": QUESTION, "tools": TOOLS, "think": True,
                  "options": {"temperature": 0}},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", DOORS)
def test_all_of_it_is_documented(running, path, stream):
    """Every kind of block, item, line and event fits docs/openapi.yaml."""
    asked = {**DOORS[path], "stream": stream}
    document.check(document.body_schema(path, "post"), asked)
    answer = httpx2.post(f"http://{running.http}{path}", json=asked, timeout=60 * server.FACTOR)
    kind = answer.headers["content-type"].partition(";")[0]
    values = document.check_answer(path, "post", answer.status_code, answer.headers, kind, answer.text)
    assert answer.status_code == 200 and len(values) > (8 if stream and path != "/api/chat" else 0)
    for words in ("I need the ", "get_weather", '"now"'):
        assert words in answer.text


# What the model has said and been told, as its chat template has it.
BETWEEN = ("<think>\nI need the weather of two.\n</think>\n\nLet me look.\n"
           "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\", \"days\": 3}}\n</tool_call>\n"
           "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call><|im_end|>\n<|im_start|>user\n"
           "<tool_response>\n3 degrees\n</tool_response>\n<tool_response>\nnoon\n</tool_response><|im_end|>\n"
           "<|im_start|>assistant\n")
GIVEN = ("3 degrees", "noon")


def chat_prompts(client, running):
    asked = {"model": "scripted", "tools": TOOLS, "temperature": 0}
    first = client.chat.completions.create(messages=QUESTION, **asked)
    message = first.choices[0].message
    results = [{"role": "tool", "tool_call_id": c.id, "content": given}
               for c, given in zip(message.tool_calls, GIVEN)]
    talk = [*QUESTION, message.model_dump(exclude_none=True), *results]
    return first.usage.prompt_tokens, client.chat.completions.create(messages=talk, **asked).usage.prompt_tokens


def responses_prompts(client, running):
    asked = {"model": "scripted", "tools": RESPONSES_TOOLS, "temperature": 0}
    first = client.responses.create(input=QUESTION, **asked)
    results = [{"type": "function_call_output", "call_id": c.call_id, "output": given}
               for c, given in zip(first.output[2:], GIVEN)]
    talk = [*QUESTION, *(i.model_dump(exclude_none=True) for i in first.output), *results]
    return first.usage.input_tokens, client.responses.create(input=talk, **asked).usage.input_tokens


def messages_prompts(client, running):
    asked = {"model": "scripted", "max_tokens": 500, "tools": ANTHROPIC_TOOLS,
             "thinking": {"type": "adaptive"}, **GREEDY}
    with anthropic.Anthropic(base_url=f"http://{running.http}", api_key="none", max_retries=0,
                             timeout=60 * server.FACTOR) as claude:
        first = claude.messages.create(messages=QUESTION, **asked)
        results = [{"type": "tool_result", "tool_use_id": b.id, "content": given}
                   for b, given in zip(first.content[2:], GIVEN)]
        talk = [*QUESTION, {"role": "assistant", "content": first.content},
                {"role": "user", "content": results}]
        second = claude.messages.create(messages=talk, **asked)
    return tuple(m.usage.input_tokens + m.usage.cache_read_input_tokens for m in (first, second))


def ollama_prompts(client, running):
    llama = ollama.Client(host=f"http://{running.http}", timeout=60 * server.FACTOR)
    asked = {"model": "scripted", "tools": TOOLS, "think": True, "options": {"temperature": 0}}
    first = llama.chat(messages=QUESTION, **asked)
    results = [{"role": "tool", "content": given, "tool_name": c.function.name}
               for c, given in zip(first.message.tool_calls, GIVEN)]
    second = llama.chat(messages=[*QUESTION, first.message, *results], **asked)
    return first.prompt_eval_count, second.prompt_eval_count


@pytest.mark.parametrize("door", [chat_prompts, responses_prompts, messages_prompts, ollama_prompts])
def test_what_goes_back_is_what_was_said(main, running, door):
    """Through every door, to the token: so that the model knows it again."""
    with openai.OpenAI(base_url=f"http://{running.http}/v1", api_key="none", max_retries=0,
                       timeout=60 * server.FACTOR) as client:
        first, second = door(client, running)
    # By the other server: to this one the pieces of the script are tokens, of which prompts have none.
    between = httpx2.post(f"http://{main.http}/tokenize", json={"prompt": BETWEEN},
                          timeout=60 * server.FACTOR).json()["count"]
    assert second - first == between
