"""Zero retention: what is asked and answered is found nowhere afterwards, and could be.

Canaries go into every door, in good requests and in bad ones, at the most talkative level of the log; then
all that the processes have left is searched: logs, metrics, status, their folders and shared memory, their
environment and command lines, and core dumps, of which there must be none.
"""

import json
import os
import re
import resource
import signal
import uuid
from pathlib import Path

import grpc
import httpx2
import inference_pb2 as pb
import inference_pb2_grpc
import pytest

import server
from ask import question

pytestmark = pytest.mark.skipif(server.MODE != "direct", reason="once is enough: --direct has it")

CANARY = f"Kanarienvogel-{uuid.uuid4().hex[:12]}"
CORE = Path("/proc/sys/kernel/core_pattern").read_text().strip()


def is_sanitized() -> bool:
    """Their runtimes forbid core dumps themselves, or would write terabytes."""
    return any(word in (server.BIN / "witan-coordinator").read_bytes()
               for word in (b"__asan_init", b"__tsan_init"))


def traces() -> list[Path]:
    """What processes of ours may leave where all may write."""
    return [*Path("/dev/shm").glob("*"), *Path("/tmp").glob("*witan*")]


class Session:
    """A coordinator and a worker as talkative as they come, in folders of their own."""

    def __init__(self, folder: Path, **settings):
        self.folder = folder
        self.cwd, self.temporary = folder / "cwd", folder / "tmp"
        for path in (self.cwd, self.temporary):
            path.mkdir(parents=True)
        self.others = set(traces())
        before = os.getcwd(), os.environ.get("TMPDIR"), resource.getrlimit(resource.RLIMIT_CORE)
        os.chdir(self.cwd)
        os.environ["TMPDIR"] = str(self.temporary)
        try:
            self.may_dump = before[2][1] == resource.RLIM_INFINITY
            if self.may_dump:
                resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
            words = ("--verbose", "--core-dumps") if settings.get("core_dumps") else ("--verbose",)
            settings.setdefault("core_dumps", False)
            self.running = server.Direct(folder / "served", worker_words=words, verbose=True, **settings)
        finally:
            os.chdir(before[0])
            os.environ.pop("TMPDIR")
            if before[1] is not None:
                os.environ["TMPDIR"] = before[1]
            resource.setrlimit(resource.RLIMIT_CORE, (before[2][0], before[2][1]))

    def abort(self) -> list[Path]:
        """Both die as a broken invariant would have them die; the core files that they leave."""
        kept = []
        for process in (self.running.coordinator.process, *self.running.workers):
            process.child.send_signal(signal.SIGABRT)
            assert process.wait(60) == -signal.SIGABRT, process.said()
            for core in [p for p in self.cwd.iterdir() if p.name.startswith("core")]:
                kept.append(core.rename(self.cwd / f"{process.name}-{len(kept)}"))
        os.close(self.running.coordinator.pipe)
        return kept


    def end(self):
        """Whatever still runs, where a test has failed."""
        for process in (self.running.coordinator.process, *self.running.workers):
            if process.child.poll() is None:
                process.child.kill()
                process.child.wait()


@pytest.fixture
def start(tmp_path):
    made = []

    def one(**settings) -> Session:
        made.append(Session(tmp_path / "session", **settings))
        return made[-1]

    yield one
    for session in made:
        session.end()


def finds(needles: list[str], places: list[Path]) -> list[str]:
    """Where these texts stand in files; folders with all that is below them."""
    found = []
    for place in places:
        for path in [place, *place.rglob("*")] if place.is_dir() else [place]:
            if not path.is_file() or path.is_symlink():
                continue
            try:
                data = path.read_bytes()
            except OSError:
                continue  # it went meanwhile
            found += [f"{path}: {n}" for n in needles if n.encode() in data]
    return found


def post(http, path: str, body, **more):
    """Whatever comes of it is the client's to know."""
    content = body if isinstance(body, (str, bytes)) else json.dumps(body)
    headers = {"content-type": "application/json"}
    return http.post(path, content=content, headers=headers, **more)


def good_requests(text: str):
    chat = {"model": "lexicon", "messages": [{"role": "user", "content": text}], "max_tokens": 24}
    tool = {"type": "function", "function": {"name": "look", "description": text, "parameters": {
        "type": "object", "properties": {"word": {"type": "string", "description": text}}}}}
    yield "/v1/chat/completions", chat
    yield "/v1/chat/completions", {**chat, "stream": True, "logprobs": True, "user": text}
    yield "/v1/chat/completions", {**chat, "tools": [tool], "stop": [text]}
    yield "/v1/chat/completions", {**chat, "response_format": {"type": "json_object"}}
    yield "/v1/completions", {"model": "lexicon", "prompt": text, "max_tokens": 8, "echo": True}
    yield "/v1/responses", {"model": "lexicon", "input": text, "max_output_tokens": 24}
    yield "/v1/messages", {"model": "lexicon", "messages": chat["messages"], "max_tokens": 24}
    yield "/api/chat", {"model": "lexicon", "messages": chat["messages"]}
    yield "/api/generate", {"model": "lexicon", "prompt": text}


def bad_requests(text: str):
    """Whose errors quote what they were sent."""
    good = {"model": "lexicon", "messages": [{"role": "user", "content": text}]}
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"):
        yield path, '{"messages": [{"role": "user", "content": "' + text
        yield path, {**good, "model": text}
        yield path, {**good, text: text}
        yield path, {**good, "temperature": text}
        yield path, {**good, "messages": [{"role": text, "content": text}], "input": [{"role": text}]}
        yield path, {**good, "messages": [{"role": "user", "content": {"type": text, "text": text}}]}
    yield "/v1/chat/completions", {**good, "logit_bias": {text: 1}}
    yield "/v1/chat/completions", {**good, "stop": [text, 1]}
    yield "/v1/chat/completions", {**good, "tool_choice": {"type": "function", "function": {"name": text}}}
    yield "/v1/chat/completions", {**good, "response_format": {"type": "json_schema", "json_schema": {
        "name": text, "schema": {"type": text}}}}
    yield "/v1/chat/completions", {**good, "messages": [{"role": "user", "content": 9000 * text}]}
    yield "/v1/completions", {"model": "lexicon", "prompt": [text, 1]}
    yield f"/v1/{text}", good
    yield "/v1/chat/completions", text.encode() + b"\xff\xfe"


def ask_everywhere(session: Session, text: str) -> str:
    """All doors, well and badly. What was answered, as far as it may have held the text."""
    answered, refused = [], 0
    base = f"http://{session.running.http}"
    with httpx2.Client(base_url=base, timeout=60 * server.FACTOR) as http:
        for path, body in good_requests(text):
            got = post(http, path, body)
            assert got.status_code == 200, (path, got.text)
            answered.append(got.text)
        for path, body in bad_requests(text):
            got = post(http, path, body)
            assert got.status_code < 500, (path, got.status_code, got.text)
            refused += got.status_code >= 400
            answered.append(got.text)
        assert refused > 20
        http.get("/v1/models", params={"q": text})
        # One that goes away in the middle.
        body = {"model": "lexicon", "prompt": text, "max_tokens": 400, "ignore_eos": True, "stream": True}
        with http.stream("POST", "/v1/completions", content=json.dumps(body)) as got:
            next(got.iter_lines())
    with grpc.insecure_channel(session.running.grpc) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        said = pb.Conversation(messages=[pb.Message(role="user", content=text)])
        asked = pb.GenerateRequest(conversation=said, max_tokens=8, model="lexicon")
        answered += [str(m) for m in stub.Generate(asked)]
        for wrong in (pb.GenerateRequest(conversation=said, model=text),
                      pb.GenerateRequest(conversation=pb.Conversation(messages=[
                          pb.Message(role=text, content=text)]))):
            with pytest.raises(grpc.RpcError) as refused:
                list(stub.Generate(wrong))
            answered.append(refused.value.details())
    return "\n".join(answered)


def keep_pages(session: Session):
    """What an operator sees of it, into files that are searched with the others."""
    with httpx2.Client(base_url=f"http://{session.running.http}", timeout=60 * server.FACTOR) as http:
        for name in ("/metrics", "/admin/status", "/health/ready", "/v1/models"):
            (session.folder / f"page{name.replace('/', '-')}").write_text(http.get(name).text)
    with grpc.insecure_channel(session.running.grpc) as channel:
        status = inference_pb2_grpc.AdminStub(channel).GetStatus(pb.GetStatusRequest())
        (session.folder / "page-grpc").write_text(str(status))
    for pid in session.running.pids():
        for name in ("environ", "cmdline"):
            source = Path(f"/proc/{pid}/{name}")
            if os.access(source, os.R_OK):
                (session.folder / f"{name}-{pid}").write_bytes(source.read_bytes())


def places_of(session: Session) -> list[Path]:
    """All that it can have left on this machine."""
    return [session.folder, *(p for p in traces() if p not in session.others)]


def test_nothing_is_found_afterwards(start, lighthouse, tmp_path):
    keys, kept = tmp_path / "keys", tmp_path / "session" / "audit"
    keys.mkdir()
    kept.mkdir(parents=True)
    server.witan("manifest", "keygen", "--out", keys / "audit")
    server.witan("audit", "hmac-key", keys / "hmac")
    session = start(retention={"wipe": True}, audit={
        "file": kept / "audit.jsonl", "key": keys / "audit.key", "heads": kept / "heads",
        "hmac_key": keys / "hmac"})
    answered = ask_everywhere(session, CANARY)
    assert CANARY in answered, "no client was told of what it had sent"
    # What the model says is a canary too: its answer to this is known by heart.
    body = {"model": "lexicon", "messages": [{"role": "user", "content": question(lighthouse)}]}
    with httpx2.Client(base_url=f"http://{session.running.http}", timeout=60 * server.FACTOR) as http:
        said = post(http, "/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    assert said == lighthouse["answer"]
    keep_pages(session)
    assert len((kept / "audit.jsonl").read_text().splitlines()) > 20, "the audit log records nothing"
    needles = [CANARY, CANARY.encode("utf-16-le").decode("latin-1"), CANARY.encode().hex(), said[:24],
               question(lighthouse)]
    logs = session.running.coordinator.process.said() + session.running.workers[0].said()
    assert "rank 0 attached" in logs, "the log is not as talkative as it can be"
    cores = session.abort()
    assert finds(needles, places_of(session)) == []
    if not is_sanitized() and session.may_dump and not re.search(r"^\||/", CORE):
        assert cores == []


@pytest.mark.skipif(is_sanitized(), reason="sanitizers' runtimes write no core")
def test_a_core_would_hold_it(start):
    """The search is worth something: with core_dumps they are written, and found."""
    session = start(core_dumps=True)
    with httpx2.Client(base_url=f"http://{session.running.http}", timeout=60 * server.FACTOR) as http:
        body = {"model": "lexicon", "prompt": CANARY, "max_tokens": 900, "ignore_eos": True, "stream": True,
                "stop": [CANARY]}
        with http.stream("POST", "/v1/completions", content=json.dumps(body)) as got:
            next(got.iter_lines())
            cores = session.abort()
    if not session.may_dump or re.search(r"^\||/", CORE):
        pytest.skip(f"this machine's core_pattern is {CORE!r}, or its limit forbids them")
    assert cores and finds([CANARY], cores)


def test_the_search_finds_what_is_planted(tmp_path):
    """In a log, below a folder, in another encoding's bytes."""
    log = tmp_path / "coordinator.stderr"
    log.write_text(f"2026-01-01 warn  http: bad request: {CANARY}\n")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "blob").write_bytes(b"\0\xff" + CANARY.encode() + b"\0")
    assert len(finds([CANARY], [tmp_path])) == 2
    assert finds([CANARY], [log]) and finds([CANARY], [deep])
    assert finds(["of another bird"], [tmp_path]) == []
