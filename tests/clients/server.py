"""Starts witan as its operators do, on ports of its own, and sees that it ends well."""

import json
import os
import re
import select
import signal
import subprocess
import time
from pathlib import Path

TOP = Path(os.environ["WITAN_TOP"])
BIN = Path(os.environ["WITAN_BIN"])
MODEL = TOP / "deploy" / "lexicon" / "model"
MODE = os.environ.get("WITAN_MODE", "serve")
# Stretches every wait, and divides the largest loads: builds with sanitizers are slow.
FACTOR = float(os.environ.get("WITAN_TEST_FACTOR", "1"))
REPORT = re.compile(r"(Address|Leak|Thread|UndefinedBehavior)Sanitizer|runtime error:|CHECK failed")
CONTEXT = 1024
# Tests look at servers' descriptors, which of processes that may not be dumped root alone may.
LOOKS_IN = os.geteuid() != 0
GROUP = "g0"


def poll(what: str, seconds: float, probe):
    """The first true value of probe(), which must come in time."""
    end = time.monotonic() + seconds * FACTOR
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < end, f"not in {seconds * FACTOR:.0f} s: {what}"
        time.sleep(0.02)


def witan(*words, expect: int = 0, timeout_s: float = 60) -> subprocess.CompletedProcess:
    """One command of witan that ends by itself."""
    done = subprocess.run([BIN / "witan", *map(str, words)], capture_output=True, text=True,
                          timeout=timeout_s * FACTOR, check=False)
    assert done.returncode == expect, f"{words}: exit code {done.returncode}: {done.stderr}"
    assert not REPORT.search(done.stderr), done.stderr
    return done


class Process:
    """A program with its standard error in a file."""

    def __init__(self, folder: Path, name: str, words: list, **options):
        self.name = name
        self.log = folder / f"{name}.stderr"
        with self.log.open("wb") as log:
            self.child = subprocess.Popen([str(w) for w in words], stdin=subprocess.DEVNULL,
                                          stdout=log, stderr=log, **options)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float) -> int:
        """Its exit code. What outlives its time is killed, and counts as a failure."""
        try:
            return self.child.wait(seconds * FACTOR)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise AssertionError(f"{self.name} did not end:\n{self.said()}") from None

    def check(self, expect: int = 0, seconds: float = 30):
        code = self.wait(seconds)
        assert code == expect, f"{self.name}: exit code {code}:\n{self.said()}"
        assert not REPORT.search(self.said()), f"{self.name}:\n{self.said()}"


def make_pki(folder: Path, group: str = GROUP) -> Path:
    """The certificates of one cluster: roots, a coordinator's, a worker's and a door's."""
    witan("pki", "init", folder)
    witan("pki", "issue", folder, "--role", "coordinator")
    witan("pki", "issue", folder, "--role", "worker", "--group", group)
    witan("pki", "issue", folder, "--role", "door", "--names", "localhost,127.0.0.1")
    return folder


def write_config(folder: Path, **settings) -> Path:
    """A cluster.yaml of one group of one rank on free ports; a setting is a top-level key's lines."""
    parts = {
        "model": {"path": MODEL, "name": "lexicon"},
        "listen": {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0", "cluster": "127.0.0.1:0"},
        "limits": {"context": CONTEXT},
    }
    lines = []
    for key in sorted({*parts, *settings}):
        value = settings.get(key, {})
        if isinstance(value, dict):
            value = {**parts.get(key, {}), **value}
        # JSON is YAML too.
        lines.append(f"{key}: {json.dumps(value, default=str)}\n")
    path = folder / "cluster.yaml"
    path.write_text("".join(lines))
    return path


class Coordinator:
    """`witan-coordinator`, and what it tells on its notify descriptor."""

    def __init__(self, folder: Path, config: Path):
        read_end, write_end = os.pipe()
        self.pipe, self.heard, self.lines = read_end, b"", []
        words = [BIN / "witan-coordinator", "-c", config, "--notify-fd", write_end]
        self.process = Process(folder, "coordinator", words, pass_fds=[write_end])
        os.close(write_end)

    def listen(self):
        """Takes in what it has told by now."""
        while select.select([self.pipe], [], [], 0)[0]:
            chunk = os.read(self.pipe, 65536)
            if not chunk:
                assert self.process.child.poll() is None, self.process.said()
                return
            self.heard += chunk
        *done, self.heard = self.heard.split(b"\n")
        self.lines += [line.decode() for line in done]

    def told(self, prefix: str) -> str:
        """The rest of the last line that begins so, or ''."""
        self.listen()
        found = [line[len(prefix):].strip() for line in self.lines if line.startswith(prefix)]
        return found[-1] or "yes" if found else ""

    def wait_for(self, prefix: str, seconds: float = 60) -> str:
        def probe():
            assert not self.told("failed"), self.told("failed")
            assert self.process.child.poll() is None, self.process.said()
            return self.told(prefix)
        return poll(f"{prefix} from the coordinator", seconds, probe)

    def stop(self):
        self.process.child.send_signal(signal.SIGTERM)
        self.process.check()
        os.close(self.pipe)


class Direct:
    """A coordinator and, unless told otherwise, its one worker: a group of one rank."""

    def __init__(self, folder: Path, workers: bool = True, worker_words: tuple = (), **settings):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.worker_words = folder, worker_words
        if LOOKS_IN:
            settings.setdefault("core_dumps", True)
            self.worker_words += ("--core-dumps",) if settings["core_dumps"] else ()
        self.pki = make_pki(folder / "pki")
        settings.setdefault("pki", self.pki)
        self.coordinator = Coordinator(folder, write_config(folder, **settings))
        self.cluster = self.coordinator.wait_for("listening cluster")
        self.http = self.coordinator.wait_for("listening http")
        self.grpc = self.coordinator.wait_for("listening grpc")
        self.workers = []
        if workers:
            self.workers.append(self.start_worker("worker", self.pki))
            self.coordinator.wait_for("ready")

    def start_worker(self, name: str, tls: Path, group: str = GROUP) -> Process:
        # One that TLS refuses may end in the middle of a handshake of gRPC's.
        options = f"suppressions={TOP}/tests/clients/handshake.lsan:print_suppressions=0"
        return Process(self.folder, name, [BIN / "witan-worker", "--coordinator", self.cluster,
                                           "--group", group, "--tls", tls, *self.worker_words],
                       env={**os.environ, "LSAN_OPTIONS": options})

    def pids(self) -> list[int]:
        return [p.child.pid for p in (self.coordinator.process, *self.workers)]

    def stop(self):
        self.coordinator.stop()
        for worker in self.workers:
            worker.check()


class Serve:
    """`witan serve` with two ranks under mpirun, or as a configuration says."""

    def __init__(self, folder: Path, config: Path | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        run_dir = folder / "run"
        what = ["-c", config] if config else ["--model", MODEL, "--name", "lexicon", "--tp", 2,
                                              "--context", CONTEXT, "--listen", "127.0.0.1:0",
                                              "--grpc", "127.0.0.1:0"]
        words = [BIN / "witan", "serve", *what, "--run-dir", run_dir,
                 *(["--core-dumps"] if LOOKS_IN else [])]
        # What Open MPI never frees cannot be told from what we do not: --direct looks for leaks.
        options = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
        self.process = Process(folder, "serve", words, env={**os.environ, "ASAN_OPTIONS": options})
        state = poll("witan serve is ready", 60, lambda: self.state(run_dir / "serve.json"))
        self.http, self.grpc = state["http"], state["grpc"]

    def state(self, path: Path):
        assert self.process.child.poll() is None, self.process.said()
        state = json.loads(path.read_text()) if path.exists() else {}
        return state if state.get("state") == "ready" else None

    def pids(self) -> list[int]:
        """The process and all that it has started."""
        found, parents = [self.process.child.pid], {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended meanwhile
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def stop(self):
        self.process.child.send_signal(signal.SIGTERM)
        self.process.check(seconds=60)
