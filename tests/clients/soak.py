"""A server that is asked at random for minutes, by both doors, well and badly: clients stay, go away in
mid-answer, read slowly or not at all, ask for nonsense. Then nothing is left of them: no block of the
KV cache, no descriptor, no memory, no error in the log; and each answer was the one that the same
request gets alone.

Not a test by its name: run by `tests/clients/run BIN_DIR --serve soak.py` (see tests/CMakeLists.txt).
$WITAN_SOAK_SECONDS: how long (default 120). $WITAN_SOAK_SEED (default 6)."""

import asyncio
import collections
import json
import os
import random
import re
import time
from pathlib import Path

import grpc
import httpx2
import inference_pb2 as pb
import inference_pb2_grpc
import pytest

import server
from ask import question

SECONDS = float(os.environ.get("WITAN_SOAK_SECONDS", "120"))
SEED = int(os.environ.get("WITAN_SOAK_SEED", "6"))
SEQUENCES, BLOCKS = 16, 24  # of 64 tokens: for three of the longest requests
OUTSTANDING = 48
RATE = 30.0  # arrivals a second, where there is room for them
KINDS = 300
CHECKED = 60  # answers that are asked for again, alone
FLAT = 0.05
LOGGED = re.compile(r" error +|CHECK failed|Sanitizer|runtime error")


# --- what is asked ---

def make_kinds(entries, rng: random.Random) -> list[dict]:
    """Completions with seeds of their own; most begin as others do."""
    ask = [question(e) for e in entries]
    shared = [" ".join(rng.choices(ask, k=n)) for n in (4, 12, 30, 50)]
    kinds = []
    for i in range(KINDS):
        prompt = question(rng.choice(entries))
        if rng.random() < 0.7:
            prompt = f"{rng.choice(shared)} {prompt}"
        kinds.append({
            "prompt": prompt, "seed": 1000 + i, "ignore_eos": rng.random() < 0.5,
            "max_tokens": rng.choice((1, 4, 16, 48, 120, 300)),
            "temperature": rng.choice((0, 0.7, 1.0, 2.5)), "top_p": rng.choice((1, 0.9)),
            "top_k": rng.choice((0, 40)),
        })
    return kinds


BAD = (  # path, body, what it must be answered
    ("/v1/completions", b"{", 400),
    ("/v1/completions", b"[1, 2]", 400),
    ("/v1/completions", b'{"prompt": "a", "temperature": -1}', 400),
    ("/v1/completions", b'{"prompt": [99999999]}', 400),
    ("/v1/completions", json.dumps({"prompt": "word " * 3000}).encode(), 400),
    ("/v1/completions", b'{"prompt": "a", "model": "another"}', 404),
    ("/v1/chat/completions", b'{"messages": []}', 400),
    ("/v1/nothing", b"{}", 404),
)
GARBAGE = (b"\x16\x03\x01\x02\x00\x01\x00", b"GET", b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n",
           b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"prompt\"",
           b"\x00" * 200, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


# --- the clients ---

class Soak:
    """What they share, and what came of them."""

    def __init__(self, running, kinds, rng):
        self.running, self.kinds, self.rng = running, kinds, rng
        self.done = collections.Counter()
        self.wrong: list[str] = []
        self.answers: dict[int, tuple] = {}  # of a kind: the first
        self.repeated = 0
        self.http = None
        self.inference = None

    def fail(self, words: str):
        if len(self.wrong) < 20:
            self.wrong.append(words)

    def keep(self, kind: int, answer: tuple):
        """Every answer to a request is the same."""
        first = self.answers.setdefault(kind, answer)
        self.repeated += first is not answer
        if first != answer:
            self.fail(f"request {self.kinds[kind]}: answered {first!r}, then {answer!r}")

    def refused(self, who: str, status: int) -> bool:
        """Too many at once is a fair answer."""
        if status == 429:
            self.done["refused"] += 1
        elif status != 200:
            self.fail(f"{who}: status {status}")
        return status != 200

    async def whole(self):
        kind = self.rng.randrange(KINDS)
        answer = await self.http.post("/v1/completions", json=self.kinds[kind])
        if not self.refused("whole", answer.status_code):
            (choice,) = answer.json()["choices"]
            self.keep(kind, (choice["text"], choice["finish_reason"]))

    async def stream(self, pieces: int = 0, pause: float = 0):
        """Reads so many pieces (0: all), with pauses between them."""
        kind = self.rng.randrange(KINDS)
        body, text, reason = {**self.kinds[kind], "stream": True}, "", None
        async with self.http.stream("POST", "/v1/completions", json=body) as answer:
            if self.refused("stream", answer.status_code):
                return
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                if "choices" not in event:
                    return self.fail(f"stream: {line}")
                (choice,) = event["choices"]
                text, reason = text + choice["text"], choice["finish_reason"]
                pieces -= 1
                if pieces == 0:
                    return
                if pause:
                    await asyncio.sleep(pause)
        self.keep(kind, (text, reason))

    async def leave(self):
        await self.stream(pieces=self.rng.randrange(1, 30))

    async def dawdle(self):
        await self.stream(pause=self.rng.choice((0.02, 0.1)))

    async def raw(self, sent: bytes, wait: float):
        """Says so much, reads nothing and goes away."""
        host, port = self.running.http.rsplit(":", 1)
        _, writer = await asyncio.open_connection(host, int(port), limit=1024)
        try:
            writer.write(sent)
            await writer.drain()
            await asyncio.sleep(wait)
        except ConnectionError:
            pass  # cut off, as it should be
        finally:
            writer.transport.abort()

    async def stare(self):
        body = json.dumps({"prompt": "What is a lighthouse?", "max_tokens": 700, "stream": True,
                           "ignore_eos": True}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        await self.raw(head + b"Content-Length: %d\r\n\r\n" % len(body) + body,
                       self.rng.choice((0, 0.5, 4)))

    async def babble(self):
        await self.raw(self.rng.choice(GARBAGE), self.rng.choice((0, 0.1)))

    async def bad(self):
        path, body, expected = self.rng.choice(BAD)
        answer = await self.http.post(path, content=body,
                                      headers={"content-type": "application/json"})
        if answer.status_code not in (expected, 429) or "error" not in answer.json():
            self.fail(f"{path} {body[:60]!r}: status {answer.status_code}, expected {expected}")

    def generate(self, kind: int, timeout: float):
        body = self.kinds[kind]
        sampling = pb.Sampling(temperature=pb.Float(value=body["temperature"]),
                               top_p=pb.Float(value=body["top_p"]), seed=pb.Seed(value=body["seed"]))
        sampling.top_k.SetInParent()
        sampling.top_k.value = body["top_k"]
        return self.inference.Generate(pb.GenerateRequest(
            text=body["prompt"], max_tokens=body["max_tokens"], ignore_eos=body["ignore_eos"],
            sampling=sampling), timeout=timeout)

    async def call(self, pieces: int = 0, timeout: float = 300):
        kind, text, reason = self.rng.randrange(KINDS), "", None
        call = self.generate(kind, timeout)
        allowed = {grpc.StatusCode.RESOURCE_EXHAUSTED: "refused"}
        if timeout < 5:
            allowed[grpc.StatusCode.DEADLINE_EXCEEDED] = "timed out"
        try:
            async for response in call:
                text += response.delta.text
                reason = response.finished.reason or reason
                pieces -= 1
                if pieces == 0:
                    call.cancel()
                    return
        except grpc.aio.AioRpcError as error:
            if error.code() not in allowed:
                self.fail(f"call: {error.code()}: {error.details()}")
            self.done[allowed.get(error.code(), "failed")] += 1
            return
        self.keep(kind, (text, reason))

    async def hang_up(self):
        await self.call(pieces=self.rng.randrange(1, 30))

    async def be_late(self):
        await self.call(timeout=self.rng.choice((0.01, 0.2, 1)))

    async def bad_call(self):
        call = self.inference.Generate(pb.GenerateRequest(
            text="a", sampling=pb.Sampling(top_p=pb.Float(value=7))), timeout=60)
        try:
            async for _ in call:
                self.fail("bad_call: answered")
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.INVALID_ARGUMENT,
                                    grpc.StatusCode.RESOURCE_EXHAUSTED):
                self.fail(f"bad_call: {error.code()}: {error.details()}")

    async def one(self, what: str):
        try:
            await asyncio.wait_for(getattr(self, what)(), 400)
            self.done[what] += 1
        except Exception as error:  # whatever it is, it is the server's fault here
            self.fail(f"{what}: {type(error).__name__}: {error}")

    async def all(self, seconds: float):
        shares = {"whole": 15, "stream": 20, "leave": 14, "dawdle": 4, "stare": 4, "babble": 4,
                  "bad": 8, "call": 15, "hang_up": 8, "be_late": 5, "bad_call": 3}
        limits = httpx2.Limits(max_connections=2 * OUTSTANDING, max_keepalive_connections=8)
        tasks, end = set(), time.monotonic() + seconds
        async with httpx2.AsyncClient(base_url=f"http://{self.running.http}", limits=limits,
                                      timeout=300) as self.http, \
                grpc.aio.insecure_channel(self.running.grpc) as channel:
            self.inference = inference_pb2_grpc.InferenceStub(channel)
            while time.monotonic() < end:
                await asyncio.sleep(self.rng.expovariate(RATE))
                if len(tasks) < OUTSTANDING:
                    (what,) = self.rng.choices(list(shares), list(shares.values()))
                    tasks.add(task := asyncio.create_task(self.one(what)))
                    task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)


# --- the server from outside ---

def names(pids) -> dict[int, str]:
    return {p: Path(f"/proc/{p}/comm").read_text().strip() for p in pids}


def descriptors(pids) -> dict[int, int]:
    return {p: len(os.listdir(f"/proc/{p}/fd")) for p in pids}


def resident(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


async def watch(pids, seconds: float) -> dict[int, list[int]]:
    """Resident memory of each in kB, twice a second."""
    seen = {p: [] for p in pids}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for pid in pids:
            seen[pid].append(resident(pid))
        await asyncio.sleep(0.5)
    return seen


def figures(address: str) -> dict[str, float]:
    """What /metrics says, summed over labels."""
    sums = collections.Counter()
    for line in httpx2.get(f"http://{address}/metrics", timeout=60).text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            sums[name.split("{")[0]] += float(value)
    return sums


def growth(samples: list[int]) -> float:
    """The last third over the second."""
    third = len(samples) // 3
    last, second = samples[-third:], samples[third:2 * third]
    return sum(last) / len(last) / (sum(second) / len(second)) - 1


# --- the test ---

@pytest.fixture(scope="session")
def main(tmp_path_factory):
    """In place of conftest's: little room for many."""
    folder = tmp_path_factory.mktemp("soak")
    config = server.write_config(
        folder, groups=[{"name": server.GROUP, "tp": 2}],
        limits={"sequences": SEQUENCES, "kv_blocks": BLOCKS, "threads": 1, "step_tokens": 128,
                "read_timeout_s": 3})
    running = server.Serve(folder, config)
    yield running
    running.stop()
    logged = [line for line in running.process.said().splitlines() if LOGGED.search(line)]
    assert not logged, logged[:20]


def check_alone(soak: Soak, address: str):
    """Of each kind that was answered, up to CHECKED: asked again with nobody else there."""
    with httpx2.Client(base_url=f"http://{address}", timeout=60) as client:
        for kind in sorted(soak.answers)[:CHECKED]:
            (choice,) = client.post("/v1/completions", json=soak.kinds[kind]).json()["choices"]
            soak.keep(kind, (choice["text"], choice["finish_reason"]))


def check_without_server(soak: Soak, folder: Path):
    """And others: by the engine alone, which keeps nothing of those before."""
    kinds = sorted(soak.answers)[-CHECKED:]
    path = folder / "requests.jsonl"
    path.write_text("".join(json.dumps(soak.kinds[k]) + "\n" for k in kinds))
    out = server.witan("run", server.MODEL, "--requests", path, "--context", server.CONTEXT,
                       "--max-seqs", 1, timeout_s=600).stdout
    for kind, line in zip(kinds, out.splitlines(), strict=True):
        answer = json.loads(line)
        soak.keep(kind, (answer["text"], answer["finish_reason"]))


async def run(soak: Soak, pids) -> dict[int, list[int]]:
    seen, _ = await asyncio.gather(watch(pids, SECONDS), soak.all(SECONDS))
    return seen


def test_soak(main, status, until_idle, entries, tmp_path):
    rng = random.Random(SEED)
    soak = Soak(main, make_kinds(entries, rng), rng)
    asyncio.run(Soak(main, soak.kinds, random.Random(0)).all(2))  # what is made once is there
    until_idle()
    pids = main.pids()
    called, before = names(pids), descriptors(pids)
    seen = asyncio.run(run(soak, pids))
    until_idle()
    now = status()
    print(f"\n{SECONDS:.0f} s, seed {SEED}: {dict(soak.done)}; {soak.repeated} answers repeated")
    for pid in pids:
        print(f"{called[pid]}: {seen[pid][-1] / 1024:.1f} MiB, {growth(seen[pid]):+.2%}; "
              f"{before[pid]} descriptors before, {descriptors([pid])[pid]} after")
    said = figures(main.http)
    names_of_interest = ("witan_preemptions_total", "witan_prefix_asked_tokens_total",
                         "witan_prefix_found_tokens_total", "witan_slow_clients_total")
    print({name: said[name] for name in names_of_interest})
    check_alone(soak, main.http)
    check_without_server(soak, tmp_path)
    assert not soak.wrong, "\n".join(soak.wrong)
    assert all(soak.done[w] > 0 for w in ("whole", "stream", "leave", "call", "hang_up", "stare"))
    assert soak.repeated > CHECKED
    assert said["witan_preemptions_total"] > 0 and said["witan_prefix_found_tokens_total"] > 0
    assert all(g.kv_blocks_free == g.kv_blocks == BLOCKS for g in now.groups)
    assert set(main.pids()) == set(pids), "a process was lost or started"
    server.poll("descriptors are closed", 20,
                lambda: all(n <= before[p] for p, n in descriptors(pids).items()))
    grown = {called[p]: growth(seen[p]) for p in pids if abs(growth(seen[p])) > FLAT}
    assert not grown, grown
