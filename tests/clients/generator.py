"""Another load generator, aiperf, against the server: it ends without an error, and counts the tokens that
`witan bench` counts of the same load. How fast either says the server is, tests/bench/generators compares.

Not a test by its name, since its packages are large: run by `tests/clients/run BIN_DIR generator.py`."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import server
from ask import question

ROUNDS = int(os.environ.get("WITAN_GENERATOR_ROUNDS", "1"))
REQUESTS = int(os.environ.get("WITAN_GENERATOR_REQUESTS", "60"))
# A slower model in the place of the one that ships, for tests/bench/generators: a folder.
MODEL = Path(os.environ.get("WITAN_GENERATOR_MODEL", server.MODEL))
THREADS = int(os.environ.get("WITAN_GENERATOR_THREADS", "0"))
ANSWER = 24
# What aiperf and witan bench call the same load: a closed loop, and requests at even times.
RATE = os.environ.get("WITAN_GENERATOR_RATE", "20")
LOADS = {"closed": (["--concurrency", "6"], ["--concurrency", "6"]),
         "open": (["--request-rate", RATE, "--arrival-pattern", "constant"],
                  ["--rate", RATE, "--arrivals", "constant"])}
REVISION = "0" * 40  # of a repository that nobody publishes


@pytest.fixture(scope="session")
def main(tmp_path_factory):
    """In place of conftest's: who asks second finds no prompt of the first's in a cache."""
    folder = tmp_path_factory.mktemp("generator")
    running = server.Serve(folder, server.write_config(
        folder, model={"path": MODEL},
        limits={"prefix_cache": "off", "threads": THREADS, "context": server.CONTEXT}))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def prompts(entries) -> list[str]:
    """Of different lengths."""
    return [" ".join([f"{i}:", *(question(e) for e in entries[i % 500:i % 500 + 1 + i % 9])])
            for i in range(REQUESTS)]


def hub(folder: Path) -> dict[str, str]:
    """The tokenizer of the model as the hub's client keeps what it has fetched; it is to fetch nothing."""
    kept = folder / "hub" / "models--witan--lexicon"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(REVISION)
    (kept / "snapshots" / REVISION).mkdir(parents=True)
    for path in MODEL.glob("*.json"):
        (kept / "snapshots" / REVISION / path.name).symlink_to(path)
    return {"HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "HOME": str(folder)}


def aiperf(folder: Path, address: str, prompts: list[str], load: str) -> dict:
    """Its report of these prompts."""
    asked, out = folder / "asked.jsonl", folder / "report"
    asked.write_text("".join(json.dumps({"text_input": p, "output_length": ANSWER}) + "\n"
                             for p in prompts))
    words = [os.environ["WITAN_GENERATOR"], "profile", "--model", "lexicon", "--url",
             f"http://{address}", "--endpoint-type", "completions", "--streaming",
             "--use-server-token-count", "--tokenizer", "witan/lexicon",
             *LOADS[load][0], "--request-count", len(prompts),
             "--input-file", asked, "--custom-dataset-type", "mooncake_trace",
             "--extra-inputs", "ignore_eos:true", "--extra-inputs", "temperature:0",
             "--no-gpu-telemetry", "--no-server-metrics", "--ui", "none", "--output-artifact-dir", out]
    done = subprocess.run([str(w) for w in words], cwd=folder, env={**os.environ, **hub(folder)},
                          capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((out / "profile_export_aiperf.json").read_text())


def ours(folder: Path, address: str, prompts: list[str], load: str) -> dict:
    """The report of `witan bench` on the same."""
    asked, out = folder / "prompts.jsonl", folder / "report.json"
    asked.write_text("".join(json.dumps({"prompt": p, "max_tokens": ANSWER}) + "\n"
                             for p in prompts))
    server.witan("bench", "--url", f"http://{address}", "--api", "completions",
                 "--dataset", f"prompts:{asked}", "--requests", len(prompts),
                 *LOADS[load][1], "--temperature", 0, "--ignore-eos", "yes", "--json", out)
    return json.loads(out.read_text())


def compare(load: str, report: dict, figures: dict):
    """What both say, for tests/bench/generators; times are nobody's test."""
    pairs = {"output tokens a second": (report["output_token_throughput"]["avg"],
                                        figures["output_tokens_per_s"]),
             "median time to the first token, ms": (report["time_to_first_token"]["p50"],
                                                    figures["latency_ms"]["ttft"]["p50"])}
    for what, (other, own) in pairs.items():
        print(f"{load} loop, {what}: aiperf {other:.2f}, witan bench {own:.2f}, ratio {own / other:.3f}")


@pytest.mark.parametrize("turn", range(ROUNDS))
@pytest.mark.parametrize("load", LOADS)
def test_another_generator(main, prompts, until_idle, tmp_path, turn, load):
    report = aiperf(tmp_path, main.http, prompts, load)
    until_idle()
    (run,) = ours(tmp_path, main.http, prompts, load)["runs"]
    until_idle()
    figures = run["figures"]
    assert report["error_summary"] == [] and not report["was_cancelled"]
    assert report["request_error_rate"]["avg"] == 0 and figures["failed"] == 0
    assert report["completed_request_count"]["avg"] == figures["succeeded"] == REQUESTS
    assert report["time_to_first_token"]["count"] == REQUESTS
    assert report["total_usage_prompt_tokens"]["avg"] == figures["prompt_tokens"]
    assert report["total_isl"]["avg"] == figures["prompt_tokens"]
    assert figures["output_tokens"] == REQUESTS * ANSWER
    assert report["total_usage_completion_tokens"]["avg"] == REQUESTS * ANSWER
    assert report["total_output_tokens"]["avg"] == REQUESTS * ANSWER
    compare(load, report, figures)
