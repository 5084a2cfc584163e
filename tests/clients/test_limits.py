"""A server that is full: who is refused, what they are told, and what is counted."""

import re

import grpc
import httpx2
import inference_pb2 as pb
import inference_pb2_grpc
import pytest

import server

PLACES = 16
ENDLESS = {"prompt": "A lighthouse is", "max_tokens": 4000, "ignore_eos": True, "stream": True,
           "n": PLACES}
SHORT = {"prompt": "A lighthouse is", "max_tokens": 2}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A server of few places."""
    folder = tmp_path_factory.mktemp("full")
    running = server.Direct(folder, limits={"context": 4096, "requests": PLACES})
    yield running
    running.stop()


@pytest.fixture(scope="module")
def http(full):
    with httpx2.Client(base_url=f"http://{full.http}", timeout=60 * server.FACTOR) as client:
        yield client


def figures(http) -> dict[str, float]:
    page = http.get("/metrics")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/plain")
    samples = re.findall(r"^([a-z_]+(?:\{.*\})?) (\S+)$", page.text, re.M)
    return {name: float(value) for name, value in samples}


def test_one_too_many(full, http):
    with http.stream("POST", "/v1/completions", json=ENDLESS) as held:
        lines = held.iter_lines()  # which would close the stream if nobody kept them
        assert next(lines).startswith("data: ")
        refused = http.post("/v1/completions", json=SHORT)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        error = refused.json()["error"]
        assert error["type"] == "rate_limit_error" and "(limits.requests)" in error["message"]

        with grpc.insecure_channel(full.grpc) as channel:
            stub = inference_pb2_grpc.InferenceStub(channel)
            with pytest.raises(grpc.RpcError) as raised:
                list(stub.Generate(pb.GenerateRequest(text="A lighthouse is", max_tokens=2)))
        assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "(limits.requests)" in raised.value.details()
        told = dict(raised.value.trailing_metadata())
        assert 1000 <= int(told["grpc-retry-pushback-ms"]) <= 60000
    # The client that held the places has left.
    server.poll("a place is free", 20,
                lambda: http.post("/v1/completions", json=SHORT).status_code == 200)
    seen = figures(http)
    assert seen['witan_requests_refused_total{limit="requests"}'] >= 2
    assert seen['witan_requests_finished_total{reason="cancelled"}'] == PLACES
    assert seen['witan_requests_finished_total{reason="length"}'] == 1
    assert seen['witan_http_responses_total{code="429"}'] >= 1
    assert seen['witan_grpc_calls_total{code="8"}'] == 1


def test_the_engine_is_heard(http):
    """What a rank tells in its heartbeats comes to the page."""
    assert http.post("/v1/completions", json={**SHORT, "max_tokens": 8, "ignore_eos": True}).status_code == 200

    def kinds_of(seen: dict[str, float]) -> list[float]:
        return [seen.get(f'witan_step_seconds_count{{group="g0",phase="{p}"}}', 0) for p in ("prompt", "decode")]

    def heard() -> dict[str, float] | None:
        seen = figures(http)
        drawn = seen.get('witan_drawn_tokens_total{group="g0"}', 0)
        idle = seen['witan_kv_blocks{group="g0",state="used"}'] == 0
        return seen if drawn > 2 and idle and min(kinds_of(seen)) > 0 else None
    seen = server.poll("figures of the engine", 20, heard)
    steps = seen['witan_rank_steps_total{group="g0",rank="0"}']
    assert sum(kinds_of(seen)) == pytest.approx(steps, abs=1)
    assert seen['witan_forward_seconds_total{group="g0",rank="0"}'] > 0
    assert seen['witan_queue_seconds_count{group="g0"}'] >= 2
    assert seen['witan_kv_blocks_capacity{group="g0"}'] > 0


def test_a_retry_has_the_place_of_the_older(http):
    """A stream that fills the server is asked for again before its connection is known to be dead."""
    key = {"Idempotency-Key": "one-and-the-same"}
    with http.stream("POST", "/v1/completions", json=ENDLESS, headers=key) as older:
        lines = older.iter_lines()
        assert next(lines)
        assert http.post("/v1/completions", json=SHORT).status_code == 429
        with http.stream("POST", "/v1/completions", json=ENDLESS, headers=key) as newer:
            assert newer.status_code == 200, newer.read()
            more = newer.iter_lines()
            assert next(more)
            assert any("taken over by a retry" in line for line in lines)
            assert http.post("/v1/completions", json=SHORT).status_code == 429
    server.poll("a place is free", 20,
                lambda: http.post("/v1/completions", json=SHORT).status_code == 200)
