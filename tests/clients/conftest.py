"""What the tests share: the main server of a run, clients of it, and what one can ask it."""

import asyncio
import json

import grpc
import inference_pb2
import inference_pb2_grpc
import openai
import pytest

import server

pytest.register_assert_rewrite("agents")


@pytest.fixture(scope="session")
def main(tmp_path_factory):
    """The server that most tests use; its end is a test too."""
    folder = tmp_path_factory.mktemp("main")
    running = server.Direct(folder) if server.MODE == "direct" else server.Serve(folder)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def guarded_by_keys(tmp_path_factory):
    """A server that demands keys, and no group: who has none comes no further."""
    folder = tmp_path_factory.mktemp("by-keys")
    server.witan("key", "create", "--file", folder / "keys", "--name", "one", "--scopes", "generate")
    running = server.Direct(folder, workers=False, listen={"keys": folder / "keys"})
    yield running
    running.stop()


@pytest.fixture(scope="session")
def client(main):
    with openai.OpenAI(base_url=f"http://{main.http}/v1", api_key="none", max_retries=0,
                       timeout=60 * server.FACTOR) as made:
        yield made


@pytest.fixture
def with_async(main):
    """Runs a coroutine function of an AsyncOpenAI."""
    async def call(fn):
        async with openai.AsyncOpenAI(base_url=f"http://{main.http}/v1", api_key="none",
                                      max_retries=0, timeout=60 * server.FACTOR) as made:
            return await fn(made)
    return lambda fn: asyncio.run(call(fn))


@pytest.fixture(scope="session")
def channel(main):
    with grpc.insecure_channel(main.grpc) as made:
        yield made


@pytest.fixture(scope="session")
def inference(channel):
    return inference_pb2_grpc.InferenceStub(channel)


@pytest.fixture(scope="session")
def status(channel):
    """The server's GetStatus, now."""
    admin = inference_pb2_grpc.AdminStub(channel)
    return lambda: admin.GetStatus(inference_pb2.GetStatusRequest(), timeout=20 * server.FACTOR)


@pytest.fixture(scope="session")
def until_idle(status):
    """Waits until neither the coordinator nor a group has a request."""
    def idle():
        now = status()
        return now.requests_running == 0 and all(g.running == g.waiting == 0 for g in now.groups)
    return lambda: server.poll("no request is running", 10, idle)


@pytest.fixture(scope="session")
def entries():
    """Words that the model knows, as covered.json has them, with short answers first."""
    known = json.loads((server.TOP / "deploy/lexicon/covered.json").read_text())
    return sorted((e for e in known if e["core"] and e["pos"] == "n"),
                  key=lambda e: len(e["answer"]))


@pytest.fixture(scope="session")
def lighthouse(entries):
    return next(e for e in entries if e["word"] == "lighthouse")
