"""Keys and TLS at the doors, and who can reach a server of the default configuration."""

import re
import ssl
from pathlib import Path

import grpc
import httpx2
import inference_pb2 as pb
import inference_pb2_grpc
import openai
import pytest

import server
from ask import messages


def make_key(path: Path, name: str, scopes: str) -> str:
    done = server.witan("key", "create", "--file", path, "--name", name, "--scopes", scopes)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A file of keys, and the keys by name."""
    path = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    scopes = {"all": "generate,raw,admin", "plain": "generate", "admin": "admin"}
    made = {name: make_key(path, name, words) for name, words in scopes.items()}
    assert len(set(made.values())) == len(made)
    assert not any(key in path.read_text() for key in made.values())
    return path, made


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, keys):
    folder = tmp_path_factory.mktemp("guarded")
    tls = {"cert": folder / "pki" / "door.pem", "key": folder / "pki" / "door.key"}
    running = server.Direct(folder, listen={"tls": tls, "keys": keys[0]})
    yield running
    running.stop()


@pytest.fixture(scope="module")
def https(guarded):
    """An HTTP client that trusts the doors' root and has no key."""
    context = ssl.create_default_context(cafile=guarded.pki / "door-ca.pem")
    with httpx2.Client(base_url=f"https://{guarded.http}", verify=context,
                       timeout=30 * server.FACTOR) as client:
        yield client


@pytest.fixture(scope="module")
def secure(guarded):
    root = (guarded.pki / "door-ca.pem").read_bytes()
    with grpc.secure_channel(guarded.grpc, grpc.ssl_channel_credentials(root)) as channel:
        yield channel


def bearer(key: str) -> dict:
    return {"Authorization": f"Bearer {key}"}


CHAT = {"messages": [{"role": "user", "content": "What is a cat?"}], "max_tokens": 2}


def wrong_keys(right: str) -> dict[str, dict]:
    other = right[:-1] + ("A" if right[-1] != "A" else "B")
    return {
        "none": {},
        "unknown": bearer(other),
        "cut short": bearer(right[:-1]),
        "longer": bearer(right + "A"),
        "empty": {"Authorization": "Bearer"},
        "of another kind": {"Authorization": f"Basic {right}"},
        "bare": {"Authorization": right},
    }


def test_no_key_and_wrong_keys(https, keys):
    for name, headers in wrong_keys(keys[1]["all"]).items():
        for method, path, body in (("POST", "/v1/chat/completions", CHAT),
                                   ("GET", "/v1/models", None), ("POST", "/tokenize", {})):
            answer = https.request(method, path, json=body, headers=headers)
            assert answer.status_code == 401, (name, path)
            assert answer.json()["error"]["message"]
            assert "Bearer" in answer.headers["WWW-Authenticate"]


def test_keys_of_other_apis(https, keys):
    with_key = {"x-api-key": keys[1]["plain"]}
    for path, kind in (("/v1/messages", "error.type"), ("/v1/responses", "type"), ("/api/chat", None)):
        asked = {"input": "What is a cat?"} if path == "/v1/responses" else CHAT
        assert https.post(path, json=asked, headers=with_key).status_code == 200, path
        assert https.post(path, json=asked, headers=bearer(keys[1]["plain"])).status_code == 200, path
        refused = https.post(path, json=asked, headers={"x-api-key": keys[1]["plain"][:-1]})
        assert refused.status_code == 401, path
        told = refused.json()
        if kind == "error.type":
            assert told["type"] == "error" and told["error"]["type"] == "authentication_error"
        elif kind == "type":
            assert told["error"]["type"] == "authentication_error"
        else:
            assert isinstance(told["error"], str)
        assert https.post(path, json=asked, headers={"x-api-key": keys[1]["admin"]}).status_code == 403


def test_wrong_keys_over_grpc(secure, keys):
    stub = inference_pb2_grpc.InferenceStub(secure)
    for name, headers in wrong_keys(keys[1]["all"]).items():
        metadata = [(k.lower(), v) for k, v in headers.items()]
        with pytest.raises(grpc.RpcError) as error:
            stub.ListModels(pb.ListModelsRequest(), metadata=metadata, timeout=20 * server.FACTOR)
        assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED, name


def test_scopes_over_http(https, keys):
    ids = {"prompt": [1, 2, 3], "max_tokens": 2}
    for key, path, body, expected in (
            ("plain", "/v1/chat/completions", CHAT, 200), ("plain", "/v1/completions", ids, 403),
            ("all", "/v1/completions", ids, 200), ("admin", "/v1/chat/completions", CHAT, 403)):
        answer = https.post(path, json=body, headers=bearer(keys[1][key]))
        assert answer.status_code == expected, (key, path, answer.text)


def test_scopes_over_grpc(secure, keys):
    stub = inference_pb2_grpc.InferenceStub(secure)
    admin = inference_pb2_grpc.AdminStub(secure)
    text = pb.GenerateRequest(text="A cat is", max_tokens=2)
    ids = pb.GenerateRequest(token_ids=pb.TokenIds(ids=[1, 2, 3]), max_tokens=2)
    for key, call, allowed in (
            ("plain", lambda m: list(stub.Generate(text, metadata=m)), True),
            ("plain", lambda m: list(stub.Generate(ids, metadata=m)), False),
            ("all", lambda m: list(stub.Generate(ids, metadata=m)), True),
            ("admin", lambda m: list(stub.Generate(text, metadata=m)), False),
            ("plain", lambda m: admin.GetStatus(pb.GetStatusRequest(), metadata=m), False),
            ("admin", lambda m: admin.GetStatus(pb.GetStatusRequest(), metadata=m), True)):
        metadata = [("authorization", f"Bearer {keys[1][key]}")]
        if allowed:
            assert call(metadata)
            continue
        with pytest.raises(grpc.RpcError) as error:
            call(metadata)
        assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_openai_with_key_and_root(guarded, keys, lighthouse):
    context = ssl.create_default_context(cafile=guarded.pki / "door-ca.pem")
    asked = {"model": "lexicon", "messages": messages(lighthouse), "temperature": 0}
    for key, expected in ((keys[1]["plain"], lighthouse["answer"]), ("wk-guess", None)):
        with httpx2.Client(verify=context, timeout=30 * server.FACTOR) as transport:
            client = openai.OpenAI(base_url=f"https://{guarded.http}/v1", api_key=key,
                                   http_client=transport, max_retries=0)
            if expected:
                answer = client.chat.completions.create(**asked)
                assert answer.choices[0].message.content == expected
            else:
                with pytest.raises(openai.AuthenticationError):
                    client.chat.completions.create(**asked)


def test_clients_without_the_root(guarded):
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"https://{guarded.http}/v1/models", timeout=20 * server.FACTOR)
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(f"http://{guarded.http}/v1/models", timeout=20 * server.FACTOR)


def test_health_needs_no_key(https):
    assert https.get("/health/live").status_code == 200


def test_no_key_is_in_the_log(guarded, keys):
    said = guarded.coordinator.process.said()
    assert not any(key in said for key in keys[1].values())


# --- who can reach it ---

def listening(pids: list[int]) -> list[str]:
    """The addresses, in hexadecimal as the kernel writes them, on which these processes listen."""
    inodes = set()
    for pid in pids:
        try:
            links = [fd.readlink() for fd in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue  # it ended meanwhile
        inodes |= {m[1] for link in links if (m := re.fullmatch(r"socket:\[(\d+)\]", str(link)))}
    found = []
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net") / table
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                found.append(words[1].split(":")[0])
    return found


LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


def test_listeners_are_on_loopback_alone(main):
    found = listening(main.pids())  # mpirun among them
    assert len(found) >= 3, "HTTP, gRPC and the ranks' port"
    assert set(found) <= LOOPBACK


def checked(tmp_path, expect: int, **settings) -> str:
    done = server.witan("config", "--check", server.write_config(tmp_path, **settings),
                        expect=expect)
    return done.stdout if expect == 0 else done.stderr


def test_defaults_are_on_loopback(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(f"model:\n  path: {server.MODEL}\n")
    told = server.witan("config", "--check", path).stdout
    for door in ("http", "grpc", "cluster"):
        assert re.search(rf"{door}: .?127\.0\.0\.1:\d+", told)


@pytest.mark.parametrize("door", ["http", "grpc"])
@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.7:443"])
def test_off_loopback_wants_tls_and_keys(tmp_path, door, address):
    tls = {"cert": "door.pem", "key": "door.key"}
    for listen in ({}, {"tls": tls}, {"keys": "keys.jsonl"}):
        said = checked(tmp_path, 1, listen={door: address, **listen})
        assert f"listen.{door}" in said and len(said.splitlines()) == 1
    checked(tmp_path, 0, listen={door: address, "tls": tls, "keys": "keys.jsonl"})
    checked(tmp_path, 0, listen={door: address, "insecure": True})


def test_the_coordinator_refuses_it_too(tmp_path):
    config = server.write_config(tmp_path, listen={"http": "0.0.0.0:0"},
                                 pki=server.make_pki(tmp_path / "pki"))
    words = [server.BIN / "witan-coordinator", "-c", config]
    process = server.Process(tmp_path, "refused", words)
    process.check(expect=1)
    assert "listen.http" in process.said()
