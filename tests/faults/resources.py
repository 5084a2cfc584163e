"""What a process is given, made less: time on a processor, and memory until the kernel kills it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from serving import Failure, within

CYCLE_S = 0.05
LIMIT_MB = 48
# Joins a cgroup, says so, and takes memory until it is killed.
HOG = """
import pathlib, sys
pathlib.Path(sys.argv[1]).write_text("0")
taken = []
while True:
    taken.append(bytearray(b"x" * (1 << 20)))
"""


class Slowed:
    """A process that is stopped for most of each 50 ms, while it is entered; it may end meanwhile."""

    def __init__(self, pid: int, stopped_s: float = 0.04):
        self.pid, self.stopped_s, self.over = pid, stopped_s, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        with contextlib.suppress(ProcessLookupError):
            while not self.over.wait(CYCLE_S - self.stopped_s):
                os.kill(self.pid, signal.SIGSTOP)
                time.sleep(self.stopped_s)
                os.kill(self.pid, signal.SIGCONT)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def _controller() -> Path:
    """The folder of this process's cgroup that limits memory. Raises OSError: there is none; of
    version 2, none that may be divided (one that holds processes may not)."""
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    for mount in Path("/proc/mounts").read_text().splitlines():
        _, at, kind, options = mount.split()[:4]
        if kind == "cgroup" and "memory" in options.split(","):
            return Path(at)
        folder = Path(at + own.get("", ""))
        if kind != "cgroup2" or not (folder / "cgroup.controllers").exists():
            continue  # its own folder may not be in sight
        if "memory" in (folder / "cgroup.controllers").read_text().split():
            (folder / "cgroup.subtree_control").write_text("+memory")
            return folder
    raise OSError("no cgroup here limits memory")


class MemoryGroup:
    """A cgroup of LIMIT_MB, while it is entered. A rank that has loaded takes no more memory, so a
    limit alone kills none; as on a host with a neighbour, others' use does."""

    def __init__(self):
        self.folder, self.hog = None, None

    def why_not(self) -> str:
        """Makes it: "", or why that is not possible here."""
        try:
            folder = _controller() / f"witan-faults-{os.getpid()}"
            folder.mkdir()
            self.folder = folder
            limits = {"memory.limit_in_bytes": LIMIT_MB << 20, "memory.memsw.limit_in_bytes": LIMIT_MB << 20,
                      "memory.max": LIMIT_MB << 20, "memory.swap.max": 0}
            for name in (n for n in limits if (folder / n).exists()):
                (folder / name).write_text(str(limits[name]))
        except OSError as why:
            self.close()
            return f"no cgroup that limits memory: {why}"
        return ""

    def close(self):
        """What it holds has ended."""
        if self.folder:
            within(10, f"{self.folder} is empty",
                   lambda: not (self.folder / "cgroup.procs").read_text())
            self.folder.rmdir()
            self.folder = None

    def kills(self) -> int:
        """How many processes of it the kernel has killed for memory."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(FileNotFoundError):
                lines = (self.folder / name).read_text().splitlines()
                return int(dict(x.split() for x in lines).get("oom_kill", 0))
        raise Failure(f"{self.folder} does not count whom the kernel killed")

    def exhaust(self, pid: int):
        """Puts a process into it, and uses up its memory until the kernel has killed that process."""
        before, procs = self.kills(), self.folder / "cgroup.procs"
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")  # the kernel takes it first
        procs.write_text(str(pid))
        hog = subprocess.Popen([sys.executable, "-c", HOG, procs], stdin=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
        try:
            within(30, f"the kernel kills process {pid} for memory",
                   lambda: self.kills() > before and str(pid) not in procs.read_text().split())
        finally:
            hog.kill()
            hog.wait()
