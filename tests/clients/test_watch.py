"""`witan status --watch`: on a pseudo-terminal and through a pipe, while ranks come and go."""

import re
import signal
import subprocess
import threading

import pytest

import server
from terminal import Terminal

pytestmark = pytest.mark.skipif(server.MODE != "direct", reason="the same in either mode: run with --direct")
RATE = re.compile(r"in all ([\d.]+|-) tokens/s, ([\d.]+|-) requests/s, \d+ waiting")
STEPS = re.compile(r" +[\d.]+ steps/s, at most [\d.]+ ms each")
LEAVE = b"\x1b[?25h\x1b[?1049l"


@pytest.fixture
def watch():
    made = []

    def start(address: str, *words, **options) -> Terminal:
        made.append(Terminal(server.BIN / "witan", "status", "--watch", "0.2", "--address", address,
                             *words, **options))
        return made[-1]
    yield start
    for one in made:
        one.close()


def shows(terminal: Terminal, what: str) -> bool:
    return any(re.search(what, line) for line in terminal.lines())


def test_it_follows_a_killed_rank(watch, tmp_path):
    other = server.Direct(tmp_path / "cluster")
    try:
        terminal = watch(other.grpc)
        terminal.wait("a ready group", lambda: shows(terminal, "^group g0: ready"))
        assert terminal.written().startswith(b"\x1b[?1049h\x1b[?25l")
        other.workers[0].child.kill()
        terminal.wait("a group that is not", lambda: not shows(terminal, "^group g0: ready") and
                      shows(terminal, "^group g0: "), 60)
        terminal.wait("how often", lambda: shows(terminal, "^ +lost 1 time"), 60)
        other.workers[0].wait(30)
        other.workers = [other.start_worker("another", other.pki)]
        terminal.wait("it is ready again", lambda: shows(terminal, "^group g0: ready"), 60)
        # What it says when nobody answers; then q.
        other.coordinator.stop()
        other.workers[0].wait(60)
        terminal.wait("that nobody answers", lambda: shows(terminal, "^witan status: "), 60)
        terminal.type("q")
        terminal.ended(1)
        assert terminal.written().endswith(LEAVE)
    finally:
        for process in (other.coordinator.process, *other.workers):
            process.child.kill()
            process.child.wait()


def test_rates(watch, main, client):
    terminal = watch(main.grpc)
    terminal.wait("rates", lambda: any((m := RATE.match(line)) and m[1] != "-"
                                       for line in terminal.lines()))
    done = threading.Event()

    def load():
        while not done.is_set():
            client.completions.create(model="lexicon", prompt="A cat is", max_tokens=200,
                                      extra_body={"ignore_eos": True})
    asking = threading.Thread(target=load)
    asking.start()
    try:
        terminal.wait("tokens", lambda: any((m := RATE.match(line)) and float(m[1]) > 0
                                            for line in terminal.lines()), 60)
        terminal.wait("steps", lambda: shows(terminal, STEPS.pattern), 60)
        terminal.wait("the group's",
                      lambda: shows(terminal, r"^  now: [\d.]+ tokens/s, \d+ % of the KV cache"))
    finally:
        done.set()
        asking.join()
    terminal.type("\x03")
    terminal.ended()
    assert terminal.written().endswith(LEAVE)


def test_it_fits_the_window(watch, main):
    terminal = watch(main.grpc, columns=120, rows=50)
    terminal.wait("a page", lambda: shows(terminal, "^group g0: ready"))
    terminal.resize(40, 5)
    terminal.child.send_signal(signal.SIGWINCH)  # the shell's part
    terminal.wait("a smaller one", lambda: len(terminal.lines()) == 5 and
                  max(map(len, terminal.lines())) <= 40)
    terminal.wait("its first line", lambda: "every 0.2 s" in terminal.lines()[0])
    terminal.type("\x1b[B\x1b[B")
    terminal.wait("what lies below", lambda: "every 0.2 s" not in terminal.lines()[0])
    terminal.type("\x1b[5~")
    terminal.wait("the top", lambda: "every 0.2 s" in terminal.lines()[0])
    terminal.child.send_signal(signal.SIGTERM)
    terminal.ended()
    assert terminal.written().endswith(LEAVE)


@pytest.mark.parametrize("key", ["\x03", "\x1c"])  # Ctrl-C, Ctrl-\\
def test_keys_that_end_it(watch, main, key):
    terminal = watch(main.grpc)
    terminal.wait("a page", lambda: shows(terminal, "^group g0: ready"))
    terminal.type(key)
    terminal.ended()
    assert terminal.written().endswith(LEAVE)


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_pages_through_a_pipe(main, words):
    with subprocess.Popen([server.BIN / "witan", "status", "--watch", "0.2", "--address", main.grpc,
                           *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        beginning = b'  "version":' if words else b"group g0: ready"
        seen = 0
        for line in child.stdout:
            assert b"\x1b" not in line
            seen += line.startswith(beginning)
            if seen == 3:
                break
        child.send_signal(signal.SIGINT)
        child.stdout.read()
        said = child.stderr.read()
        assert child.wait(30 * server.FACTOR) == 0, said
        assert said == b""


def test_what_is_refused():
    for word in ("0", "4000", "1s"):
        done = server.witan("status", "--watch", word, expect=2)
        assert "--watch: expected 0.1 to 3600 seconds, found " + word in done.stderr
