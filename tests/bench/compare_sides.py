"""What tests/bench/compare sets against each other: programs that measure when they are asked, stopped
while they are not, some with servers of their own on this machine."""
import atexit
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

STEPS = {1: 16, 4: 8, 16: 4} # of one turn of decode, by sequences
SERVER_SECONDS = 60          # in which a server listens
begun = []                   # processes
signal.signal(signal.SIGTERM, lambda *_: sys.exit("compare: ended by SIGTERM")) # by way of end_all


def start(command, **more):
    begun.append(subprocess.Popen([str(c) for c in command], text=True, **more))
    return begun[-1]


@atexit.register
def end_all():
    """A stopped one would stay for ever."""
    for process in begun:
        if process.poll() is None:
            for pid in family(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def family(pid):
    """The process and all that descend from it."""
    children = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError: # has just ended
            continue
        children.setdefault(parent, []).append(int(entry.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def listens(port):
    """Read, for a server may take the first who connects for its client."""
    place = f" 0100007F:{port:04X} 00000000:0000 0A "
    return place in pathlib.Path("/proc/net/tcp").read_text()


def serve(name, command):
    """A server on loopback, of a command with PORT for the port: the process and the port."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = start([port if word == "PORT" else word for word in command], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + SERVER_SECONDS
    while not listens(port):
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"compare: {name}: expected its server on 127.0.0.1:{port} within {SERVER_SECONDS} s, found none")
        time.sleep(0.02)
    return server, port


class Side:
    """A program that speaks as `witan bench --offline --turns`. `clock` is "seconds" or "processor", which
    other load on the machine spoils less."""

    def __init__(self, name, command, clock):
        self.name, self.command, self.clock, self.process = name, [str(c) for c in command], clock, None

    def processes(self):
        """All: mpirun does not pass on what stops it."""
        return family(self.process.pid)

    def send(self, number):
        for pid in self.processes():
            os.kill(pid, number)

    def open(self):
        self.process = start(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, line):
        self.send(signal.SIGCONT)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"compare: {self.name} ended at '{line}' with {self.process.wait()}")
        self.send(signal.SIGSTOP)
        return json.loads(answer)[self.clock]

    def prepare(self, case):
        kind, batch, depth = case
        self.ask("prefill 32" if kind == "prefill" else f"fill {batch} {depth}")

    def turn(self, case):
        """Tokens a second."""
        kind, batch, depth = case
        if kind == "prefill":
            return depth / self.ask(f"prefill {depth}")
        steps = STEPS.get(batch, 4)
        return steps * batch / self.ask(f"decode {steps}")

    def peak(self):
        """Of all processes, shared memory counted in each."""
        most = 0
        for pid in self.processes():
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            most += int(status.split("VmHWM:")[1].split()[0]) * 1024
        return most

    def close(self):
        self.send(signal.SIGCONT)
        self.process.stdin.close()
        self.process.wait()


class ServedSide(Side):
    """One whose work `count` servers do, a process each; it is told where they are by its last words."""

    def __init__(self, name, command, server, count):
        super().__init__(name, command, "seconds")
        self.server, self.count, self.servers = server, count, []

    def processes(self):
        return [pid for p in [self.process, *self.servers] for pid in family(p.pid)]

    def open(self):
        found = [serve(self.name, self.server) for _ in range(self.count)]
        self.servers = [server for server, _ in found]
        self.process = start([*self.command, *(f"127.0.0.1:{port}" for _, port in found)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self):
        super().close()
        for server in self.servers:
            server.kill()
            server.wait()
