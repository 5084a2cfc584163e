"""Streams that break are asked for again from where they were: what is stitched is the whole."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading

import grpc
import httpx2
import inference_pb2 as pb
import inference_pb2_grpc
import pytest

import server
from ask import messages, question

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
WILD = {"temperature": 2.5, "top_p": 1, "top_k": 0}  # pieces of characters among its tokens


class Broken(Exception):
    pass


def events(address: str, path: str, body: dict, key: str, last: str | None = None,
           cut: int | None = None) -> list[tuple[str, dict | None]]:
    """Id and data of the events of a stream, None for the last; `cut`: leaves after so many."""
    headers = {"Idempotency-Key": key, **({"Last-Event-ID": last} if last else {})}
    found, name = [], None
    with httpx2.stream("POST", f"http://{address}{path}", json={**body, "stream": True},
                       headers=headers, timeout=120 * server.FACTOR) as answer:
        if answer.status_code != 200:
            raise Broken(answer.status_code, answer.read().decode())
        for line in answer.iter_lines():
            if line.startswith("id: "):
                name = line[4:]
            elif line.startswith("data: "):
                data = None if line == "data: [DONE]" else json.loads(line[6:])
                assert (name is None) == (data is None or "error" in data), line
                found.append((name, data))
                name = None
                if len(found) == cut:
                    break
    return found


def merged(found: list) -> dict:
    """What the chunks say, choice by choice; each field in one piece."""
    whole = {"choices": {}, "done": 0, "usage": [], "same": set()}
    for _, data in found:
        if data is None:
            whole["done"] += 1
            continue
        assert "error" not in data, data
        whole["same"].add((data["id"], data["created"], data["model"], data["system_fingerprint"]))
        if data.get("usage"):
            whole["usage"].append({k: v for k, v in data["usage"].items() if "details" not in k})
        for choice in data["choices"]:
            said = whole["choices"].setdefault(choice["index"], {})
            delta = choice.get("delta", {"text": choice.get("text")})
            for name, text in delta.items():
                said[name] = said.get(name, "") + text
            for name, listed in (choice["logprobs"] or {}).items():
                said[name + "_logprobs"] = said.get(name + "_logprobs", []) + (listed or [])
            said["reasons"] = said.get("reasons", []) + [choice["finish_reason"]] * bool(
                choice["finish_reason"])
    return whole


def test_whatever_the_stream_it_goes_on(main, lighthouse, entries):
    asked = {
        "chat": (CHAT, {"messages": messages(lighthouse), "max_tokens": 12}),
        "two, with logprobs": (CHAT, {"messages": messages(entries[0]), "max_tokens": 10, "n": 2,
                                      "logprobs": True, "top_logprobs": 2, **WILD}),
        "usage": (TEXT, {"prompt": "A cat is", "max_tokens": 8, "ignore_eos": True,
                         "stream_options": {"include_usage": True}}),
        "echo, two prompts": (TEXT, {"prompt": ["A cat is", "A dog is"], "max_tokens": 6,
                                     "echo": True, "stop": ["e "], **WILD}),
        "logprobs": (TEXT, {"prompt": "A river", "max_tokens": 10, "logprobs": 1,
                            "ignore_eos": True, **WILD}),
    }
    for name, (path, body) in asked.items():
        key = f"key-{name}".replace(" ", "_")
        whole = events(main.http, path, body, key)
        for cut in {1, 3, len(whole) // 2, len(whole) - 2}:
            head = events(main.http, path, body, key, cut=cut)
            tail = events(main.http, path, body, key, last=head[-1][0])
            stitched, wanted = merged(head + tail), merged(whole)
            assert len(stitched["same"]) == 1
            del stitched["same"], wanted["same"]  # `created` is of the first request
            assert stitched == wanted, (name, cut)


def test_pieces_of_characters(main):
    """Cut around the tokens that say nothing yet."""
    for seed in range(30):
        body = {"prompt": "\u65e5\u672c", "max_tokens": 40, "ignore_eos": True, **WILD,
                "temperature": 100, "seed": seed}
        whole = events(main.http, TEXT, body, "pieces")
        tokens = [int(name.split("/")[3].split("-")[0]) for name, _ in whole if name]
        gaps = [i for i in range(1, len(tokens)) if tokens[i] > tokens[i - 1] + 1]
        if gaps:
            break
    assert gaps and max(tokens) == 40
    for cut in {gaps[0], gaps[0] + 1, gaps[-1]}:
        tail = events(main.http, TEXT, body, "pieces", last=whole[cut - 1][0])
        assert merged(whole[:cut] + tail)["choices"] == merged(whole)["choices"]


def test_a_key_without_a_stream(main):
    asked = {"json": {"prompt": "A cat", "max_tokens": 8, **WILD}, "timeout": 60 * server.FACTOR}
    url, headers = f"http://{main.http}{TEXT}", {"Idempotency-Key": "whole"}
    one, two = (httpx2.post(url, headers=headers, **asked) for _ in range(2))
    assert one.headers["x-witan-seed"] == two.headers["x-witan-seed"]
    assert one.json()["id"] == two.json()["id"]
    assert one.json()["choices"] == two.json()["choices"]
    other = httpx2.post(url, headers={"Idempotency-Key": "another"}, **asked)
    assert other.headers["x-witan-seed"] != one.headers["x-witan-seed"]


def test_what_cannot_be_resumed(main):
    body = {"prompt": "A cat", "max_tokens": 8, "ignore_eos": True}
    last = events(main.http, TEXT, body, "once", cut=4)[-1][0]

    def refused(code: int, words: str, *asked, **options):
        with pytest.raises(Broken) as found:
            events(main.http, *asked, **options)
        assert found.value.args[0] == code and words in found.value.args[1]

    refused(409, "of another request", TEXT, {**body, "max_tokens": 9}, "once", last=last)
    refused(409, "of another request", TEXT, body, "twice", last=last)
    created, _, request, at = last.split("/")
    refused(409, "began in numerics class cpu-2", TEXT, body, "once",
            last="/".join((created, "cpu-2", request, at)))
    tokens, check = at.split("-")
    wrong = f"{int(check, 16) ^ 1:08x}"
    for place in (f"{tokens}-{wrong}", f"9-{check}"):
        ((name, data),) = events(main.http, TEXT, body, "once",
                                 last="/".join((last.rpartition("/")[0], place)))
        assert name is None and data["error"]["code"] == "conflict"
        assert "cannot be resumed" in data["error"]["message"]


def test_openai_takes_no_notice_of_ids(client, lighthouse):
    asked = {"model": "lexicon", "messages": messages(lighthouse), "max_tokens": 12,
             "temperature": 0}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    stream = client.chat.completions.create(stream=True, extra_headers={"Idempotency-Key": "o"},
                                            **asked)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == whole


def test_the_documents_commands(main):
    """Those of docs/api.md, as they stand there: the second goes on behind an event of the first."""
    page = (server.TOP / "docs/api.md").read_text().partition("## Resuming a stream")[2]
    block = page.split("```")[1].replace("\\\n", " ")
    first, second = (line for line in block.splitlines() if line.startswith("curl "))

    def run(command: str, last: str = "") -> str:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True,
                              timeout=60 * server.FACTOR,
                              env={**os.environ, "HTTP": main.http, "ID": last})
        return done.stdout

    whole = run(first)
    ids = [line[4:] for line in whole.splitlines() if line.startswith("id: ")]
    assert len(ids) == 9
    rest = whole.partition(f"id: {ids[4]}\n")[2].partition("\n\n")[2]
    assert rest and run(second, ids[4]) == rest


def deltas(call, cut: int | None = None) -> list[pb.Delta]:
    found = []
    for response in call:
        if response.WhichOneof("body") == "delta":
            found.append(response.delta)
            assert response.delta.position
        if len(found) == cut:
            call.cancel()
            break
    return found


@pytest.mark.parametrize("more", [{}, {"token_ids_only": True}, {"logprobs": pb.Int(value=1)}],
                         ids=["text", "ids", "logprobs"])
def test_grpc(inference, more):
    asked = dict(text="A river is", max_tokens=16, ignore_eos=True, idempotency_key="g",
                 sampling=pb.Sampling(temperature=pb.Float(value=2.5), top_k=pb.Int()), **more)

    def said(found):
        return ("".join(d.text for d in found), [i for d in found for i in d.ids],
                [(l.logprob, list(l.top_ids)) for d in found for l in d.logprobs])

    whole = deltas(inference.Generate(pb.GenerateRequest(**asked)))
    for cut in (1, 2, 7, len(whole) - 1):
        head = deltas(inference.Generate(pb.GenerateRequest(**asked)), cut)
        tail = deltas(inference.Generate(pb.GenerateRequest(resume_after=head[-1].position,
                                                            **asked)))
        assert said(head + tail) == said(whole)
    with pytest.raises(grpc.RpcError) as error:
        asked["max_tokens"] = 15
        list(inference.Generate(pb.GenerateRequest(resume_after=whole[3].position, **asked)))
    assert error.value.code() == grpc.StatusCode.ABORTED
    assert "of another request" in error.value.details()


def start(folder):
    return server.Direct(folder) if server.MODE == "direct" else server.Serve(folder)


def alive(pid: int) -> bool:
    """It runs; one that nobody has waited for yet does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(running):
    """At once, and all of it: coordinator, ranks and whoever watches over them."""
    pids, link = running.pids(), running.folder / "run" / "serve.scratch"
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # mpirun's helpers end with it
    for process in (getattr(running, "process", None),
                    getattr(getattr(running, "coordinator", None), "process", None),
                    *getattr(running, "workers", ())):
        if process:
            process.wait(30)
    server.poll("all of it has gone", 30, lambda: not any(map(alive, pids)))
    if link.is_symlink() and os.readlink(link).startswith("/dev/shm/witan-"):
        shutil.rmtree(os.readlink(link))


def test_nothing_is_kept(main, tmp_path):
    """The whole server dies by kill -9 in mid-stream; another one, which knows nothing, goes on."""
    body = {"prompt": "A cat is", "max_tokens": 900, "ignore_eos": True, **WILD}
    whole = merged(events(main.http, TEXT, body, "grave"))
    first = start(tmp_path / "first")
    head = []
    try:
        headers = {"Idempotency-Key": "grave"}
        with httpx2.stream("POST", f"http://{first.http}{TEXT}", json={**body, "stream": True},
                           headers=headers, timeout=120 * server.FACTOR) as answer:
            name = None
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    name = line[4:]
                elif line.startswith("data: ") and line != "data: [DONE]":
                    head.append((name, json.loads(line[6:])))
                    if len(head) == 20:
                        kill(first)
    except httpx2.TransportError:
        pass  # the end of a server
    finally:
        if not head or len(head) < 20:
            kill(first)
    assert 20 <= len(head) < 901
    second = start(tmp_path / "second")
    try:
        tail = events(second.http, TEXT, body, "grave", last=head[-1][0])
    finally:
        second.stop()
    stitched = merged(head + tail)
    assert len(stitched["same"]) == 1
    assert stitched["choices"] == whole["choices"] and stitched["done"] == 1


class Relay:
    """Passes bytes on to an address; the first connection is cut after so many back."""

    def __init__(self, address: str, cut: int):
        host, _, port = address.rpartition(":")
        self.to, self.cut, self.count = (host, int(port)), cut, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            self.count += 1
            limit = self.cut if self.count == 1 else 1 << 40
            behind = socket.create_connection(self.to)
            threading.Thread(target=self.pass_on, args=(client, behind, 1 << 40),
                             daemon=True).start()
            threading.Thread(target=self.pass_on, args=(behind, client, limit),
                             daemon=True).start()

    def pass_on(self, source, sink, limit: int):
        try:
            while limit > 0 and (data := source.recv(min(512, limit))):
                sink.sendall(data)
                limit -= len(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.socket.close()


def test_witan_chat_goes_on(main, lighthouse):
    words = [server.BIN / "witan", "chat", "--max-tokens", "100", "--min-tokens", "100",
             "--temperature", "0", question(lighthouse)]

    def chat(address: str) -> str:
        done = subprocess.run([*map(str, words), "--address", address], capture_output=True,
                              text=True, timeout=120 * server.FACTOR, check=False,
                              stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        assert not server.REPORT.search(done.stderr), done.stderr
        return done.stdout

    whole = chat(main.grpc)
    relay = Relay(main.grpc, 4000)
    try:
        assert chat(relay.address) == whole
    finally:
        relay.close()
    assert relay.count == 2
