"""schemathesis makes requests of docs/openapi.yaml, good ones and bad ones, and sends them to a server: no 5xx, every
answer as documented (hooks.py), and at the end nothing of them left in the server.

Not a test by its name, since its packages are large: run by `tests/clients/run BIN_DIR --direct generated.py`.
They are the same in each run, unless
WITAN_GENERATED_SEED asks for others."""

import collections
import json
import os
import subprocess

import httpx2
import pytest

import server

# Those at the bounds of each field ("coverage", some 3,300), and random ones of each operation.
PHASES = os.environ.get("WITAN_GENERATED_PHASES", "coverage,fuzzing")
EXAMPLES = int(os.environ.get("WITAN_GENERATED_EXAMPLES", "10"))
SEED = (["--seed", os.environ["WITAN_GENERATED_SEED"], "--generation-database", "none"]
        if "WITAN_GENERATED_SEED" in os.environ else ["--generation-deterministic"])
LEAST = int(os.environ.get("WITAN_GENERATED_LEAST", "3000"))
# Short answers: what is asked for without a length ends at the context.
LIMITS = {"context": 192, "requests": 1024}
CHECKS = ("fits_the_document", "no_server_error", "negative_data_rejection")


@pytest.fixture(scope="session")
def main(tmp_path_factory):
    """In place of conftest's: answers are short, and no request is refused for those beside it."""
    running = server.Direct(tmp_path_factory.mktemp("generated"), limits=LIMITS)
    yield running
    running.stop()


def schemathesis(folder, address: str, log) -> str:
    """Its run; what it says if it finds anything."""
    words = [os.environ["WITAN_SCHEMATHESIS"], "--config-file", server.TOP / "tests/clients/schemathesis.toml",
             "run", server.TOP / "docs/openapi.yaml", "--url", f"http://{address}",
             "--phases", PHASES, "--mode", "all", "--max-examples", EXAMPLES,
             *SEED, "--no-shrink",
             "--continue-on-failure", "--checks", ",".join(CHECKS), "--warnings", "off", "--output-sanitize", "false",
             "--suppress-health-check", "all", "--request-timeout", int(60 * server.FACTOR), "--no-color"]
    done = subprocess.run([str(w) for w in words], cwd=folder, capture_output=True, text=True, check=False,
                          timeout=1500,
                          env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "WITAN_GENERATED_LOG": str(log),
                               "PYTHONPATH": str(server.TOP / "tests/clients")})
    (folder / "said").write_text(done.stdout + done.stderr)
    return "" if done.returncode == 0 else done.stdout[-20000:] + done.stderr[-2000:]


def figures(main) -> str:
    """How many KV blocks are taken."""
    page = httpx2.get(f"http://{main.http}/metrics", timeout=30 * server.FACTOR).text
    return "".join(line + "\n" for line in page.splitlines() if line.startswith("witan_kv_blocks{"))


def test_nothing_generated_breaks_the_server(main, tmp_path, until_idle):
    log = tmp_path / "requests.jsonl"
    said = schemathesis(tmp_path, main.http, log)
    sent = [json.loads(line) for line in log.read_text().splitlines()]
    by_status = collections.Counter(s["status"] for s in sent)
    print(f"{len(sent)} requests, {by_status}, {collections.Counter(s['mode'] for s in sent)}")
    assert not said, said
    assert len(sent) >= LEAST
    assert by_status[200] >= len(sent) / 10, "too few are answered to tell anything"
    until_idle()
    server.poll("no KV block is held", 20, lambda: "used\"} 0\n" in figures(main))
    state = httpx2.get(f"http://{main.http}/admin/status", timeout=30 * server.FACTOR).json()
    (group,) = state["groups"]
    assert group["times_ready"] == 1 and group["losses"] == 0
