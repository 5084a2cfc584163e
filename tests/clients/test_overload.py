"""A server that is asked for far more than it can do: who gets in is answered as ever, who does not is
told when to come again, and neither takes memory that is not given back."""

import asyncio
import collections
import re
import time

import httpx2
import pytest

import server

CLIENTS = 64
SECONDS = 2 * min(server.FACTOR, 3)
PROMPTS = [f"A lighthouse is {word}" for word in ("tall", "old", "red", "far", "new", "mine")]
SIZES = {"max_tokens": 48, "temperature": 0, "ignore_eos": True}
GROWTH_MB = 64 if server.FACTOR == 1 else 1024  # sanitizers keep what is freed for a while


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """One sequence at once; whoever would wait for more than 300 ms is refused."""
    if server.MODE != "direct":
        pytest.skip("the same server as with --direct")
    running = server.Direct(tmp_path_factory.mktemp("small"),
                            limits={"context": 1024, "sequences": 1, "threads": 1,
                                    "waiting_ms": int(300 * server.FACTOR)})
    yield running
    running.stop()


@pytest.fixture(scope="module")
def http(small):
    with httpx2.Client(base_url=f"http://{small.http}", timeout=120 * server.FACTOR) as client:
        yield client


def figures(http) -> dict[str, float]:
    page = http.get("/metrics")
    samples = re.findall(r"^([a-z_]+(?:\{.*\})?) (\S+)$", page.text, re.M)
    return {name: float(value) for name, value in samples}


def text_of(answer) -> str:
    return answer.json()["choices"][0]["text"]


def check_refusal(answer):
    assert answer.status_code in (429, 503), answer.text
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    error = answer.json()["error"]
    assert "try again in" in error["message"] or answer.status_code == 503, error


async def ask_on(client, number: int, expected: dict, seen: collections.Counter, end: float):
    """One client that does not wait as it is told to."""
    while time.monotonic() < end:
        prompt = PROMPTS[number % len(PROMPTS)]
        answer = await client.post("/v1/completions", json={"prompt": prompt, **SIZES})
        seen[answer.status_code] += 1
        if answer.status_code == 200:
            assert text_of(answer) == expected[prompt]
        else:
            check_refusal(answer)
            await asyncio.sleep(0.05)


async def flood(address: str, expected: dict, seen: collections.Counter):
    end = time.monotonic() + SECONDS
    limits = httpx2.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with httpx2.AsyncClient(base_url=f"http://{address}", limits=limits,
                                  timeout=120 * server.FACTOR) as client:
        await asyncio.gather(*(ask_on(client, i, expected, seen, end) for i in range(CLIENTS)))


def test_a_flood(small, http):
    expected = {}
    for prompt in PROMPTS:
        answer = http.post("/v1/completions", json={"prompt": prompt, **SIZES})
        assert answer.status_code == 200
        expected[prompt] = text_of(answer)
    # How fast it is shows only under load: of the first flood it takes more.
    asyncio.run(flood(small.http, expected, collections.Counter()))
    before, seen = figures(http), collections.Counter()
    asyncio.run(flood(small.http, expected, seen))
    after = figures(http)
    print(f"a flood: {dict(seen)}")
    assert seen[200] > 0 and seen[429] > seen[200] and set(seen) <= {200, 429}
    assert after['witan_requests_refused_total{limit="waiting_ms"}'] >= seen[429]
    assert after["witan_requests_running"] == 0 and after["witan_waiting_tokens{group=\"g0\"}"] == 0
    grown = after["process_resident_memory_bytes"] - before["process_resident_memory_bytes"]
    assert grown < GROWTH_MB << 20
    # And it is as it was.
    again = http.post("/v1/completions", json={"prompt": PROMPTS[0], **SIZES})
    assert again.status_code == 200 and text_of(again) == expected[PROMPTS[0]]


def test_no_group(small, http):
    """Without its rank the server says when to come again, too."""
    small.workers[0].child.kill()
    small.workers.pop().child.wait()
    server.poll("the group is lost", 20,
                lambda: http.get("/health/ready").status_code == 503)
    answers = [http.post("/v1/completions", json={"prompt": "x", **SIZES}) for _ in range(8)]
    for answer in answers:
        assert answer.status_code == 503
        check_refusal(answer)
        assert 4 <= int(answer.headers["Retry-After"]) <= 6
