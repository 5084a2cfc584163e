"""The coordinator's web page in a browser: the chat against the real server and against scripted
answers, hostile ones among them; the operator's view, with a rank killed; keyboard, axe, phone
width. It asks nobody but its server, and nothing appears on the console.

WITAN_SCREENSHOTS: a folder for pictures of what it looks like."""

import json
import os
import signal
import time
import urllib.request
from pathlib import Path

import pytest

import browser
import server
from page_server import Scripted, event, whole

PICTURES = os.environ.get("WITAN_SCREENSHOTS")
LAST = "[...document.querySelectorAll('.answer')].at(-1)"
ENDED = f"{LAST} && !{LAST}.classList.contains('streams')"
WORDS = f"{LAST}.querySelector(':scope > .words').textContent"

KINDS = {
    "script": "<script>window.ran = 1</script>",
    "handler": "<img src=x onerror=\"window.ran = 2\"><svg onload=\"window.ran = 3\">",
    "frame": "<iframe srcdoc=\"<script>parent.ran = 4</script>\"></iframe><object data=x></object>",
    "links": "[a](javascript:window.ran=5) [b](data:text/html,<script>x</script>) [c]( JaVaScRiPt:1) "
             "[d](vbscript:x) <javascript:window.ran=6> [e](//127.0.0.1:9/x) [f](java\tscript:1)",
    "pictures": "![p](http://127.0.0.1:9/x.png) ![q](javascript:window.ran=7)",
    "quotes": "[x](http://127.0.0.1:9/\"onmouseover=\"window.ran=8) `</code><script>window.ran=9</script>`",
    "style": "<style>body{display:none}</style><link rel=stylesheet href=http://127.0.0.1:9/s>",
    "base": "<base href=http://127.0.0.1:9/><form action=http://127.0.0.1:9/><meta http-equiv=refresh "
            "content=\"0;url=http://127.0.0.1:9/\">",
    "fence": "```<script>window.ran=10</script>\n</code></pre><script>window.ran=11</script>\n```",
    "table": "|<script>window.ran=12</script>|b|\n|-|-|\n|<b onclick=x>|c|",
}

# What takes long where a renderer is careless: each must be shown, and soon.
HEAVY = {
    "line": "x" * 1_000_000,
    "words": "word " * 200_000,
    "stars": "*a **b " * 40_000,
    "brackets": "[" * 200_000 + "](" * 50_000,
    "ticks": "`" * 50_000 + " " + "`a``b" * 50_000,
    "quotes": ">" * 20_000 + "\n" + "> " * 20_000,
    "lists": "\n".join(" " * (i % 12) + "- a" for i in range(4_500)),
    "deep": "\n".join("  " * i + "- a" for i in range(700)),
    "rows": "|a|b|\n|-|-|\n" + "|1|2|\n" * 8_000,
    "columns": "|a" * 5_000 + "|\n" + "|-" * 5_000 + "|\n" + "|1" * 5_000 + "|\n",
    "fences": "```\n" * 3_000,
    "languages": ("```" + " " * 19_000 + "`\n") * 20,
    "headings": "# " + " " * 200_000 + "x #" * 10,
    "rules": "* " * 100_000 + "x\n" + "- " * 9_000 + "x",
    "links": "http://" * 30_000 + " " + "http://a.b/" + ")" * 100_000,
    "trails": (("http://a.b/" + ")" * 1_900 + "x ") * 10 + "\n\n") * 20,
    "entities": "<" * 300_000,
    "turns": "\u202e\u2066" * 30_000,
    "blank": "\n" * 300_000 + "end",
}

SERIOUS = """axe.run(document, {resultTypes: ['violations']}).then(r => r.violations
    .filter(v => ['serious', 'critical', 'moderate'].includes(v.impact))
    .map(v => [v.id, v.impact, v.nodes.map(n => n.html.slice(0, 120))]))"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    opened = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """Two ranks, of which a test kills one: nobody else's server."""
    running = server.Serve(tmp_path_factory.mktemp("page"))
    yield running
    running.stop()


def picture(chromium, name: str):
    if PICTURES:
        Path(PICTURES, f"{name}.png").write_bytes(chromium.screenshot())


def fresh(chromium, url: str, **looks):
    """The page as in a new tab."""
    chromium.open(url, **looks)
    chromium.value("sessionStorage.clear()")
    chromium.open(url, **looks)
    chromium.until("the chat", "document.querySelector('#input') !== null")


def settle(chromium, **values):
    """Settings, as the dialog would keep them."""
    chromium.value(f"sessionStorage.setItem('witan.settings', {json.dumps(json.dumps(values))})")
    chromium.ask("Page.reload")
    chromium.until("the page again", "document.readyState === 'complete' && "
                   "document.querySelector('#input') !== null")


def say(chromium, words: str):
    chromium.value("document.querySelector('#input').focus()")
    chromium.write(words)
    chromium.press("Enter")


def ask(chromium, words: str, seconds: float = 30) -> str:
    """The text of an answer, when it has ended."""
    before = chromium.value("document.querySelectorAll('.answer').length")
    say(chromium, words)
    chromium.until(f"an answer to {words[:40]}",
                   f"document.querySelectorAll('.answer').length > {before} && {ENDED}", seconds)
    return chromium.value(WORDS)


def alone(chromium, url: str, refused: bool = False):
    """Nobody else was asked, and the console is empty, but where answers are `refused`: the browser
    itself tells of those that are no 2xx."""
    others = [r for r in chromium.requests() if not r.startswith((url, "data:", "blob:"))]
    assert others == []
    assert [e for e in chromium.complaints() if not refused or e["method"] != "Log.entryAdded"
            or "status of" not in e["params"]["entry"]["text"]] == []


def api(serve, path: str, body: dict | None = None) -> dict:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"http://{serve.http}{path}", data=data)
    with urllib.request.urlopen(request, timeout=60 * server.FACTOR) as answer:
        return json.load(answer)


# --- the chat ------------------------------------------------------------------------------------


def test_a_browser_gets_the_page_and_curl_gets_words(serve):
    def get(accept, **more):
        request = urllib.request.Request(f"http://{serve.http}/", headers={"Accept": accept, **more})
        try:
            return urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as e:
            return e
    page = get("text/html,application/xhtml+xml,*/*;q=0.8")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    for words in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
                  "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
        assert words in policy
    assert "unsafe" not in policy
    assert get("text/html", **{"If-None-Match": page.headers["ETag"]}).status == 304
    assert get("*/*").read().startswith(b"Witan ")


def test_the_chat_says_what_the_api_says(serve, chromium):
    url = f"http://{serve.http}"
    fresh(chromium, url)
    settle(chromium, temperature="1.3", seed="7", max_tokens="60")
    question = "What is a lighthouse?"
    shown = ask(chromium, question)
    said = api(serve, "/v1/chat/completions", {
        "messages": [{"role": "user", "content": question}], "temperature": 1.3, "seed": 7,
        "max_tokens": 60})
    assert shown == said["choices"][0]["message"]["content"].strip()
    info = chromium.value(f"{LAST}.querySelector('.info').textContent")
    assert f"{said['usage']['completion_tokens']} tokens" in info and "seed 7" in info
    # The second turn is asked with the first.
    more = ask(chromium, "And a river?")
    assert more and chromium.value("document.querySelectorAll('.message').length") == 4
    # Regenerated with the same seed it is the same.
    chromium.value(f"[...{LAST}.querySelectorAll('button')].find(b => b.textContent === 'Regenerate').click()")
    chromium.until("the same answer again", f"{ENDED} && {WORDS} === {json.dumps(more)}")
    # It is kept in this tab.
    chromium.ask("Page.reload")
    chromium.until("the conversation again", "document.querySelectorAll('.message').length === 4")
    assert chromium.value(WORDS) == more
    alone(chromium, url)


def test_stop_frees_the_sequence(serve, chromium):
    """At this temperature it would go on to the end of its context, which may come before the click
    where a machine stalls: then another is asked for."""
    url = f"http://{serve.http}"
    for seed in range(3, 8):
        fresh(chromium, url)
        settle(chromium, temperature="1000", seed=str(seed))
        say(chromium, "Say much")
        chromium.until("a first word", f"{LAST} && {WORDS}.length > 0")
        chromium.value("document.querySelector('#stop').click()")
        chromium.until("it has ended", ENDED)
        if "stopped" in chromium.value(f"{LAST}.querySelector('.info').textContent"):
            break
    else:
        raise AssertionError("five answers ended, and none by the click")
    server.poll("the sequence is gone", 30, lambda: api(serve, "/admin/status")["requests"]["running"] == 0)
    assert chromium.value("document.querySelector('#send').hidden") is False
    alone(chromium, url)


def slowly(count: int):
    for i in range(count):
        time.sleep(0.05)
        yield event({"content": f"w{i} "})
    yield from whole()


@pytest.fixture
def scripted(serve):
    def calls(**function):
        return {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]}
    script = {
        "hello": whole({"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo **you**"}),
        "other": whole({"content": "another answer"}),
        "think": whole({"reasoning_content": "Let me *see*"}, {"content": "Seen."}),
        "call": whole(calls(name="weather", arguments='{"town": "<b>'), calls(arguments='Ulm"}'),
                      finish="tool_calls"),
        "slow": lambda: slowly(10_000),
        "paced": lambda: slowly(5),
        "full": (429, {"Retry-After": "2"}, "limits.waiting is reached"),
        "closed": (503, {"Retry-After": "5"}, "group g0 is loading"),
        "locked": (401, {}, "no API key"),
        "long": (400, {}, "messages: too long"),
        "broken": [event({"content": "half"})],
        "lost": [event({"content": "half"}), 'data: {"error": {"message": "group g0 was lost"}}\n\n'],
        "noise": [": a comment\n\nid: 1\nevent: x\ndata: {\"choices\":", "[]}\r\n\r\n", *whole({"content": "ok"})],
        "shown": [*whole({"reasoning_content": "Two towers come to mind; the older one is asked for."},
                         {"content": SHOWN}, tokens=212)],
    }
    with Scripted(serve.http, script) as made:
        yield made


SHOWN = """The **Pharos of Alexandria** stood about 100 m high [^1]. What is known:

| property | value |
|:--|--:|
| built | c. 280 BC |
| height | 100 m |

1. A square base,
2. an octagonal middle, and
   - a cylinder on top
   - with a fire

> One of the seven wonders.

```python
def light(height_m: float) -> float:
    \"\"\"Distance to the horizon in km.\"\"\"
    return 3.57 * height_m ** 0.5
```

See https://example.org/pharos or `light(100)`.
"""


def test_parts_of_an_answer(scripted, chromium):
    fresh(chromium, scripted.url)
    assert ask(chromium, "hello") == "Hello you"
    assert chromium.value(f"{LAST}.querySelector('strong').textContent") == "you"
    assert ask(chromium, "think") == "Seen."
    thinking = f"{LAST}.querySelector('details.thinking')"
    assert chromium.value(f"{thinking}.hidden") is False and chromium.value(f"{thinking}.open") is False
    chromium.value(f"{thinking}.querySelector('summary').click()")
    chromium.until("the thought", f"{thinking}.textContent.includes('Let me see')")
    ask(chromium, "call")
    tool = chromium.value(f"{LAST}.querySelector('.tool').textContent")
    assert "weather" in tool and '"town": "<b>Ulm"' in tool
    assert ask(chromium, "noise") == "ok"
    info = chromium.value(f"{LAST}.querySelector('.info').textContent")
    assert "8 tokens" in info and "seed 18446744073709551615" in info
    asked = scripted.asked[-1]
    assert [m["role"] for m in asked["messages"]] == ["user", "assistant"] * 3 + ["user"]
    assert asked["stream"] is True and "temperature" not in asked
    alone(chromium, scripted.url)


def test_an_answer_in_many_pieces_has_a_rate(scripted, chromium):
    fresh(chromium, scripted.url)
    ask(chromium, "paced")
    assert "tokens/s" in chromium.value(f"{LAST}.querySelector('.info').textContent")
    alone(chromium, scripted.url)


def test_settings_edit_and_export(scripted, chromium):
    """By the keyboard alone."""
    fresh(chromium, scripted.url)
    chromium.value("document.querySelector('#open-settings').focus()")
    chromium.press("Enter")
    chromium.until("the dialog", "document.querySelector('#settings').open")
    chromium.value("document.querySelector('#set-key').focus()")
    chromium.write("wk-secret")
    for text in ("Be brief", None, "0.5", "", "77", "42"):
        chromium.press("Tab")
        if text is None:
            chromium.value("document.activeElement.value = 'off'")
        elif text:
            chromium.write(text)
    chromium.press("Enter")
    chromium.until("it is closed", "!document.querySelector('#settings').open")
    assert ask(chromium, "hello") == "Hello you"
    asked = scripted.asked[-1]
    assert asked["messages"][0] == {"role": "system", "content": "Be brief"}
    assert (asked["temperature"], asked["max_tokens"], asked["seed"]) == (0.5, 77, 42)
    assert asked["chat_template_kwargs"] == {"enable_thinking": False} and "top_p" not in asked
    assert scripted.keys[-1] == "Bearer wk-secret"
    assert chromium.value("localStorage.length + document.cookie.length") == 0
    ask(chromium, "think")
    # The first message is edited: what came after it is gone.
    chromium.value("document.querySelector('.user button').focus()")
    chromium.press("Enter")
    chromium.value("document.activeElement.select()")
    chromium.write("other")
    chromium.press("Enter")
    chromium.until("another answer", f"{ENDED} && {WORDS} === 'another answer'")
    assert chromium.value("document.querySelectorAll('.message').length") == 2
    assert len(scripted.asked[-1]["messages"]) == 2
    # The dialog goes by Escape, and the focus back to its button.
    chromium.value("document.querySelector('#open-settings').focus()")
    chromium.press("Enter")
    chromium.until("the dialog again", "document.querySelector('#settings').open")
    chromium.press("Escape")
    chromium.until("it is closed again", "!document.querySelector('#settings').open")
    assert chromium.value("document.activeElement.id") == "open-settings"
    made = chromium.value("""new Promise(done => {
        const make = URL.createObjectURL;
        URL.createObjectURL = blob => (blob.text().then(done), make(blob));
        [...document.querySelectorAll('.more button')].find(b => b.textContent.startsWith('Export')).click();
    })""")
    assert [m["content"] for m in json.loads(made)["messages"]] == ["other", "another answer"]
    chromium.value("document.querySelector('#clear').click()")
    assert chromium.value("document.querySelectorAll('.message').length") == 0
    alone(chromium, scripted.url)


def test_it_streams_and_stops_by_escape(scripted, chromium):
    fresh(chromium, scripted.url)
    say(chromium, "slow")
    lengths = set()
    end = time.monotonic() + 30 * server.FACTOR
    while len(lengths) < 5 and time.monotonic() < end:
        lengths.add(chromium.value(f"{LAST} ? {WORDS}.length : 0"))
    assert len(lengths) == 5
    chromium.press("Escape")
    chromium.until("it has stopped", f"{ENDED} && {LAST}.querySelector('.info').textContent.includes('stopped')")
    server.poll("the server has seen it", 30, lambda: scripted.left == 1)
    alone(chromium, scripted.url)


@pytest.mark.parametrize("what,words", [
    ("full", "too much to do"), ("closed", "No group"), ("locked", "API key"), ("long", "too long"),
    ("broken", "broke off"), ("lost", "was lost")])
def test_errors_in_words(scripted, chromium, what, words):
    fresh(chromium, scripted.url)
    ask(chromium, what)
    notice = f"{LAST}.querySelector('.notice.bad')"
    assert words in chromium.value(f"{notice}.textContent")
    button = f"[...{notice}.querySelectorAll('button')].find(b => b.textContent.startsWith('Try again'))"
    if what == "full":
        assert chromium.value(f"{button}.disabled")
        scripted.script["full"] = whole({"content": "now"})
        chromium.until("it may be tried again", f"!{button}.disabled")
        chromium.value(f"{button}.click()")
        chromium.until("an answer", f"{ENDED} && {WORDS} === 'now'")
    if what == "locked":
        chromium.value(f"{notice}.querySelector('button').click()")
        assert chromium.value("document.activeElement.id") == "set-key"
    if what in ("broken", "lost"):
        assert chromium.value(WORDS) == "half"
    alone(chromium, scripted.url, refused=True)


# --- what is hostile -----------------------------------------------------------------------------


def test_hostile_answers_run_nothing(scripted, chromium):
    fresh(chromium, scripted.url)
    for name, text in KINDS.items():
        scripted.script[name] = whole({"reasoning_content": text}, {"content": text})
        ask(chromium, name)
        chromium.value(f"{LAST}.querySelector('details.thinking').open = true")
    chromium.value("document.querySelectorAll('.message *').forEach(n => {"
                   "for (const t of ['mouseover', 'load', 'error', 'focus']) n.dispatchEvent(new Event(t)); })")
    time.sleep(0.3)
    assert chromium.value("window.ran === undefined")
    wrong = """[...document.querySelectorAll(`.answer :is(script, img, iframe, object, style, link, base, form,
        meta, svg, [onerror], [onclick], [onload], [onmouseover])`)].map(n => n.outerHTML)"""
    assert chromium.value(wrong) == []
    links = chromium.value("[...document.querySelectorAll('.answer a')].map(a => [a.protocol, a.rel, a.target])")
    assert links and all(link == ["http:", "noopener noreferrer nofollow", "_blank"] for link in links)
    alone(chromium, scripted.url)


def test_marks_that_turn_text_are_shown(scripted, chromium):
    fresh(chromium, scripted.url)
    scripted.script["turn"] = whole({"content": "a\u202eb `x\u2066y`\n```\nif\u202e\n```"})
    ask(chromium, "turn")
    marks = chromium.value(f"[...{LAST}.querySelectorAll('.mark')].map(n => n.textContent)")
    assert marks == ["U+202E", "U+2066", "U+202E"]
    assert "\u202e" not in chromium.value(f"{LAST}.textContent")


def test_heavy_answers_do_not_hang(scripted, chromium):
    fresh(chromium, scripted.url)
    slowest = {}
    for name, text in HEAVY.items():
        pieces = [{"content": text[i:i + 65536]} for i in range(0, len(text), 65536)]
        scripted.script[name] = whole(*pieces)
        chromium.value("document.querySelector('#clear').click()")
        begun = time.monotonic()
        shown = ask(chromium, name, seconds=30)
        slowest[name] = round(time.monotonic() - begun, 2)
        assert len(shown) > 0
        nodes = chromium.value("document.querySelectorAll('.answer *').length")
        assert nodes < 30_000, name
    print("seconds:", slowest)
    alone(chromium, scripted.url)


# --- what it looks like --------------------------------------------------------------------------

LOOKS = [("light", {"width": 1200, "height": 850}), ("dark", {"width": 1200, "height": 850, "dark": True}),
         ("phone", {"width": 360, "height": 740}), ("phone-dark", {"width": 360, "height": 740, "dark": True})]


def proven(chromium):
    """No finding of axe's that matters, nothing off the side."""
    chromium.value(Path(os.environ["WITAN_AXE"]).read_text() + "; 0")
    assert chromium.value(SERIOUS) == []
    assert chromium.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("name,looks", LOOKS)
def test_the_chat_looks_right(scripted, chromium, name, looks):
    fresh(chromium, scripted.url, **looks)
    picture(chromium, f"empty-{name}")
    proven(chromium)
    ask(chromium, "shown")
    chromium.value(f"{LAST}.querySelector('details.thinking').open = true")
    chromium.value("document.querySelector('.log').scrollTop = 0")
    assert browser.drawn_share(chromium.screenshot()) > 0.01
    picture(chromium, f"chat-{name}")
    proven(chromium)
    ask(chromium, "closed")
    picture(chromium, f"error-{name}")
    proven(chromium)
    chromium.value("document.querySelector('#open-settings').click()")
    picture(chromium, f"settings-{name}")
    proven(chromium)


# --- the operator's view -------------------------------------------------------------------------

OPERATOR = "document.querySelector('#operator')"


def open_operator(chromium, url: str, **looks):
    fresh(chromium, url, **looks)
    chromium.value("location.hash = '#operator'")
    chromium.until("a group", f"{OPERATOR}.querySelector('section.group .badge')?.textContent === 'ready'")


@pytest.mark.parametrize("name,looks", LOOKS)
def test_the_operator_sees_the_cluster(serve, chromium, name, looks):
    url = f"http://{serve.http}"
    open_operator(chromium, url, **looks)
    text = chromium.value(f"{OPERATOR}.textContent")
    for words in ("Group g0", "2 ranks: pp 1 × tp 2", "Memory by purpose", "weights", "not measured", "lexicon"):
        assert words in text
    assert chromium.value(f"{OPERATOR}.querySelectorAll('.layout g').length") == 2
    assert "query heads 0-7" in chromium.value(f"{OPERATOR}.querySelector('.layout').textContent")
    assert chromium.value(f"{OPERATOR}.querySelectorAll('.bar').length") == 2
    picture(chromium, f"operator-{name}")
    proven(chromium)
    alone(chromium, url)


def test_the_operators_view_is_live_and_pauses(serve, chromium):
    url = f"http://{serve.http}"
    open_operator(chromium, url)
    tile = f"[...{OPERATOR}.querySelectorAll('.tile')].find(t => t.querySelector('dt').textContent === 'Ended').textContent"
    before = chromium.value(tile)
    api(serve, "/v1/chat/completions", {"messages": [{"role": "user", "content": "What is a river?"}]})
    chromium.until("the answer is counted", f"{tile} !== {json.dumps(before)}")
    chromium.until("a step's time", "/Decode step[0-9.–]+/.test(document.querySelector('#operator').textContent)")
    asked = len([r for r in chromium.requests() if r.endswith("/admin/status")])
    chromium.value("location.hash = '#chat'")
    time.sleep(2.5)
    more = len([r for r in chromium.requests() if r.endswith("/admin/status")])
    assert more <= asked + 1
    alone(chromium, url)


EXPERTS = "document.querySelector('#operator .experts')"
HEAT = "document.querySelector('#operator canvas.heat')"
# The map's cells as rows of colours, of a point near each cell's middle; where a device's pixel is one.
CELLS = """(([layers, experts]) => {
    const canvas = document.querySelector('#operator canvas.heat');
    const all = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    const width = Math.min(26, Math.max(4, Math.floor(760 / experts)));
    const height = Math.min(18, Math.max(5, Math.floor(480 / layers)));
    return Array.from({length: layers}, (_, l) => Array.from({length: experts}, (_, e) => {
        const at = Math.floor(18 + (l + 0.5) * height - 1) * canvas.width + Math.floor(34 + (e + 0.5) * width - 1);
        return [...all.slice(4 * at, 4 * at + 3)].join();
    }));
})"""


def work_experts(serve):
    """Until what they were given of late says something, and will for a minute: it fades."""
    def enough():
        words = f"At {time.time()}: " + "What is a river? And a lighthouse, a king, a bridge, the winter, bread? " * 3
        api(serve, "/v1/chat/completions", {"messages": [{"role": "user", "content": words}]})
        experts = api(serve, "/admin/status")["groups"][0]["experts"]
        return experts["enough"] and experts["recent_tokens"] > 4 * 16 * experts["count"] / experts["top_k"]
    server.poll("enough tokens", 60, enough)


def test_the_map_of_experts_follows_traffic(serve, chromium):
    url = f"http://{serve.http}"
    work_experts(serve)
    told = server.witan("status", "--address", serve.grpc).stdout
    assert "a layer's busiest expert has " in told
    with urllib.request.urlopen(f"{url}/metrics", timeout=60 * server.FACTOR) as answer:
        figures = answer.read().decode()
    assert all(f'witan_expert_imbalance_ratio{{group="g0",of="{of}"}} ' in figures for of in ("layers", "worst_layer"))
    open_operator(chromium, url)
    chromium.until("it is known", f"{OPERATOR}.textContent.includes('The busiest expert of a layer has')")
    chromium.until("the map", f"{HEAT}?.getAttribute('aria-label')?.includes('4 layers of 16 experts. The busiest')")
    cells = chromium.value(f"{CELLS}([4, 16])")
    assert all(len(set(row)) > 2 for row in cells), "layers of one colour"
    # The table has what the API has, and every token goes to two experts of each layer, when it has gone through all.
    def settled():
        layers = api(serve, "/admin/experts/g0")["layers"]
        assert [layer["layer"] for layer in layers] == [0, 1, 2, 3]
        sums = {sum(layer["total"]) for layer in layers}
        return sums.pop() if len(sums) == 1 else 0
    before = server.poll("all layers have the same tokens", 30, settled)
    assert before % 2 == 0
    chromium.value(f"{EXPERTS}.querySelector('select').value = 'total'; "
                   f"{EXPERTS}.querySelector('select').dispatchEvent(new Event('change'))")
    body = f"[...{EXPERTS}.querySelectorAll('tbody tr')].map(r => [...r.children].slice(0, 3).map(c => c.textContent))"

    def told():
        layers = api(serve, "/admin/experts/g0")["layers"]
        return [[str(x["layer"]), str(x["total"].index(max(x["total"]))), f"{max(x['total']):,}"] for x in layers]
    server.poll("the table says what the API says", 30, lambda: chromium.value(body) == told())
    api(serve, "/v1/chat/completions", {"messages": [{"role": "user", "content": "What is a bridge?"}]})
    server.poll("more tokens are told", 30, lambda: settled() > before)
    server.poll("the page has them", 30, lambda: chromium.value(body) == told())
    # Closed it is not asked for.
    asked = "/admin/experts/g0"
    chromium.value(f"{EXPERTS}.querySelector('summary').click()")
    count = len([r for r in chromium.requests() if r.endswith(asked)])
    time.sleep(4)
    assert len([r for r in chromium.requests() if r.endswith(asked)]) <= count + 1
    alone(chromium, url)


def test_the_map_by_keyboard(serve, chromium):
    url = f"http://{serve.http}"
    open_operator(chromium, url, width=360, height=740)
    chromium.until("the map", f"{HEAT}?.getAttribute('aria-label') ?? ''")
    chromium.value(f"{HEAT}.focus()")
    said = f"{EXPERTS}.querySelector('[aria-live]').textContent"
    assert "arrow keys" in chromium.value(said)
    for key, layer, expert in (("Right", 0, 0), ("Down", 1, 0), ("Right", 1, 1), ("Up", 0, 1), ("Up", 0, 1), ("Left", 0, 0)):
        chromium.press(f"Arrow{key}")
        words = chromium.value(said)
        assert words.startswith(f"Layer {layer}, expert {expert} (share 1 of 2): ") and "the mean of its layer" in words
    for _ in range(20):
        chromium.press("ArrowRight")
    assert "expert 15 (share 2 of 2): " in chromium.value(said)
    assert chromium.value(f"{HEAT}.parentElement.scrollLeft > 0")  # it comes into view
    proven(chromium)
    alone(chromium, url)


def busy(layers: int, experts: int, ep: int) -> dict:
    """A large model's: an expert of layer 7 has a fifth of its tokens, a layer is not known."""
    def count(layer, expert):
        uneven = 1 + ((layer * 37 + expert * 101) % 97) / 40
        return round(100 * uneven) + (6000 if (layer, expert) == (7, 93 % experts) else 0)
    rows = [{"layer": i, "recent": [count(i, e) for e in range(experts)],
             "total": [50 * count(i, experts - 1 - e) for e in range(experts)]} for i in range(layers)]
    rows[11] |= {"recent": None, "total": None}
    return {"group": "g0", "experts": experts, "top_k": 8, "ep": ep, "half_life_seconds": 30, "layers": rows}


@pytest.mark.parametrize("name,looks", LOOKS)
def test_the_map_of_a_large_model(serve, scripted, chromium, name, looks):
    status = api(serve, "/admin/status")
    g = status["groups"][0]
    g["experts"] = {"count": 128, "top_k": 8, "layers": 94, "layers_known": 93, "recent_tokens": 3512.5, "enough": True,
                    "imbalance": 1.934, "share_imbalance": 1.08, "worst": {"layer": 7, "expert": 93, "ratio": 23.4}}
    scripted.status, scripted.experts = status, {"g0": busy(94, 128, 4)}
    fresh(chromium, scripted.url, **looks)
    chromium.value("location.hash = '#operator'")
    chromium.until("the map", f"{HEAT}?.getAttribute('aria-label')?.includes('94 layers of 128 experts')")
    text = chromium.value(f"{OPERATOR}.textContent")
    for words in ("The busiest expert of a layer has 1.9 × the mean of its layer; the most uneven is layer 7, where expert 93 "
                  "has 23 ×.", "The busiest share of experts has 1.1 ×", "Known of 93 of 94 layers."):
        assert words in text
    cells = chromium.value(f"{CELLS}([94, 128])")
    assert len(set(cells[3])) > 20 and cells[7].count(cells[7][93]) == 1
    chromium.value(f"{HEAT}.scrollIntoView()")
    picture(chromium, f"experts-{name}")
    chromium.value(f"{EXPERTS}.querySelector('details').open = true")
    chromium.value(f"{EXPERTS}.querySelector('details').scrollIntoView()")
    rows = chromium.value(f"[...{EXPERTS}.querySelectorAll('tbody tr')].map(r => r.textContent)")
    assert len(rows) == 94 and rows[11] == "11not known" and rows[7].startswith("793")
    picture(chromium, f"experts-table-{name}")
    proven(chromium)
    alone(chromium, scripted.url)


def test_experts_that_are_not_known(serve, scripted, chromium):
    """On GPUs, at another coordinator, before anything was computed, of a model without any."""
    status = api(serve, "/admin/status")
    g = status["groups"][0]
    known = g["experts"]
    assert known["count"] == 16 and known["top_k"] == 2 and known["layers"] == 4
    nothing = known | {"layers_known": 0, "recent_tokens": None, "imbalance": None, "worst": None}
    few = known | {"layers_known": 4, "recent_tokens": 3.4, "enough": False, "imbalance": 4.25, "share_imbalance": None,
                   "worst": {"layer": 2, "expert": 5, "ratio": 8.0}}
    gpus = [r | {"device": {"name": "a GPU"}, "gpu": {}} for r in g["ranks"]]
    words = f"[...{OPERATOR}.querySelectorAll('.group > div:not([hidden]) > p.soft')].map(p => p.textContent).join()"
    for what, expected in (
            ({"experts": nothing, "ranks": gpus}, "Not known: ranks on GPUs do not count it."),
            ({"experts": nothing, "through": "10.0.0.7:7000"}, "the coordinator 10.0.0.7:7000 has its ranks."),
            ({"experts": nothing, "ranks": []}, "Not known: no rank is there."),
            ({"experts": nothing}, "Not known: no rank has told it."),
            ({"experts": nothing | {"layers_known": 4}}, "No token was computed"),
            ({"experts": few}, "has 8 ×. That is of about 3 tokens: so few are uneven by chance alone."),
            ({"experts": None}, None)):
        status["groups"] = [g | what]
        scripted.status, scripted.experts = status, {"g0": busy(94, 128, 1)}
        fresh(chromium, scripted.url)
        chromium.value("location.hash = '#operator'")
        chromium.until("a group", f"{OPERATOR}.querySelector('section.group .badge') !== null")
        if expected:
            chromium.until(expected, f"{words}.includes({json.dumps(expected)})")
        else:
            assert chromium.value(f"{EXPERTS}.parentElement.hidden")
    alone(chromium, scripted.url)


def test_an_operator_without_a_key_is_told(scripted, chromium):
    fresh(chromium, scripted.url)
    chromium.value("location.hash = '#operator'")
    chromium.until("the words", f"{OPERATOR}.textContent.includes('asks for an API key')")
    proven(chromium)
    alone(chromium, scripted.url, refused=True)


def test_what_is_not_known_is_no_zero(serve, scripted, chromium):
    """A group whose ranks have not come, with hostile names."""
    status = api(serve, "/admin/status")
    g = status["groups"][0]
    g["name"] = "<img src=x onerror=window.ran=1>"
    g |= {"state": "waiting for ranks", "ranks": [], "through": None, "last_loss": "<b>x</b>", "losses": 1,
          "last_loss_seconds_ago": 2, "steps": {"prompt": None, "decode": None, "overhead": None},
          "experts": g["experts"] | {"layers_known": 0, "recent_tokens": None, "imbalance": None, "worst": None},
          **dict.fromkeys(("running", "waiting", "kv_blocks", "kv_blocks_free", "kv_blocks_cached", "tokens",
                           "prefix_hit_rate", "prefix_asked_tokens", "wait_seconds", "proven_seconds_ago"))}
    scripted.status = status
    fresh(chromium, scripted.url)
    chromium.value("location.hash = '#operator'")
    chromium.until("the group", f"{OPERATOR}.textContent.includes('onerror')")
    tiles = chromium.value(f"Object.fromEntries([...{OPERATOR}.querySelectorAll('.group .tile')].map("
                           "t => [t.querySelector('dt').textContent, t.querySelector('dd').textContent]))")
    assert {name: words for name, words in tiles.items() if words != "not known"} == {
        "Power": "not measuredno rank's device tells it"}
    assert chromium.value(f"{OPERATOR}.querySelectorAll('.layout .gone').length") == 2
    assert chromium.value("window.ran === undefined")
    alone(chromium, scripted.url)


def test_power_of_devices_and_stages(serve, scripted, chromium):
    """As two GPUs would tell it, in two stages."""
    status = api(serve, "/admin/status")
    g = status["groups"][0]
    g["layout"] = {"pp": 2, "tp": 1, "ep": 1, "w": 1, "moe_tp": 1, "ranks": 2}
    for rank in g["ranks"]:
        rank |= {"device": {"name": "a GPU"}, "gpu": {"power_w": 300.0, "energy_j": 12000.0}, "slowness": 1.9}
        rank["holds"] = f"layers {24 * rank['rank']}-{24 * rank['rank'] + 23}, query heads 0-15, experts 0-127"
    scripted.status = status
    fresh(chromium, scripted.url)
    chromium.value("location.hash = '#operator'")
    chromium.until("the power", f"{OPERATOR}.textContent.includes('600 W')")
    text = chromium.value(f"{OPERATOR}.textContent")
    assert "of 2 of 2 ranks, 24 kJ since they started" in text and "a GPU" in text
    assert "layers 24-47, heads 0-15" in text and "rank 1 · slow" in text
    alone(chromium, scripted.url)


def test_a_killed_rank_is_seen(serve, chromium):
    """The last: it takes the group of its server."""
    url = f"http://{serve.http}"
    open_operator(chromium, url)
    chromium.value("""window.seen = [];
        new MutationObserver(() => {
            const group = document.querySelector('#operator section.group');
            if (/lost 1 ×/.test(group.textContent)) window.seen.push(Date.now());
        }).observe(document.querySelector('#operator'), {subtree: true, childList: true, characterData: true,
            attributes: true});""")
    rank = api(serve, "/admin/status")["groups"][0]["ranks"][1]
    killed = time.time() * 1000
    os.kill(rank["pid"], signal.SIGKILL)
    first = chromium.until("the loss is shown", "window.seen[0]", 30)
    print(f"shown {(first - killed) / 1000:.2f} s after kill -9")
    text = chromium.value(f"{OPERATOR}.textContent")
    assert "lost 1 ×" in text and "rank " in text and "g0 lost" in text
    picture(chromium, "killed")
    chromium.until("the group is back", f"{OPERATOR}.querySelector('.group .badge').textContent === 'ready'", 90)
    alone(chromium, url, refused=True)
