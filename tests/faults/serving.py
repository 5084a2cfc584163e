"""`witan serve` as the tests of faults have it: started, looked at, ended, and what it leaves."""

import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
MODEL = TOP / "deploy" / "lexicon" / "model"
FACTOR = float(os.environ.get("WITAN_TEST_FACTOR", "1"))  # stretches waits, for sanitizers' builds
REPORT = re.compile(r"(Address|Leak|Thread|UndefinedBehavior)Sanitizer|runtime error:|CHECK failed")


class Failure(Exception):
    """What a test found wrong; it ends the test."""


def skip(why: str):
    print(f"skipped: {why}", flush=True)
    raise SystemExit(77)


def end_in_order(*_):
    """For SIGTERM: what was begun is cleaned up."""
    raise SystemExit("ended by a signal")


def within(seconds: float, what: str, probe):
    """The first true value of probe(), which must come in time."""
    end = time.monotonic() + seconds * FACTOR
    while not (value := probe()):
        if time.monotonic() > end:
            raise Failure(f"not within {seconds * FACTOR:.0f} s: {what}")
        time.sleep(0.02)
    return value


def stamp(line: str) -> float:
    """The time at the beginning of a log line, in seconds; 0: it has none."""
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z ", line)
    if not found:
        return 0.0
    when = datetime.datetime.strptime(found[1], "%Y-%m-%dT%H:%M:%S.%f")
    return when.replace(tzinfo=datetime.timezone.utc).timestamp()


class Cluster:
    """One `witan serve` with its folder; `parts` are top-level keys of cluster.yaml."""

    def __init__(self, bin_dir: str, **parts):
        if not shutil.which("mpirun"):
            skip("no mpirun")
        self.bin, self.folder = Path(bin_dir).resolve(), Path(tempfile.mkdtemp(prefix="witan-faults-"))
        self.run_dir, self.log_path = self.folder / "run", self.folder / "log"
        self.parts = {
            "model": {"path": str(MODEL), "name": "lexicon"},
            "listen": {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0", "cluster": "127.0.0.1:0"},
            "groups": [{"name": "g0", "tp": 2}, {"name": "g1", "tp": 2}],
            **parts}
        self.child, self.scratch, self.http, self.grpc = None, "", "", ""

    # --- its life ---

    def start(self, *more: str, seconds: float = 60, prefix: tuple = ()):
        """Ready on return. `more` are words for mpirun, `prefix` goes before the command."""
        config = self.folder / "cluster.yaml"
        config.write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in self.parts.items()))
        options = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"  # Open MPI's are not ours
        tail = ("--", *more) if more else ()
        with self.log_path.open("wb") as log:
            self.child = subprocess.Popen(
                [*prefix, self.bin / "witan", "serve", "-c", config, "--run-dir", self.run_dir, *tail],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "ASAN_OPTIONS": options,
                     "OMPI_MCA_btl_vader_single_copy_mechanism": "none"})
        within(seconds, "witan serve is ready", self._ready)
        link = self.run_dir / "serve.scratch"
        self.scratch = os.readlink(link) if link.is_symlink() else ""
        self.http, self.grpc = self.state()["http"], self.state()["grpc"]
        return self

    def _ready(self) -> bool:
        if self.child.poll() is not None:
            raise Failure(f"witan serve ended with exit code {self.child.returncode}")
        return self.state().get("state") == "ready"

    def stop(self, seconds: float = 40):
        """Ends in order with exit code 0, reports nothing of a sanitizer's and leaves nothing."""
        self.child.send_signal(signal.SIGTERM)
        try:
            code = self.child.wait(seconds * FACTOR)
        except subprocess.TimeoutExpired:
            raise Failure(f"witan serve does not end; processes: {self.processes()}") from None
        if code != 0:
            raise Failure(f"witan serve: expected exit code 0, found {code}")
        if found := REPORT.search(self.log()):
            raise Failure(f"the log has: {found[0]}")
        self.check_left()

    def check_blocks(self):
        """Groups that are ready soon run nothing, and all their KV blocks are free: those that are
        kept for their prefix count as such."""
        def let_go() -> bool:
            ready = [g for g in self.status()["groups"] if g["state"] == "ready"]
            return bool(ready) and all(g["running"] == g["waiting"] == 0 and
                                       g["kv_blocks_free"] == g["kv_blocks"] > 0 for g in ready)

        within(20, "all KV blocks of groups that are ready are free", let_go)

    def check_left(self):
        """No process and no file of it is left."""
        end = time.monotonic() + 5 * FACTOR
        while self.processes() and time.monotonic() < end:
            time.sleep(0.05)
        if left := self.processes():
            raise Failure(f"processes are left: {left}")
        for path in (self.run_dir, Path(self.scratch) if self.scratch else self.run_dir):
            if path.exists():
                raise Failure(f"left behind: {[str(p) for p in path.rglob('*')] or path}")
        if left := [str(p) for at in self.folder.glob("shm-*") for p in at.rglob("*")]:
            raise Failure(f"shared memory is left on hosts: {left}")
        sessions = [*self.folder.glob("mpi/*/pid.*"), *self.folder.glob("mpi/*/jf.*")]
        if sessions:
            mbytes = sum(p.stat().st_blocks for s in sessions for p in s.rglob("*")) * 512 / 1e6
            print(f"{len(sessions)} folders of Open MPI's daemons that were killed are left on hosts, "
                  f"{mbytes:.1f} MB", flush=True)

    def kill(self):
        """Ends all there is, whatever state it is in."""
        for pid in list(self.processes()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.child:
            self.child.wait()

    def close(self):
        """Ends and removes all there is."""
        self.kill()
        if self.scratch.startswith("/dev/shm/witan-"):
            shutil.rmtree(self.scratch, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self) -> dict[int, str]:
        """All that have our folder on their command line."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it ended meanwhile
            if str(self.folder) in words:
                found[int(path.parent.name)] = words[:200]
        return found

    # --- what it says ---

    def state(self) -> dict:
        try:
            return json.loads((self.run_dir / "serve.json").read_text())
        except (OSError, ValueError):
            return {}

    def status(self) -> dict:
        done = subprocess.run([self.bin / "witan", "status", "--json", "--address",
                               self.grpc], capture_output=True, text=True,
                              timeout=30 * FACTOR, check=False)
        return json.loads(done.stdout) if done.stdout else {"groups": []}

    def rank(self, group: str, rank: int) -> dict:
        """One rank as `witan status` shows it, which must be there."""
        for g in self.status()["groups"]:
            for r in g["ranks"]:
                if g["name"] == group and r["rank"] == rank:
                    return r
        raise Failure(f"no rank {rank} of group {group} in witan status")

    def all_ready(self) -> bool:
        groups = self.status()["groups"]
        return bool(groups) and all(g["state"] == "ready" for g in groups)

    def wait_ready(self, seconds: float = 60):
        within(seconds, "all groups are ready", self.all_ready)

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return {k: float(v) for k, _, v in (x.rpartition(" ") for x in lines if x[0] != "#")}

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def mark(self) -> int:
        """Where the log ends now."""
        return self.log_path.stat().st_size

    def line(self, pattern: str, mark: int = 0) -> str:
        """The first line behind a mark that has the pattern, or ''."""
        with self.log_path.open("rb") as f:
            f.seek(mark)
            lines = f.read().decode(errors="replace").splitlines()
        return next((line for line in lines if re.search(pattern, line)), "")
