"""Who may ask, and how much: keys that expire and change, quotas, and an issuer's tokens."""

import copy
import json
import re
import signal
import time
from pathlib import Path

import grpc
import httpx2
import inference_pb2 as pb
import inference_pb2_grpc
import openai
import pytest

import server
from issuer import Issuer, encode

pytestmark = pytest.mark.skipif(server.MODE != "direct", reason="the same in either mode: run with --direct")
TEXT = "/v1/completions"
SHORT = {"prompt": "A cat is", "max_tokens": 2, "ignore_eos": True}
ENDLESS = {"prompt": "A cat is", "max_tokens": 4000, "ignore_eos": True, "stream": True}
TENANT_REQUESTS = 6


class Guarded:
    """A server with keys and an issuer."""

    def __init__(self, folder):
        self.keys, self.jwks = folder / "keys.jsonl", folder / "jwks.json"
        self.issuer, self.other = Issuer("one"), Issuer("one")
        self.jwks.write_text(self.issuer.jwks())
        self.admin = self.key("admin", scopes="admin")
        auth = {"jwks": self.jwks, "issuer": self.issuer.iss, "audience": self.issuer.aud,
                "tenant_claim": "org", "leeway_s": 5,
                "quotas": {"requests_per_minute": TENANT_REQUESTS}}
        self.running = server.Direct(folder, listen={"keys": self.keys}, auth=auth,
                                     limits={"context": 4096})
        self.client = httpx2.Client(base_url=f"http://{self.running.http}", timeout=60 * server.FACTOR)
        self.channel = grpc.insecure_channel(self.running.grpc)
        self.stub = inference_pb2_grpc.InferenceStub(self.channel)

    def key(self, name: str, *words, scopes: str = "generate") -> str:
        return server.witan("key", "create", "--file", self.keys, "--name", name, "--scopes", scopes,
                            *words).stdout.strip()

    def id_of(self, name: str) -> str:
        listed = server.witan("key", "list", "--file", self.keys).stdout
        return next(line.split()[0] for line in listed.splitlines()
                    if re.search(rf"  {name}(,|$| \()", line))

    def token(self, issuer: Issuer | None = None, header: dict | None = None, **claims) -> str:
        issuer = issuer or self.issuer
        now = int(time.time())
        said = {"iss": issuer.iss, "aud": issuer.aud, "sub": "zoe", "org": "team-z", "iat": now,
                "exp": now + 3600, "scope": "openid generate", **claims}
        return issuer.token({k: v for k, v in said.items() if v is not None}, **(header or {}))

    def ask(self, credentials: str, body: dict = SHORT, path: str = TEXT, **headers):
        return self.client.post(path, json=body, headers={**bearer(credentials), **headers})

    def settled(self, credentials: str, code: int):
        """Until the server answers so: it looks at its files once a second."""
        def probe():
            answer = self.client.get("/v1/models", headers=bearer(credentials))
            return answer if answer.status_code == code else None
        return server.poll(f"{code} for a key", 20, probe)

    def figures(self) -> dict[str, float]:
        page = self.client.get("/metrics", headers=bearer(self.admin))
        return {name: float(value) for name, value in re.findall(r"^(witan_\S+) (\S+)$", page.text, re.M)}

    def said(self) -> str:
        return self.running.coordinator.process.said()


def put(path: Path, text: str):
    """The whole file or the one before: never half of it."""
    aside = path.with_suffix(".new")
    aside.write_text(text)
    aside.chmod(0o600)
    aside.replace(path)


def bearer(credentials: str) -> dict:
    return {"Authorization": f"Bearer {credentials}"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    made = Guarded(tmp_path_factory.mktemp("identity"))
    yield made
    made.channel.close()
    made.client.close()
    made.running.stop()
    assert not re.search(r"wk-[\w-]{43}|eyJ[\w-]+\.", made.said())  # neither keys nor tokens


# --- keys that change ---

def test_keys_come_and_go_without_a_restart(guarded):
    one = guarded.key("comes", "--tenant", "come and go")
    guarded.settled(one, 200)
    server.witan("key", "revoke", guarded.id_of("comes"), "--file", guarded.keys)
    refused = guarded.settled(one, 401)
    assert "unknown" in refused.json()["error"]["message"]
    again = server.witan("key", "revoke", "kffffffffffff", "--file", guarded.keys, expect=1)
    assert "expected the id of a key" in again.stderr


def test_a_key_expires(guarded):
    """What time does to a key its file does here."""
    one = guarded.key("expires", "--expires", "1h")
    guarded.settled(one, 200)
    lines = [json.loads(line) for line in guarded.keys.read_text().splitlines()]
    for line in lines:
        line.update({"expires": "2026-01-31T12:00:00Z"} if line["name"] == "expires" else {})
    put(guarded.keys, "".join(json.dumps(line) + "\n" for line in lines))
    refused = guarded.settled(one, 401)
    error = refused.json()["error"]
    assert "has expired, at 2026-01-31T12:00:00Z" in error["message"]
    assert error["code"] == "invalid_api_key"
    with pytest.raises(grpc.RpcError) as raised:
        guarded.stub.ListModels(pb.ListModelsRequest(), metadata=[("authorization", f"Bearer {one}")])
    assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "has expired" in raised.value.details()
    assert "EXPIRED 2026-01-31" in server.witan("key", "list", "--file", guarded.keys).stdout
    assert guarded.figures()['witan_auth_refused_total{reason="expired"}'] >= 2


def test_a_broken_file_opens_and_shuts_nothing(guarded):
    one = guarded.key("stays")
    guarded.settled(one, 200)
    whole = guarded.keys.read_text()
    put(guarded.keys, whole[:-20])
    stale = 'witan_auth_stale{file="keys"}'
    server.poll("the broken file is seen", 20, lambda: guarded.figures()[stale] == 1)
    assert guarded.ask(one).status_code == 200
    assert guarded.client.post(TEXT, json=SHORT).status_code == 401
    assert "what was read before stays in use" in guarded.said()
    put(guarded.keys, whole)
    server.poll("the whole file is seen", 20, lambda: guarded.figures()[stale] == 0)
    assert guarded.ask(one).status_code == 200


def test_a_signal_reads_the_files_again(guarded):
    loads = 'witan_auth_loads_total{file="jwks"}'
    before = guarded.figures()[loads]
    guarded.running.coordinator.process.child.send_signal(signal.SIGHUP)
    server.poll("the files are read again", 20, lambda: guarded.figures()[loads] > before)


# --- quotas ---

def test_requests_a_minute(guarded):
    one = guarded.key("three", "--rpm", "3")
    guarded.settled(one, 200)
    for left in (2, 1, 0):
        answer = guarded.ask(one, {**SHORT, "n": 2})  # of two choices, and one request
        assert answer.status_code == 200
        told = answer.headers
        assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("3", str(left))
        assert re.fullmatch(r"\d+s", told["x-ratelimit-reset-requests"])
        assert "x-ratelimit-limit-tokens" not in told
    refused = guarded.ask(one)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 65
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert "has made 3 requests in the last minute, of 3" in refused.json()["error"]["message"]
    messages = {"max_tokens": 2, "messages": [{"role": "user", "content": "What is a cat?"}]}
    other = guarded.ask(one, messages, "/v1/messages")
    assert other.status_code == 429 and other.json()["error"]["type"] == "rate_limit_error"
    assert other.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert re.fullmatch(r"20\d\d-.*Z", other.headers["anthropic-ratelimit-requests-reset"])
    with pytest.raises(grpc.RpcError) as raised:
        list(guarded.stub.Generate(pb.GenerateRequest(text="A cat", max_tokens=2),
                                   metadata=[("authorization", f"Bearer {one}")]))
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "(requests_per_minute)" in raised.value.details()
    assert 1000 <= int(dict(raised.value.trailing_metadata())["grpc-retry-pushback-ms"]) <= 65000
    assert guarded.client.get("/v1/models", headers=bearer(one)).status_code == 200  # draws nothing
    assert guarded.figures()['witan_requests_refused_total{limit="requests_per_minute"}'] >= 3


def test_tokens_a_minute(guarded):
    one = guarded.key("fifty", "--tpm", "50")
    guarded.settled(one, 200)
    answer = guarded.ask(one)
    used = answer.json()["usage"]["total_tokens"]
    prompt = answer.json()["usage"]["prompt_tokens"]
    assert answer.headers["x-ratelimit-limit-tokens"] == "50"
    assert answer.headers["x-ratelimit-remaining-tokens"] == str(50 - prompt - 2)
    # What it may draw is reserved, what it has drawn is counted.
    answer = guarded.ask(one, {**SHORT, "max_tokens": 50 - used - prompt, "ignore_eos": False, "stop": ["a"]})
    assert answer.status_code == 200 and answer.headers["x-ratelimit-remaining-tokens"] == "0"
    used += answer.json()["usage"]["total_tokens"]
    refused = guarded.ask(one, {**SHORT, "max_tokens": 51 - used - prompt})
    assert refused.status_code == 429
    assert f"has used or reserved {used} tokens" in refused.json()["error"]["message"]
    assert refused.headers["x-ratelimit-remaining-tokens"] == str(50 - used)
    # Without a bound it gets what is left.
    assert guarded.ask(one, {"prompt": "A cat is", "stop": ["a"]}).status_code == 200


def test_answers_at_once(guarded):
    one = guarded.key("single", "--concurrent", "1")
    guarded.settled(one, 200)
    with guarded.client.stream("POST", TEXT, json=ENDLESS, headers=bearer(one)) as held:
        lines = held.iter_lines()
        assert next(lines).startswith("data: ")
        refused = guarded.ask(one)
        assert refused.status_code == 429 and "(concurrent)" in refused.json()["error"]["message"]
        assert int(refused.headers["Retry-After"]) >= 1
    server.poll("its place is free", 20, lambda: guarded.ask(one).status_code == 200)


def test_a_tenant_has_one_quota(guarded):
    """Keys and tokens of one tenant share it, and those of another do not."""
    key, token = guarded.key("of-crowd", "--tenant", "crowd"), guarded.token(org="crowd")
    guarded.settled(key, 200)
    asked = [guarded.ask((key, token)[i % 2]).status_code for i in range(TENANT_REQUESTS)]
    assert asked == [200] * TENANT_REQUESTS
    for credentials in (key, token):
        refused = guarded.ask(credentials)
        assert refused.status_code == 429 and "this tenant has made 6" in refused.json()["error"]["message"]
    assert guarded.ask(guarded.token(org="quiet")).status_code == 200


def test_quotas_are_checked(tmp_path):
    for flag, value in (("--rpm", "0"), ("--tpm", "many"), ("--concurrent", "-1"), ("--expires", "1999-01-01"),
                        ("--expires", "soon")):
        done = server.witan("key", "create", "--file", tmp_path / "k", "--name", "x", "--scopes", "raw", flag,
                            value, expect=1)
        assert flag[2:] in done.stderr
    server.witan("key", "create", "--file", tmp_path / "k", "--name", "x", "--scopes", "raw", "--rpm", "6",
                 "--tpm", "70", "--concurrent", "8", "--expires", "2099-01-31")
    listed = server.witan("key", "list", "--file", tmp_path / "k").stdout
    assert listed.endswith("  x, expires 2099-01-31T00:00:00Z, 6 requests/min, 70 tokens/min, 8 at once\n")


# --- another's work ---

def test_another_tenant_takes_nothing_over(guarded):
    """The same Idempotency-Key and body of another tenant: an answer of its own, and no way to resume."""
    keys = [guarded.key(name, "--tenant", name) for name in ("mine", "theirs")]
    for key in keys:
        guarded.settled(key, 200)
    named = {"Idempotency-Key": "the-same"}
    with guarded.client.stream("POST", TEXT, json=ENDLESS, headers={**bearer(keys[0]), **named}) as mine:
        lines = mine.iter_lines()
        last = next(line for line in lines if line.startswith("id: "))[4:]
        with guarded.client.stream("POST", TEXT, json=ENDLESS, headers={**bearer(keys[1]), **named}) as theirs:
            assert theirs.status_code == 200
            assert mine.headers["x-witan-seed"] != theirs.headers["x-witan-seed"]
            other = next(line for line in theirs.iter_lines() if line.startswith("id: "))[4:]
        assert other.split("/")[2] != last.split("/")[2]
        refused = guarded.client.post(TEXT, json=ENDLESS, headers={**bearer(keys[1]), **named, "Last-Event-ID": last})
        assert refused.status_code == 409 and "of another request" in refused.json()["error"]["message"]
        assert next(line for line in lines if line.startswith("data: "))  # it goes on
    body = dict(text="A cat is", max_tokens=4, ignore_eos=True, idempotency_key="g")
    said = list(guarded.stub.Generate(pb.GenerateRequest(**body), metadata=[("authorization", f"Bearer {keys[0]}")]))
    with pytest.raises(grpc.RpcError) as raised:
        list(guarded.stub.Generate(pb.GenerateRequest(resume_after=said[0].delta.position, **body),
                                   metadata=[("authorization", f"Bearer {keys[1]}")]))
    assert raised.value.code() == grpc.StatusCode.ABORTED


# --- tokens ---

def test_tokens_are_taken(guarded):
    token = guarded.token()
    assert guarded.ask(token).status_code == 200
    assert guarded.client.get("/v1/models", headers={"x-api-key": token}).status_code == 200
    assert guarded.client.get("/v1/models", headers=bearer(guarded.token(scope=["generate"]))).status_code == 200
    metadata = [("authorization", f"Bearer {token}")]
    assert list(guarded.stub.Generate(pb.GenerateRequest(text="A cat", max_tokens=2), metadata=metadata))
    with openai.OpenAI(base_url=f"http://{guarded.running.http}/v1", api_key=token, max_retries=0) as client:
        assert client.models.list().data


def test_scopes_of_tokens(guarded):
    def listed(scope) -> int:
        return guarded.client.get("/v1/models", headers=bearer(guarded.token(scope=scope))).status_code
    assert [listed(scope) for scope in ("openid", None, "admin", "openid generate", ["generate"])] == [
        403, 403, 403, 200, 200]
    metrics = guarded.client.get("/metrics", headers=bearer(guarded.token(scope="admin")))
    assert metrics.status_code == 200
    assert guarded.ask(guarded.token(), {"prompt": [1, 2], "max_tokens": 1}).status_code == 403  # without raw


def bad_tokens(guarded) -> dict[str, tuple[str, str]]:
    """By the metric's reason and what the log says: tokens that are not taken."""
    now, good = int(time.time()), guarded.token()
    head, claims, signature = good.split(".")
    more = encode(json.dumps({"iss": guarded.issuer.iss, "aud": "witan", "sub": "eve", "org": "team-z",
                              "exp": now + 999999, "scope": "generate admin"}).encode())
    return {
        "tampered": (f"{head}.{more}.{signature}", "signature", "the signature is not that of the key"),
        "another's": (guarded.token(guarded.other), "signature", "the signature is not that of the key"),
        "expired": (guarded.token(exp=now - 60), "expired", "exp: the token has expired"),
        "not yet": (guarded.token(nbf=now + 600), "not_yet", "nbf: the token is of"),
        "issuer": (guarded.token(iss="https://evil.example"), "issuer", 'found "https://evil.example"'),
        "audience": (guarded.token(aud="else"), "audience", 'found "else"'),
        "key": (guarded.token(header={"kid": "two"}), "key_id", 'found "two"'),
        "none": (guarded.token(header={"alg": "none"}) + "e30", "algorithm", 'found "none"'),
        "hmac": (guarded.token(header={"alg": "HS256"}), "algorithm", 'found "HS256"'),
        "ecdsa": (guarded.token(header={"alg": "ES256"}), "algorithm", "is for, found ES256"),
        "no tenant": (guarded.token(org=None), "claims", "org: expected"),
        "no end": (guarded.token(exp=None), "claims", "exp: expected"),
        "no token": ("a.b.c", "malformed", "header: expected base64url"),
    }


def test_other_tokens_are_refused(guarded):
    words, bad = set(), bad_tokens(guarded)
    for name, (token, reason, _) in bad.items():
        metric = f'witan_auth_refused_total{{reason="{reason}"}}'
        before = guarded.figures()[metric]
        refused = guarded.ask(token)
        assert refused.status_code == 401, name
        error = refused.json()["error"]
        assert error["code"] == "invalid_token" and error["type"] == "authentication_error"
        assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
        words.add(error["message"])
        with pytest.raises(grpc.RpcError) as raised:
            guarded.stub.ListModels(pb.ListModelsRequest(), metadata=[("authorization", f"Bearer {token}")])
        assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
        words.add(raised.value.details())
        assert guarded.figures()[metric] == before + 2, name
        time.sleep(0.2)  # the log takes 20 such lines a second
    assert len(words) == 1
    said = guarded.said()
    for name, (_, reason, logged) in bad.items():
        assert re.search(rf"a token was refused \({reason}\): .*{re.escape(logged)}", said), name


def test_the_issuer_changes_its_keys(guarded):
    old = guarded.token()
    assert guarded.ask(old).status_code == 200
    other = copy.copy(guarded.other)
    other.kid = "two"
    put(guarded.jwks, '{"keys": []}')
    stale = 'witan_auth_stale{file="jwks"}'
    server.poll("the broken set is seen", 20, lambda: guarded.figures()[stale] == 1)
    assert guarded.client.get("/v1/models", headers=bearer(old)).status_code == 200
    put(guarded.jwks, other.jwks())
    guarded.settled(guarded.token(other), 200)
    assert guarded.client.get("/v1/models", headers=bearer(old)).status_code == 401
    put(guarded.jwks, guarded.issuer.jwks())
    guarded.settled(old, 200)


def test_the_configuration_says_what_is_missing(tmp_path):
    for auth, words in (({"jwks": "j"}, "auth.issuer"), ({"jwks": "j", "issuer": "i"}, "auth.audience"),
                        ({"issuer": "i"}, "auth.jwks"), ({"leeway_s": 601}, "leeway_s"),
                        ({"quotas": {"tokens_per_minute": -1}}, "tokens_per_minute")):
        done = server.witan("config", "--check", server.write_config(tmp_path, auth=auth), expect=1)
        assert words in done.stderr
    told = server.witan("config", "--check", server.write_config(
        tmp_path, auth={"jwks": "j", "issuer": "i", "audience": "a", "quotas": {"concurrent": 3}})).stdout
    for words in ('jwks: "j"', 'tenant_claim: "sub"', 'scopes_claim: "scope"', "leeway_s: 60", "concurrent: 3"):
        assert words in told
