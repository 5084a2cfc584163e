"""`witan bench` against a running server: over HTTP, HTTPS and gRPC it counts what the server counts,
asks what it was told to, and says what goes wrong."""

import json
import os
import signal
import subprocess

import grpc
import inference_pb2
import inference_pb2_grpc
import pytest

import server
from test_auth import make_key

OUTPUT = 12


def run(tmp_path, *words, expect: int = 0, env: dict | None = None) -> tuple[dict, str, str]:
    """A load's JSON, what it printed, and what it complained of."""
    path = tmp_path / "report.json"
    done = subprocess.run([server.BIN / "witan", "bench", *map(str, words), "--json", path],
                          capture_output=True, text=True, timeout=180 * server.FACTOR, check=False,
                          env={**os.environ, **(env or {})})
    assert not server.REPORT.search(done.stderr), done.stderr
    assert done.returncode == expect, f"{words}: {done.returncode}: {done.stdout}\n{done.stderr}"
    report = json.loads(path.read_text()) if path.exists() else {}
    return report, done.stdout, done.stderr


def check_requests(load: dict, count: int, output: int | None = OUTPUT, warm_up: int = 0):
    """Every request has succeeded, and its record hangs together."""
    assert load["figures"]["succeeded"] == count
    assert len(load["requests"]) == count + warm_up
    assert sum(r["warm_up"] for r in load["requests"]) == warm_up
    for r in load["requests"]:
        assert "error" not in r and r["usage"]
        assert r["intended_ns"] <= r["sent_ns"] < r["first_ns"] <= r["last_ns"]
        assert r["output_tokens"] == output or output is None
        assert len(r["gaps_ns"]) + 1 <= r["output_tokens"]
        assert sum(r["gaps_ns"]) == r["last_ns"] - r["first_ns"]


@pytest.fixture
def counted(status):
    """Requests that the server has done."""
    return lambda: status().requests_done


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_counts_what_the_server_counts(main, tmp_path, door, counted, until_idle):
    until_idle()
    where = ("--url", f"http://{main.http}") if door == "http" else ("--grpc", main.grpc)
    before = counted()
    report, text, _ = run(tmp_path, *where, "--tokenizer", server.MODEL, "--input", "uniform:8:40",
                          "--output", OUTPUT, "--requests", 20, "--concurrency", 4, "--warm-up", 3,
                          "--seed", 5)
    until_idle()
    assert counted() - before == 23
    load, = report["runs"]
    check_requests(load, 20, warm_up=3)
    lengths = [r["prompt_tokens"] for r in load["requests"] if not r["warm_up"]]
    assert all(8 <= n <= 40 for n in lengths) and len(set(lengths)) > 5
    assert load["figures"]["prompt_tokens"] == sum(lengths)
    assert load["figures"]["output_tokens"] == 20 * OUTPUT
    assert "20 of 20 succeeded" in text and load["seed"] == 5
    busy = [(r["sent_ns"], r["last_ns"]) for r in load["requests"] if not r["warm_up"]]
    for begin, _ in busy:
        assert sum(b <= begin < e for b, e in busy) <= 4


def test_the_same_seed_asks_the_same(main, tmp_path):
    loads = []
    for name, seed in (("a", 9), ("b", 9), ("c", 10)):
        folder = tmp_path / name
        folder.mkdir()
        report, *_ = run(folder, "--url", f"http://{main.http}/v1/", "--vocab", 300, "--input",
                         "normal:30:9", "--output", "uniform:2:9", "--requests", 12, "--concurrency",
                         1, "--seed", seed)
        loads.append([(r["prompt_tokens"], r["output_tokens"])
                      for r in report["runs"][0]["requests"]])
    assert loads[0] == loads[1] != loads[2]


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_words_are_as_many_tokens_as_asked_for(main, tmp_path, door):
    where = ("--url", f"http://{main.http}") if door == "http" else ("--grpc", main.grpc)
    words = ("--tokenizer", server.MODEL, "--prompts", "text", "--input", 25, "--output", OUTPUT,
             "--requests", 6, "--concurrency", 2)
    report, *_ = run(tmp_path, *where, *words)
    check_requests(report["runs"][0], 6)
    assert {r["prompt_tokens"] for r in report["runs"][0]["requests"]} == {25}
    report, *_ = run(tmp_path, *where, *words, "--api", "chat")
    check_requests(report["runs"][0], 6)
    lengths = {r["prompt_tokens"] for r in report["runs"][0]["requests"]}
    assert len(lengths) == 1 and lengths.pop() > 25  # the template's own


def test_open_loop_sends_when_it_is_time(main, tmp_path):
    report, text, _ = run(tmp_path, "--url", f"http://{main.http}", "--vocab", 300, "--input", 10,
                          "--output", 2, "--rate", 40, "--arrivals", "burst:4", "--requests", 16)
    load, = report["runs"]
    check_requests(load, 16, 2)
    assert load["mode"] == "open" and load["rate"] == 40
    assert [r["intended_ns"] for r in load["requests"]] == [i // 4 * 100_000_000 for i in range(16)]
    assert "TTFT from send" in text


def test_trace_with_shared_blocks(main, tmp_path):
    lines = [{"timestamp": 5000 + 50 * i, "input_length": 160, "output_length": 3 + i,
              "hash_ids": [1, 2, 3] if i % 2 else [1, 2, 100 + i]} for i in range(6)]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report, *_ = run(tmp_path, "--grpc", main.grpc, "--dataset", f"trace:{trace}", "--block-tokens",
                     64, "--speed", 2)
    load, = report["runs"]
    check_requests(load, 6, None)
    assert [r["output_tokens"] for r in load["requests"]] == [3, 4, 5, 6, 7, 8]
    assert [r["intended_ns"] for r in load["requests"]] == [i * 25_000_000 for i in range(6)]
    assert {r["prompt_tokens"] for r in load["requests"]} == {160}


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_files_of_prompts_and_conversations(main, tmp_path, door, entries):
    where = ("--url", f"http://{main.http}") if door == "http" else ("--grpc", main.grpc)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(line) + "\n" for line in (
        {"prompt": "What is a lighthouse?", "max_tokens": 3},
        {"messages": [{"role": "user", "content": "What is a cat?"}], "max_tokens": 4})))
    report, *_ = run(tmp_path, *where, "--dataset", f"prompts:{prompts}", "--concurrency", 1)
    assert report["runs"][0]["figures"]["succeeded"] == 2
    assert [r["output_tokens"] for r in report["runs"][0]["requests"]] == [3, 4]
    talks = [{"id": str(i), "conversations": [{"from": "human", "value": f"What is {e['word']}?"},
                                              {"from": "gpt", "value": e["answer"]}]}
             for i, e in enumerate(entries[:5])]
    talks.insert(2, {"id": "x", "conversations": [{"from": "gpt", "value": "unasked"}]})
    sharegpt = tmp_path / "sharegpt.json"
    sharegpt.write_text(json.dumps(talks))
    report, _, notes = run(tmp_path, *where, "--dataset", f"sharegpt:{sharegpt}", "--tokenizer",
                           server.MODEL, "--ignore-eos", "yes", "--requests", 7, "--concurrency", 2)
    check_requests(report["runs"][0], 7, None)
    assert "1 conversations without a question that is answered were left out" in notes
    assert "the file's 5 requests were sent more than once" in notes
    sizes = [r["output_tokens"] for r in report["runs"][0]["requests"]]
    assert sizes[:2] == sizes[5:]


def test_sweep_and_extra_fields(main, tmp_path):
    report, text, _ = run(tmp_path, "--url", f"http://{main.http}", "--vocab", 300, "--input", 10,
                          "--output", 3, "--requests", 6, "--sweep", "concurrency:1,3", "--seed", 4,
                          "--temperature", 0, "--extra", '{"top_p": 0.5, "user": "bench"}',
                          "--goodput", "ttft:60000", "--html", tmp_path / "page.html")
    assert [r["label"] for r in report["runs"]] == ["concurrency 1", "concurrency 3"]
    assert [r["seed"] for r in report["runs"]] == [4, 5]
    for load in report["runs"]:
        check_requests(load, 6, 3)
        assert load["figures"]["goodput_requests_per_s"] == pytest.approx(
            load["figures"]["requests_per_s"])
    assert text.count("6 of 6 succeeded") == 2
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_what_the_server_refuses_is_an_answer(main, tmp_path):
    words = ("--url", f"http://{main.http}", "--vocab", 300, "--requests", 3)
    report, text, complaint = run(tmp_path, *words, "--input", server.CONTEXT, "--output", 5,
                                  expect=1)
    kinds = {f["kind"]: f["count"] for f in report["runs"][0]["figures"]["failures"]}
    assert kinds == {"answered 400": 3}
    assert "3 of 3 requests failed, for instance: answered 400: " in complaint
    assert "0 of 3 succeeded" in text
    *_, complaint = run(tmp_path, *words, "--model", "other", expect=1)
    assert "answered 404: " in complaint


@pytest.mark.parametrize("where", [("--url", "http://127.0.0.1:1"), ("--grpc", "127.0.0.1:1"),
                                   ("--url", "https://no-such-host.invalid")])
def test_a_dead_server_is_told_at_once(tmp_path, where):
    report, text, complaint = run(tmp_path, *where, "--vocab", 300, expect=1)
    assert not report and not text
    assert "is the server running there?" in complaint or "no-such-host.invalid: " in complaint
    assert len(complaint.splitlines()) == 1


def test_wrong_usage_names_the_flag(tmp_path):
    url = ("--url", "http://127.0.0.1:1")
    for words, complaint in (
            ((*url, "--rate", "x"), '--rate: expected a number of 1e-06 to 1e+06, found "x"'),
            ((*url, "--input", "normal:5"), "--input: expected tokens as N, uniform:FROM:TO"),
            ((*url, "--rate", 1, "--concurrency", 2), "expected one of --concurrency, --rate"),
            ((*url, "--sweep", "concurrency:1,0"), "--sweep: expected a whole number of 1 to"),
            ((*url, "--dataset", "alpaca"), "--dataset: expected random, sharegpt:FILE"),
            ((*url, "--extra", '{"stream": false}'), "--extra: stream: expected a field that"),
            ((*url, "--api", "chat"), "--api chat: expected --prompts text with it"),
            ((*url, "--prompts", "text"), "--prompts text: expected --tokenizer DIR"),
            ((*url, "--arrivals", "poisson"), "--arrivals: expected --rate with it"),
            ((*url, "--speed", 2), "--speed: expected a trace"),
            ((*url, "--grpc", "127.0.0.1:2"), "expected one of --url and --grpc, found both"),
            ((*url, "--nonsense", 1), "unknown flag --nonsense"),
            ((*url, "--requests"), "--requests: expected a value, found nothing"),
            ((*url, "more"), "one argument too many: more")):
        done = server.witan("bench", *words, expect=2)
        assert done.stderr.startswith(f"witan bench: {complaint}"), done.stderr
    assert "--concurrency N" in server.witan("bench", "--url", "x", "--help").stdout
    for words, complaint in (
            (("--url", "ftp://x"), 'expected http://HOST[:PORT][/PREFIX] or https://...'),
            (url, "expected --tokenizer DIR, the model's folder, or --vocab N"),
            ((*url, "--goodput", "x:5", "--vocab", 5), "--goodput: "),
            ((*url, "--dataset", f"trace:{tmp_path}/none", "--vocab", 5), f"{tmp_path}/none: ")):
        vocab = ("--vocab", 5) if "ftp://x" in words else ()
        done = server.witan("bench", *words, *vocab, expect=1)
        assert complaint in done.stderr, done.stderr
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 5, "output_length": 2}\n'
                     '{"timestamp": 1, "input_length": "5", "output_length": 2}\n')
    done = server.witan("bench", *url, "--vocab", 5, "--dataset", f"trace:{trace}", expect=1)
    assert (f"witan bench: {trace}: line 2: input_length: expected an integer, found a string\n"
            == done.stderr)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with TLS and keys at its doors, and a key."""
    folder = tmp_path_factory.mktemp("bench")
    key = make_key(folder / "keys.jsonl", "bench", "generate,raw,admin")
    tls = {"cert": folder / "pki" / "door.pem", "key": folder / "pki" / "door.key"}
    running = server.Direct(folder, listen={"tls": tls, "keys": folder / "keys.jsonl"})
    yield running, key
    running.stop()


@pytest.mark.parametrize("door", ["https", "grpc"])
def test_tls_and_keys(guarded, tmp_path, door):
    running, key = guarded
    where = ("--url", f"https://{running.http}") if door == "https" else ("--grpc", running.grpc)
    words = (*where, "--vocab", 300, "--input", 20, "--output", OUTPUT, "--requests", 8,
             "--concurrency", 4)
    trusted = ("--ca", running.pki / "door-ca.pem")
    report, *_ = run(tmp_path, *words, *trusted, env={"WITAN_API_KEY": key})
    check_requests(report["runs"][0], 8)
    file = tmp_path / "key"
    file.write_text(key + "\n")
    report, *_ = run(tmp_path, *words, *trusted, "--key-file", file)
    assert key not in json.dumps(report)
    (tmp_path / "report.json").unlink()
    *_, complaint = run(tmp_path, *words, *trusted, expect=1)
    assert "--key-file or WITAN_API_KEY gives a key" in complaint
    *_, complaint = run(tmp_path, *words, expect=1, env={"WITAN_API_KEY": key})
    if door == "https":
        assert "TLS: " in complaint and "certificate" in complaint
        report, *_ = run(tmp_path, *words, "--insecure", env={"WITAN_API_KEY": key})
        check_requests(report["runs"][0], 8)


def start_long_load(path, *where):
    """A load that only ends when it is told to."""
    words = (server.BIN / "witan", "bench", *where, "--vocab", 300, "--input", 10, "--output", 20,
             "--concurrency", 4, "--duration", 300, "--json", path)
    return subprocess.Popen([str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def test_ctrl_c_reports_what_there_is(main, tmp_path, status):
    path = tmp_path / "report.json"
    before = status().requests_done
    child = start_long_load(path, "--url", f"http://{main.http}")
    server.poll("ten requests are done", 60, lambda: status().requests_done >= before + 10)
    child.send_signal(signal.SIGINT)
    text, complaint = child.communicate(timeout=60 * server.FACTOR)
    assert child.returncode == 1 and "interrupted by Ctrl-C" in complaint
    load, = json.loads(path.read_text())["runs"]
    assert load["interrupted"] and load["figures"]["succeeded"] >= 10
    assert load["figures"]["failed"] == 0 and "Interrupted" in text
    server.poll("what was under way is cancelled", 10, lambda: status().requests_running == 0)


@pytest.mark.skipif(server.MODE != "direct", reason="the server's processes are its own to kill")
@pytest.mark.parametrize("door", ["http", "grpc"])
def test_a_server_that_dies_in_the_middle(tmp_path, door):
    running = server.Direct(tmp_path / "dying")
    path = tmp_path / "report.json"
    where = ("--url", f"http://{running.http}") if door == "http" else ("--grpc", running.grpc)
    child = start_long_load(path, *where)
    with grpc.insecure_channel(running.grpc) as channel:
        admin = inference_pb2_grpc.AdminStub(channel)
        server.poll("ten requests are done", 60, lambda: admin.GetStatus(
            inference_pb2.GetStatusRequest()).requests_done >= 10)
    for process in (running.coordinator.process, *running.workers):
        process.child.kill()
        process.child.wait()
    os.close(running.coordinator.pipe)
    text, complaint = child.communicate(timeout=120 * server.FACTOR)
    assert child.returncode == 1
    assert "stopped: 32 requests in a row could not reach the server" in complaint
    load, = json.loads(path.read_text())["runs"]
    figures = load["figures"]
    kinds = {f["kind"]: f["count"] for f in figures["failures"]}
    assert figures["succeeded"] > 0 and "succeeded" in text
    assert kinds.pop("unreachable") >= 32 and kinds.pop("lost", 0) <= 4 and not kinds
