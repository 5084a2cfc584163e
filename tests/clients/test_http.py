"""The HTTP door spoken to by hand: raw sockets, and curl."""

import http.client
import json
import socket
import subprocess
import time

import pytest

import server
from ask import messages

BODY_KB = 64
TIMEOUT_S = 2


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A coordinator without ranks, whose limits are small."""
    running = server.Direct(tmp_path_factory.mktemp("bare"), workers=False,
                            limits={"body_kb": BODY_KB, "request_timeout_s": TIMEOUT_S})
    yield running
    running.stop()


def connect(address: str) -> socket.socket:
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=20 * server.FACTOR)


def read_answer(sock: socket.socket, method: str = "GET") -> tuple[int, dict, bytes]:
    answer = http.client.HTTPResponse(sock, method=method)
    answer.begin()
    return answer.status, dict(answer.getheaders()), answer.read()


def closes(sock: socket.socket) -> bytes:
    """What comes until the other side closes."""
    heard = b""
    try:
        while chunk := sock.recv(65536):
            heard += chunk
    except ConnectionResetError:
        pass
    return heard


def exchange(address: str, data: bytes, method: str = "GET") -> tuple[int, dict, bytes]:
    with connect(address) as sock:
        sock.sendall(data)
        return read_answer(sock, method)


def post(path: str, body: bytes, length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return (f"POST {path} HTTP/1.1\r\nHost: witan\r\nContent-Type: application/json\r\n"
            f"Content-Length: {length}\r\n\r\n").encode() + body


def curl(*words) -> str:
    done = subprocess.run(["curl", "--silent", "--show-error", "--max-time",
                           str(30 * server.FACTOR), *words], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b"{\"model\": \"lexicon\",}", b"{} {}", b"\x00", b"\xef\xbb\xbf{}",
    b"{\"messages\": [{\"role\": \"user\", \"content\": \"caf\xe9\"}]}",
    b"{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud800\"}]}",
    b"{\"model\": \"lexicon\", \"model\": \"lexicon\", \"messages\": []}",
    b"[" * 65 + b"]" * 65,
    b"{\"messages\": " + b"[" * 65 + b"]" * 65 + b"}",
    b"[" * 60000,
    b"{\"max_tokens\": 1e999, \"messages\": []}",
    b"{\"seed\": 123456789012345678901234567890}",
], ids=lambda body: repr(body[:24]))
def test_bodies_that_are_no_request(bare, body):
    status, headers, answer = exchange(bare.http, post(CHAT, body))
    assert status == 400
    assert headers["Content-Type"].startswith("application/json")
    error = json.loads(answer)["error"]
    assert error["message"] and error["type"] == "invalid_request_error"


def test_a_body_over_the_limit(bare):
    body = json.dumps({"messages": [{"role": "user", "content": "x" * (BODY_KB << 10)}]}).encode()
    assert exchange(bare.http, post(CHAT, body))[0] == 413


def test_a_body_that_only_says_it_is_large(bare):
    with connect(bare.http) as sock:
        sock.sendall(post(CHAT, b"{", length=1 << 40))
        heard = closes(sock)
    assert heard == b"" or heard.split()[1] == b"413"


def test_a_chunked_body_over_the_limit(bare):
    head = (f"POST {CHAT} HTTP/1.1\r\nHost: witan\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\n\r\n").encode()
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    with connect(bare.http) as sock:
        sock.sendall(head)
        try:
            for _ in range(8 * BODY_KB // 32):
                sock.sendall(chunk)
            sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return  # it has hung up, which is an answer too
        assert read_answer(sock)[0] == 413


@pytest.mark.parametrize("part", [
    b"", b"GET /v1/mod", b"GET /v1/models HTTP/1.1\r\nHost: witan\r\n", post(CHAT, b"{\"mod", 400),
], ids=["nothing", "half a line", "half the headers", "half a body"])
def test_half_a_request_is_not_waited_for(bare, part):
    started = time.monotonic()
    with connect(bare.http) as sock:
        sock.sendall(part)
        heard = closes(sock)
    assert heard == b"" or heard.split()[1] in (b"400", b"408")
    assert time.monotonic() - started < (3 * TIMEOUT_S + 1) * server.FACTOR


def test_slow_headers_are_not_waited_for(bare):
    started = time.monotonic()
    with connect(bare.http) as sock:
        sock.sendall(b"GET /v1/models HTTP/1.1\r\n")
        sock.settimeout(0.2)
        closed = False
        while not closed and time.monotonic() - started < 6 * TIMEOUT_S * server.FACTOR:
            try:
                sock.sendall(b"X: 1\r\n")
                closed = sock.recv(65536) == b""
            except socket.timeout:
                continue
            except (BrokenPipeError, ConnectionResetError):
                closed = True
    assert closed


def test_headers_without_end(bare):
    with connect(bare.http) as sock:
        try:
            sock.sendall(b"GET /v1/models HTTP/1.1\r\n" + b"X: " + b"y" * (4 << 20))
        except (BrokenPipeError, ConnectionResetError):
            return
        heard = closes(sock)
    assert heard == b"" or heard.split()[1] in (b"400", b"413", b"431")


def test_not_http(bare):
    for words in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"EHLO witan\r\n\r\n", b"\r\n" * 99):
        with connect(bare.http) as sock:
            sock.sendall(words)
            heard = closes(sock)
        assert heard == b"" or heard.split()[1].startswith(b"4")
    assert exchange(bare.http, b"GET /v1/models HTTP/1.1\r\nHost: witan\r\n\r\n")[0] == 200


def test_the_ranks_port_speaks_no_http(bare):
    with connect(bare.cluster) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: witan\r\n\r\n")
        assert not closes(sock).startswith(b"HTTP")


@pytest.mark.parametrize("method,path,expected", [
    ("GET", CHAT, 405), ("POST", "/v1/models", 405), ("DELETE", "/v1/models", 405),
    ("GET", "/v1/nothing", 404), ("GET", "/", 200), ("POST", "/v1/chat/completions/", 404),
    ("GET", "/v1/models/../../etc/passwd", 404), ("GET", "/health/live", 200),
    ("GET", "/health/ready", 503), ("POST", "/health/live", 405),
])
def test_methods_and_paths(bare, method, path, expected):
    asked = f"{method} {path} HTTP/1.1\r\nHost: witan\r\nContent-Length: 0\r\n\r\n".encode()
    status, headers, answer = exchange(bare.http, asked, method)
    assert status == expected
    if status in (404, 405):
        assert json.loads(answer)["error"]["message"]
    if status == 405:
        assert headers["Allow"]


def test_no_group_is_ready(bare):
    body = json.dumps({"messages": [{"role": "user", "content": "What is a cat?"}]}).encode()
    status, headers, answer = exchange(bare.http, post(CHAT, body))
    assert status == 503 and int(headers["Retry-After"]) > 0
    assert json.loads(answer)["error"]["message"]


def test_head(main):
    status, headers, answer = exchange(
        main.http, b"HEAD /v1/models HTTP/1.1\r\nHost: witan\r\n\r\n", "HEAD")
    assert (status, answer) in ((200, b""), (405, b""))
    assert status == 200 or headers["Allow"]


class SharedReader:
    """A connection as HTTPResponse takes it, whose answers are read from one buffer."""

    def __init__(self, sock: socket.socket):
        self.file = sock.makefile("rb")
        self.file.close, self.end = lambda: None, self.file.close

    def makefile(self, mode: str):
        assert mode == "rb"
        return self.file


def test_pipelining(main):
    ask = b"GET /v1/models HTTP/1.1\r\nHost: witan\r\n\r\n"
    chat = post("/tokenize", b"{\"prompt\": \"A cat\"}")
    with connect(main.http) as sock:
        sock.sendall(ask + chat + ask)
        shared = SharedReader(sock)
        kinds = [sorted(json.loads(read_answer(shared)[2])) for _ in range(3)]
    assert kinds == [["data", "object"], ["count", "max_model_len", "tokens"], ["data", "object"]]


def test_curl(main, lighthouse):
    body = json.dumps({"messages": messages(lighthouse), "temperature": 0})
    answer = curl(f"http://{main.http}{CHAT}", "-H", "Content-Type: application/json", "-d", body)
    assert json.loads(answer)["choices"][0]["message"]["content"] == lighthouse["answer"]
    streamed = curl("-N", f"http://{main.http}{CHAT}", "-d",
                    json.dumps({"messages": messages(lighthouse), "temperature": 0,
                                "stream": True}))
    events = [line[6:] for line in streamed.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    text = "".join(json.loads(e)["choices"][0]["delta"].get("content") or "" for e in events[:-1])
    assert text == lighthouse["answer"]
    assert curl(f"http://{main.http}/health/ready", "-o", "/dev/null", "-w", "%{http_code}") == "200"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away(main, status, until_idle, stream):
    until_idle()
    before, most = status(), server.CONTEXT - 100
    body = json.dumps({"prompt": "A cat is", "max_tokens": most, "ignore_eos": True,
                       "temperature": 0, "stream": stream}).encode()
    with connect(main.http) as sock:
        sock.sendall(post("/v1/completions", body))
        if stream:
            assert b"200" in sock.recv(15)
        else:
            server.poll("the request runs", 10, lambda: status().requests_running == 1)
    until_idle()
    now = status()
    assert now.requests_done == before.requests_done + 1
    assert now.groups[0].tokens < before.groups[0].tokens + most
