"""The audit log: what a server records, who may write it, and recorded requests asked again elsewhere."""

import json
import os
import resource
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import inference_pb2
import inference_pb2_grpc
import openai
import pytest
import server

REPLAYED = int(os.environ.get("WITAN_REPLAYED", "8"))
LAYOUTS = {"tp1": {"tp": 1}, "tp4_ep2": {"tp": 4, "ep": 2}}


@pytest.fixture(name="keys", scope="module")
def fixture_keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit-keys")
    server.witan("manifest", "keygen", "--out", folder / "audit")
    server.witan("manifest", "keygen", "--out", folder / "other")
    server.witan("audit", "hmac-key", folder / "hmac")
    return folder


def settings(folder, keys, **more):
    return {"file": folder / "audit.jsonl", "key": keys / "audit.key", "heads": folder / "audit.heads",
            "hmac_key": keys / "hmac", **more}


def records(folder, kind=None):
    lines = (folder / "audit.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if kind in (None, r["kind"])]


def fields(folder, kind):
    return [r["fields"] for r in records(folder, kind)]


def verify(folder, keys, trust="audit.pem", expect=0):
    return server.witan("audit", "verify", folder / "audit.jsonl", "--heads", folder / "audit.heads",
                        "--trust", keys / trust, expect=expect).stdout


def client_of(running):
    return openai.OpenAI(base_url=f"http://{running.http}/v1", api_key="none", max_retries=0,
                         timeout=60 * server.FACTOR)


def test_what_is_recorded(tmp_path, keys):
    """One server: answers by both doors, an order, a second coordinator, a disk that fills, verifying."""
    secret = "aardvarks whisper"
    folder = tmp_path / "one"
    running = server.Direct(folder, audit=settings(folder, keys), region="eu-1")
    with client_of(running) as client:
        answer = client.chat.completions.create(
            model="lexicon", messages=[{"role": "user", "content": secret}], max_tokens=5, seed=3)
        with grpc.insecure_channel(running.grpc) as channel:
            stub = inference_pb2_grpc.InferenceStub(channel)
            told = list(stub.Generate(inference_pb2.GenerateRequest(text=secret, max_tokens=4,
                                                                    ignore_eos=True)))
            admin = inference_pb2_grpc.AdminStub(channel)
            admin.Drain(inference_pb2.DrainRequest(group=server.GROUP, force=True))
            admin.Drain(inference_pb2.DrainRequest(group=server.GROUP, undo=True))
        # Its file is this coordinator's.
        other = tmp_path / "two"
        other.mkdir()
        config = server.write_config(other, pki=running.pki, audit={
            **settings(other, keys), "file": folder / "audit.jsonl"})
        refused = server.Process(other, "second", [server.BIN / "witan-coordinator", "-c", config])
        assert refused.wait(60) == 1
        assert f"process {running.coordinator.process.child.pid} holds locked" in refused.said()
        # A disk that takes no more: the answer is an error, and said why.
        pid = running.coordinator.process.child.pid
        whole = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        size = (folder / "audit.jsonl").stat().st_size
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, whole[1]))

        def refuses():
            try:
                client.completions.create(model="lexicon", prompt="a", max_tokens=1)
            except openai.InternalServerError as error:
                return error
            return None
        error = server.poll("requests are refused", 30, refuses)
        assert error.status_code == 503
        assert "the audit log cannot be written" in str(error)
        assert "witan_audit_failed 1" in httpx.get(f"http://{running.http}/metrics").text
        resource.prlimit(pid, resource.RLIMIT_FSIZE, whole)
        server.poll("requests are taken again", 30, lambda: refuses() is None)
    running.stop()
    verify(folder, keys)
    assert "not trusted" in verify(folder, keys, trust="other.pem", expect=1)
    starts, ends = fields(folder, "request_start"), fields(folder, "request_end")
    assert len(starts) == len(ends)
    assert {s["id"] for s in starts} == {e["id"] for e in ends}
    assert [(s["door"], s["api"]) for s in starts[:2]] == [("http", "/v1/chat/completions"),
                                                           ("grpc", "Generate")]
    assert starts[0]["request"] in answer.id and starts[0]["seed"] == "3"
    assert starts[1]["id"] == told[-1].finished.request_id
    assert ends[1]["outcome"] == "length" and ends[1]["completion_tokens"] == 4
    assert starts[0]["group"] == server.GROUP and starts[0]["layout"] == "pp=1 tp=1 ep=1 w=1"
    orders = fields(folder, "admin")
    assert [(o["action"], o["group"], o["done"]) for o in orders] == [
        ("drain", server.GROUP, True), ("undrain", server.GROUP, True)]
    for kind in ("chain", "start", "rank_joined", "weights", "rank_left", "stop", "head"):
        assert fields(folder, kind), kind
    for name in ("audit.jsonl", "audit.heads"):
        text = (folder / name).read_text()
        assert "aardvark" not in text and "whisper" not in text
    # One record is taken out.
    lines = (folder / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "audit.jsonl").write_bytes(b"".join(lines[:4] + lines[5:]))
    assert "line 5, record 4: missing before it" in verify(folder, keys, expect=1)


def test_a_crash_leaves_a_log_that_goes_on(tmp_path, keys):
    folder = tmp_path / "crash"
    running = server.Direct(folder, workers=False, audit=settings(folder, keys))
    server.poll("the start is recorded", 30, lambda: fields(folder, "start"))
    running.coordinator.process.child.kill()
    running.coordinator.process.child.wait()
    os.close(running.coordinator.pipe)
    with (folder / "audit.jsonl").open("ab") as log:
        log.write(b'{"fields":{"torn":')
    again = server.Coordinator(folder, folder / "cluster.yaml")
    again.wait_for("listening cluster")
    again.stop()
    assert [r["bytes"] for r in fields(folder, "recovered")] == [18]
    assert len(fields(folder, "start")) == 2
    verify(folder, keys)


def serve(folder, group, audit=None):
    folder.mkdir(parents=True)
    more = {"audit": audit} if audit else {}
    config = server.write_config(folder, groups=[{"name": "g0", **group}],
                                 limits={"context": server.CONTEXT, "threads": 1}, **more)
    return server.Serve(folder, config)


def bodies():
    """Requests of several kinds, as they are sent."""
    words = ["lighthouse", "river", "to borrow", "stubborn", "a small bird", "winter", "bread", "law"]
    for i in range(REPLAYED):
        word, turn = f"{words[i % len(words)]} {i // len(words)}", i % 4
        sampling = {"seed": 1000 + i, "temperature": 0.9, "top_p": 0.95} if i % 3 else {"temperature": 0}
        if turn == 3:
            yield "/completions", {"prompt": f"The word {word} means", "max_tokens": 40,
                                   "logit_bias": {"17": 2.5}, **sampling}
        else:
            yield "/chat/completions", {
                "messages": [{"role": "system", "content": "Define."}][:turn % 2]
                + [{"role": "user", "content": word}],
                "max_tokens": 60, "presence_penalty": 0.5, "stream": turn == 1,
                "stop": ["zzz", "."] if turn == 2 else None, **sampling}


def test_requests_are_replayed_on_other_layouts(tmp_path, keys):
    """Served at tp 2 beside others, asked again alone at tp 1 and at tp 4, ep 2: the same bits."""
    if server.MODE != "serve":
        pytest.skip("ranks under mpirun: --serve has them")
    folder = tmp_path / "served"
    running = serve(folder, {"tp": 2}, settings(folder, keys))
    asked = {}
    stop = threading.Event()
    with client_of(running) as client:
        def load(i):
            while not stop.is_set():
                client.completions.create(model="lexicon", prompt=f"load {i}", max_tokens=50)

        def ask(body):
            path, request = body
            request = {"model": "lexicon", **{k: v for k, v in request.items() if v is not None}}
            answer = httpx.post(f"http://{running.http}/v1{path}", json=request,
                                timeout=120 * server.FACTOR).raise_for_status().text
            first = json.loads(answer.split("data: ", 1)[-1].split("\n", 1)[0])
            file = folder / f"{first['id'].split('-', 1)[1]}.json"
            file.write_text(json.dumps(request))
            asked[file.stem] = file

        with ThreadPoolExecutor(8) as pool:
            others = [pool.submit(load, i) for i in range(3)]
            mine = [pool.submit(ask, body) for body in bodies()]
            for one in mine:
                one.result()
            stop.set()
            for one in others:
                one.result()
    running.stop()
    verify(folder, keys)
    assert len(asked) == REPLAYED
    for name, group in LAYOUTS.items():
        again = serve(tmp_path / name, group)
        for request, file in asked.items():
            replay = ["audit", "replay", request, "--log", folder / "audit.jsonl", "--prompt-file", file,
                      "--hmac-key", keys / "hmac", "--model", server.MODEL, "--address", again.grpc]
            assert "as recorded, bit for bit" in server.witan(*replay).stdout
        # A text that nobody sent is no answer's.
        wrong = folder / "wrong"
        wrong.write_text('{"messages": [{"role": "user", "content": "never asked"}]}')
        replay[replay.index(file)] = wrong
        assert server.witan(*replay, expect=1).stderr
        again.stop()
