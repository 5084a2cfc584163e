"""thinking_budget: a thought is ended in time and nowhere else, whatever door it is asked at and whatever becomes of
its group. The model thinks for 61 tokens, as is written here."""

import json

import anthropic
import grpc
import inference_pb2 as pb
import inference_pb2_grpc as rpc
import openai
import pytest

import scripted
import server

STEPS = 60
THOUGHT = ["<think>", *(f"\nstep {i}, " for i in range(STEPS)), "done.\n", "</think>"]
ANSWER = ["\n\nIt is ", "so."]
ENDING = ("\n\nConsidering the limited time by the user, I have to give the solution based on the thinking "
          "directly now.")
ASKED = {"model": "scripted", "temperature": 0, "max_tokens": 200,
         "messages": [{"role": "user", "content": "Is it so?"}]}


def thought_of(most: int) -> str:
    return "".join(THOUGHT[1:1 + most]).lstrip("\n") + ENDING


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thinking")
    scripted.make(folder / "model", [[*THOUGHT, *ANSWER]])
    made = server.Direct(folder, model={"path": folder / "model", "name": "scripted"},
                         limits={"context": 2048, "speculate": 4})
    yield made
    made.stop()


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=f"http://{running.http}/v1", api_key="none", max_retries=0,
                       timeout=60 * server.FACTOR) as made:
        yield made


def budget(most: int, **more) -> dict:
    return {"extra_body": {"thinking_budget": most}, **more}


def test_a_long_thought_is_ended(client):
    endings = set()
    for most in (0, 1, 2, 7, 60):
        whole = client.chat.completions.create(**ASKED, **budget(most))
        message = whole.choices[0].message
        assert message.reasoning_content.lstrip("\n") == thought_of(most).lstrip("\n")
        # <think> and the ending, its tag and the empty line
        endings.add(whole.usage.completion_tokens_details.reasoning_tokens - most)
        parts = list(client.chat.completions.create(**ASKED, **budget(most), stream=True))
        told = [c.choices[0].delta for c in parts if c.choices]
        assert "".join(getattr(d, "reasoning_content", None) or "" for d in told) == \
            message.reasoning_content
        assert "".join(d.content or "" for d in told) == message.content
    assert len(endings) == 1 and 10 < endings.pop() < 120


def test_a_short_one_is_left_alone(client):
    free = client.chat.completions.create(**ASKED)
    assert free.choices[0].message.content == "It is so."
    for most in (61, 62, 150, 200, 10**9):
        bound = client.chat.completions.create(**ASKED, **budget(most))
        assert bound.choices[0].message == free.choices[0].message


def test_every_answer_of_a_request(client):
    whole = client.chat.completions.create(**{**ASKED, "temperature": 1.5}, n=4, seed=3,
                                           logprobs=True, **budget(5))
    for choice in whole.choices:
        text = choice.message.reasoning_content or ""
        assert text == "" or text.endswith(ENDING.strip()) or choice.finish_reason == "stop"
        assert len(choice.logprobs.content) > 0


def test_what_must_come_behind_it_has_room(client):
    for most, tokens in ((5, 200), (40, 160), (10**6, 160)):
        answer = client.chat.completions.create(
            **{**ASKED, "max_tokens": tokens}, response_format={"type": "json_object"},
            **budget(most)).choices[0]
        assert answer.finish_reason == "stop"
        assert isinstance(json.loads(answer.message.content), dict)
        assert most > 60 or answer.message.reasoning_content == thought_of(most)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{**ASKED, "max_tokens": 12}, **budget(3),
                                       response_format={"type": "json_object"})
    assert refused.value.param == "max_tokens" and "thinking_budget" in refused.value.message


def test_the_other_doors(running, client):
    told = client.chat.completions.create(**ASKED, **budget(6)).choices[0].message
    with anthropic.Anthropic(base_url=f"http://{running.http}", api_key="none", max_retries=0,
                             timeout=60 * server.FACTOR) as asks:
        asked = {"model": "scripted", "max_tokens": 200, "messages": ASKED["messages"],
                 "extra_body": {"temperature": 0}}
        message = asks.messages.create(
            **asked, thinking={"type": "enabled", "budget_tokens": 6})
        assert message.content[0].thinking == told.reasoning_content
        with pytest.raises(anthropic.BadRequestError) as refused:
            asks.messages.create(**asked, thinking={"type": "enabled", "budget_tokens": 200})
        assert "thinking.budget_tokens: expected fewer than max_tokens, 200" in str(refused.value)
        with pytest.raises(anthropic.BadRequestError) as refused:
            asks.messages.create(**asked, thinking={"type": "enabled", "budget_tokens": -1})
        assert "thinking.budget_tokens" in str(refused.value)
    with grpc.insecure_channel(running.grpc) as channel:
        inference = rpc.InferenceStub(channel)
        asked = pb.GenerateRequest(
            conversation=pb.Conversation(messages=[pb.Message(role="user", content="Is it so?")]),
            max_tokens=200, sampling=pb.Sampling(temperature=pb.Float(value=0)),
            thinking_budget=pb.Int(value=6))
        parts = list(inference.Generate(asked, timeout=60 * server.FACTOR))
        assert "".join(p.delta.reasoning for p in parts) == told.reasoning_content
        asked.thinking_budget.value = -1
        with pytest.raises(grpc.RpcError) as broken:
            list(inference.Generate(asked, timeout=60 * server.FACTOR))
        assert "thinking_budget: expected 0 to" in broken.value.details()
    response = client.responses.create(model="scripted", input="Is it so?", temperature=0,
                                       max_output_tokens=200, extra_body={"thinking_budget": 6})
    assert response.output[0].content[0].text == told.reasoning_content


def test_it_goes_on_where_its_group_was_lost(tmp_path):
    """In the thought, and in what ends it: the rest is what it would have been."""
    scripted.make(tmp_path / "model", [[*THOUGHT, *ANSWER]])
    running = server.Direct(tmp_path, model={"path": tmp_path / "model", "name": "scripted"},
                            limits={"context": 4096})
    asked = {**ASKED, "max_tokens": 3000, **budget(40)}
    try:
        with openai.OpenAI(base_url=f"http://{running.http}/v1", api_key="none", max_retries=0,
                           timeout=120 * server.FACTOR) as asks:
            whole = asks.chat.completions.create(**asked).choices[0].message
            told, content, killed = "", "", False
            for chunk in asks.chat.completions.create(**asked, stream=True):
                told += getattr(chunk.choices[0].delta, "reasoning_content", None) or ""
                content += chunk.choices[0].delta.content or ""
                if "step 20" in told and not killed:
                    running.workers.pop().child.kill()
                    running.workers.append(running.start_worker("another", running.pki))
                    killed = True
            assert killed and (told, content) == (whole.reasoning_content, whole.content)
            assert told == thought_of(40)
    finally:
        running.stop()
