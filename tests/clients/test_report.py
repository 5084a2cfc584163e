"""The page of `witan bench --html` in a browser: it asks for nothing, complains of nothing, shows
something, in light and in dark, on a desk and on a phone, and no word lies on another."""

import json
import random
import statistics
from pathlib import Path

import pytest

import browser
import server

HOSTILE = "<script>console.error(1)</script><img src=http://127.0.0.1:9/x>\"'&"
LOADS = (1, 2, 4, 8, 16, 32, 64)

# Two words of one drawing whose boxes meet by more than a pixel, or one outside of its drawing.
COLLISIONS = """(() => {
    const bad = [];
    for (const svg of document.querySelectorAll('svg')) {
        const whole = svg.getBoundingClientRect();
        const texts = [...svg.querySelectorAll('text')];
        const boxes = texts.map(t => t.getBoundingClientRect());
        boxes.forEach((a, i) => {
            if (a.left < whole.left - 1 || a.right > whole.right + 1 || a.top < whole.top - 1 ||
                a.bottom > whole.bottom + 1)
                bad.push([texts[i].textContent, 'outside']);
            boxes.slice(i + 1).forEach((b, k) => {
                if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
                    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
                    bad.push([texts[i].textContent, texts[i + 1 + k].textContent]);
            });
        });
    }
    return bad;
})()"""


def request(rng: random.Random, sent_ns: int, load: int) -> dict:
    """An answer of about 32 tokens, slower under a larger load."""
    first = sent_ns + int(rng.lognormvariate(17 + load / 16, 0.5))
    gaps = [int(rng.gauss(8e6 + 1e6 * load, 5e5)) for _ in range(rng.randint(20, 40))]
    return {"intended_ns": sent_ns, "sent_ns": sent_ns, "first_ns": first,
            "last_ns": first + sum(gaps), "gaps_ns": gaps, "prompt_tokens": 100,
            "output_tokens": len(gaps) + 1, "cached_tokens": 10, "http_status": 200,
            "usage": True}


def make_run(load: int) -> dict:
    rng = random.Random(load)
    lanes = [0] * load
    requests = []
    for i in range(40 + load):
        lane = lanes.index(min(lanes))
        requests.append(request(rng, lanes[lane], load))
        lanes[lane] = requests[-1]["last_ns"]
    requests[-1]["error"] = f"http: {HOSTILE}"
    name = f"concurrency {load}" + "<long> " * 7 * (load == 64)
    return {"label": name, "mode": "closed", "concurrency": load, "seed": 1,
            "dataset": HOSTILE, "server": HOSTILE, "start_unix_s": 1700000000,
            "window_ns": max(lanes), "requests": requests}


def make_page(folder, loads) -> str:
    report = {"schema": "witan-bench", "version": 1, "program": HOSTILE, "command": HOSTILE,
              "runs": [make_run(load) for load in loads]}
    (folder / "report.json").write_text(json.dumps(report))
    server.witan("bench", "--report", folder / "report.json", "--html", folder / "page.html")
    return (folder / "page.html").as_uri()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return make_page(tmp_path_factory.mktemp("page"), LOADS)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    opened = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def test_the_browser_would_tell(chromium, tmp_path):
    """What the other tests find nothing of is found here."""
    bad = tmp_path / "bad.html"
    words = "<text y=20>one</text><text y=22>two</text>"
    bad.write_text(f"<svg width=99 height=40>{words}</svg>{HOSTILE}")
    chromium.open(bad.as_uri())
    assert "http://127.0.0.1:9/x" in chromium.requests()
    assert chromium.complaints()
    assert chromium.value(COLLISIONS) == [["one", "two"]]
    chromium.open("about:blank")
    assert browser.drawn_share(chromium.screenshot()) < 0.001


@pytest.mark.parametrize("width,dark", [(1200, False), (1200, True), (360, False), (360, True)])
def test_the_page_is_whole_and_alone(chromium, page, width, dark):
    chromium.open(page, width, dark=dark)
    assert browser.drawn_share(chromium.screenshot()) > 0.02
    assert chromium.value("document.querySelectorAll('svg').length") == 4 + 4 * len(LOADS)
    assert chromium.value("document.querySelectorAll('script, img, link').length") == 0
    assert HOSTILE in chromium.value("document.body.innerText")
    assert chromium.value("document.documentElement.scrollWidth") <= width  # nothing off the side
    assert chromium.value(COLLISIONS) == []
    paper = chromium.value("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(22, 25, 29)" if dark else "rgb(255, 255, 255)")
    assert chromium.requests() == [page]
    assert chromium.complaints() == []


def test_reports_side_by_side(chromium, page, tmp_path):
    ours = Path(page.removeprefix("file://")).with_name("report.json")
    theirs = tmp_path / "theirs.json"
    report = json.loads(ours.read_text())
    for run in report["runs"]:
        run["window_ns"] *= 2
    theirs.write_text(json.dumps(report))
    server.witan("bench", "--compare", ours, theirs, "--html", tmp_path / "page.html")
    chromium.open((tmp_path / "page.html").as_uri())
    assert chromium.value("document.querySelectorAll('svg').length") == 2 + 2 * len(LOADS)
    ratios = chromium.value("[...document.querySelectorAll('tr')]"
                            ".map(r => [...r.children].map(c => c.textContent))"
                            ".filter(r => r[0] == 'output tokens/s').map(r => r[3])")
    assert ratios == ["0.500"] * len(LOADS)
    assert HOSTILE in chromium.value("document.body.innerText")
    assert chromium.value(COLLISIONS) == []
    assert len(chromium.requests()) == 1
    assert chromium.complaints() == []


def test_a_measured_load(main, chromium, tmp_path):
    """From the server to the page; percentiles as Python's own library has them."""
    server.witan("bench", "--url", f"http://{main.http}", "--tokenizer", server.MODEL,
                 "--sweep", "concurrency:1,4", "--requests", 12, "--warm-up", 2, "--input", 32,
                 "--output", 16, "--seed", 1, "--json", tmp_path / "report.json",
                 "--html", tmp_path / "page.html")
    report = json.loads((tmp_path / "report.json").read_text())
    assert [run["label"] for run in report["runs"]] == ["concurrency 1", "concurrency 4"]
    for run in report["runs"]:
        figures, counted = run["figures"], [r for r in run["requests"] if not r["warm_up"]]
        assert (figures["succeeded"], figures["warm_up"], len(counted)) == (12, 2, 12)
        assert figures["output_tokens"] == 12 * 16
        assert figures["output_tokens_per_s"] == pytest.approx(12 * 16e9 / run["window_ns"])
        ttft = [(r["first_ns"] - r["intended_ns"]) / 1e6 for r in counted]
        gaps = [gap / 1e6 for r in counted for gap in r["gaps_ns"]]
        for key, samples in (("ttft", ttft), ("itl", gaps)):
            percentiles = statistics.quantiles(samples, n=100, method="inclusive")
            latency = figures["latency_ms"][key]
            assert latency["count"] == len(samples)
            assert latency["mean"] == pytest.approx(statistics.mean(samples))
            assert latency["p50"] == pytest.approx(percentiles[49])
            assert latency["p99"] == pytest.approx(percentiles[98])
    chromium.open((tmp_path / "page.html").as_uri())
    assert "model lexicon" in chromium.value("document.body.innerText")
    assert chromium.value(COLLISIONS) == []
    assert len(chromium.requests()) == 1
    assert chromium.complaints() == []


def test_a_load_that_failed_has_a_page_too(chromium, tmp_path):
    failed = {"intended_ns": 0, "sent_ns": 0, "prompt_tokens": 0, "output_tokens": 0,
              "error": "refused: connection refused", "gaps_ns": []}
    run = make_run(1) | {"requests": [failed], "window_ns": 1000}
    report = {"schema": "witan-bench", "version": 1, "program": "p", "command": "c", "runs": [run]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    server.witan("bench", "--report", tmp_path / "report.json", "--html", tmp_path / "page.html")
    chromium.open((tmp_path / "page.html").as_uri())
    assert "1 failed, refused" in chromium.value("document.body.innerText")
    assert "Nothing was measured." in chromium.value("document.body.textContent")
    assert chromium.value(COLLISIONS) == []
    assert chromium.complaints() == []
