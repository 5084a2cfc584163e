"""Many streams at once: each ends in order and says what it says alone."""

import asyncio
import json

import httpx2
import inference_pb2 as pb
import pytest

import server
from ask import messages, question

STREAMS = max(24, int(200 / server.FACTOR))
# The last makes the model, which knows its words by heart, say something of its own.
SAMPLINGS = ({"temperature": 0}, {"temperature": 0.7}, {"temperature": 1.0},
             {"temperature": 2.5, "top_p": 1, "top_k": 0})
MAX_TOKENS = 24


@pytest.fixture(scope="module")
def jobs(entries) -> list[tuple[str, dict]]:
    """Path and body of each request: chats and completions, every sampling, seeds of their own."""
    made = []
    for i in range(STREAMS):
        entry = entries[i % len(entries)]
        body = {**SAMPLINGS[i // 2 % 4], "seed": 1000 + i, "max_tokens": MAX_TOKENS}
        if i % 2:
            made.append(("/v1/chat/completions", {"messages": messages(entry), **body}))
        else:
            made.append(("/v1/completions",
                         {"prompt": question(entry), "ignore_eos": True, **body}))
    return made


def said(choice: dict) -> str:
    return choice["text"] if "text" in choice else choice["delta"].get("content") or ""


async def stream(client: httpx2.AsyncClient, path: str, body: dict) -> tuple[str, str]:
    """Text and finish reason of one stream, whose order is checked."""
    text, reason, done = "", None, False
    async with client.stream("POST", path, json={**body, "stream": True}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if not line or line.startswith(":"):  # a comment, sent while an answer waits
                continue
            assert not done and line.startswith("data: "), line
            if line == "data: [DONE]":
                done = True
                continue
            (choice,) = json.loads(line[6:])["choices"]
            assert reason is None, "an event after the reason of the end"
            text += said(choice)
            reason = choice["finish_reason"]
    assert done and reason in ("stop", "length")
    return text, reason


async def all_at_once(address: str, jobs) -> list[tuple[str, str]]:
    limits = httpx2.Limits(max_connections=len(jobs))
    async with httpx2.AsyncClient(base_url=f"http://{address}", limits=limits,
                                  timeout=120 * server.FACTOR) as client:
        return await asyncio.gather(*(stream(client, path, body) for path, body in jobs))


def alone(address: str, jobs) -> list[tuple[str, str]]:
    answers = []
    with httpx2.Client(base_url=f"http://{address}", timeout=60 * server.FACTOR) as client:
        for path, body in jobs:
            answer = client.post(path, json=body)
            assert answer.status_code == 200, answer.text
            (choice,) = answer.json()["choices"]
            text = choice["text"] if "text" in choice else choice["message"]["content"]
            answers.append((text, choice["finish_reason"]))
    return answers


def one_rank(folder, jobs) -> list[dict]:
    """What `witan run` answers to completions on one rank, without a server."""
    path = folder / "requests.jsonl"
    path.write_text("".join(json.dumps(body) + "\n" for _, body in jobs))
    out = server.witan("run", server.MODEL, "--requests", path, "--context", server.CONTEXT).stdout
    return [json.loads(line) for line in out.splitlines()]


def test_each_stream_is_as_if_alone(main, jobs, until_idle, tmp_path):
    together = asyncio.run(all_at_once(main.http, jobs))
    assert len(set(together)) > 2 * STREAMS // 3
    until_idle()
    assert alone(main.http, jobs) == together
    completions = [(job, answer) for job, answer in zip(jobs, together) if "prompt" in job[1]]
    without = one_rank(tmp_path, [job for job, _ in completions])
    assert [(a["text"], a["finish_reason"]) for a in without] == [a for _, a in completions]


def sampling(body: dict) -> pb.Sampling:
    made = pb.Sampling(temperature=pb.Float(value=body["temperature"]),
                       seed=pb.Seed(value=body["seed"]))
    if "top_p" in body:
        made.top_p.value = body["top_p"]
        made.top_k.SetInParent()  # 0: off
    return made


def test_ids_are_those_of_one_rank(inference, jobs, tmp_path):
    asked = [job for job in jobs if "prompt" in job[1]][:20]
    calls = [inference.Generate(pb.GenerateRequest(
        text=body["prompt"], max_tokens=MAX_TOKENS, token_ids_only=True, ignore_eos=True,
        sampling=sampling(body)), timeout=60 * server.FACTOR) for _, body in asked]
    ids = [[i for response in call for i in response.delta.ids] for call in calls]
    assert ids == [answer["ids"] for answer in one_rank(tmp_path, asked)]


def test_streams_that_are_dropped_free_their_place(main, jobs, status, until_idle):
    before, dropped = status().requests_done, jobs[:24]

    async def drop(client, path, body):
        async with client.stream("POST", path, json={**body, "stream": True, "max_tokens": 900,
                                                     "ignore_eos": True}) as answer:
            async for line in answer.aiter_lines():
                assert line.startswith("data: ")
                return

    async def drop_all():
        async with httpx2.AsyncClient(base_url=f"http://{main.http}",
                                      timeout=120 * server.FACTOR) as client:
            await asyncio.gather(*(drop(client, path, body) for path, body in dropped))

    asyncio.run(drop_all())
    until_idle()
    now = status()
    assert now.requests_done == before + len(dropped)
    assert all(g.kv_blocks_free == g.kv_blocks for g in now.groups)
