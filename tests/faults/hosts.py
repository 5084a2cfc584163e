"""Hosts that are network namespaces, each with an interface for the data plane and one for control on
two bridges, whose links are cut, parted and slowed. Needs root and iproute2; nothing leaves them."""

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from relay import offloads_off
from serving import skip

CLONE_NEWNET = 0x40000000
NETWORKS = {"data": "10.77.0", "ctl": "10.78.0"}


def run(*words: str):
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


def enter(namespace: str):
    """This thread, and the threads and processes that it starts from here on, are in it."""
    with open(f"/run/netns/{namespace}", "rb") as f:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(f.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def inside(namespace: str, do):
    """do() in that namespace, by a thread of its own."""
    failed = []

    def body():
        try:
            enter(namespace)
            do()
        except OSError as why:
            failed.append(why)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


class Hosts:
    """Hosts 1 to `count`: host i has 10.77.0.i (data0) and 10.78.0.i (ctl0)."""

    def __init__(self, count: int):
        self.tag, self.count = f"wf{os.getpid()}", count
        self.switch, self.relay = f"{self.tag}-switch", None
        if os.geteuid() != 0:
            skip("network namespaces need root")
        if not shutil.which("ip"):
            skip("no ip command (package iproute2)")
        try:
            run("ip", "netns", "add", self.switch)
        except OSError as why:
            skip(f"no network namespaces here: {why}")
        try:
            self._make()
        except OSError as why:
            self.close()
            skip(f"not all that hosts take is here: {why}")

    def _make(self):
        for network in NETWORKS:
            run("ip", "-n", self.switch, "link", "add", f"br-{network}", "type", "bridge")
            run("ip", "-n", self.switch, "link", "set", f"br-{network}", "up")
        for i in range(1, self.count + 1):
            run("ip", "netns", "add", f"{self.tag}-{i}")
            run("ip", "-n", f"{self.tag}-{i}", "link", "set", "lo", "up")
            for network in NETWORKS:
                self._link(i, network)
        for lost in (True, False):  # what the kernel and tc can do is known from here on
            self.cut_one_way("ctl", 1, "from", lost)

    def _link(self, host: int, network: str):
        ns, port, end = f"{self.tag}-{host}", f"{network}{host}p", f"{network}0"
        run("ip", "link", "add", end, "netns", ns, "type", "veth", "peer", "name", port, "netns",
            self.switch)
        self._port(network, host, "master", f"br-{network}")
        self._port(network, host, "up")
        run("ip", "-n", ns, "addr", "add", f"{NETWORKS[network]}.{host}/24", "dev", end)
        run("ip", "-n", ns, "link", "set", end, "up")

    def _port(self, network: str, host: int, *words: str):
        run("ip", "-n", self.switch, "link", "set", f"{network}{host}p", *words)

    def enter(self, host: int):
        enter(f"{self.tag}-{host}")

    def agent(self, folder: Path) -> str:
        """What ssh would be to mpirun: runs a command on a host named by an address. Each host has
        shared memory of its own, the folder's shm-N."""
        for host in range(1, self.count + 1):
            (folder / f"shm-{host}").mkdir()
        path = folder / "agent"
        path.write_text("#!/usr/bin/env bash\nwhile [[ $1 == -* ]]; do shift; done\n"
                        "host=${1##*.}\nshift\n"
                        f'exec ip netns exec "{self.tag}-$host" unshare --uts -- '
                        f'bash -c "mount --bind {folder}/shm-$host /dev/shm; hostname node$host; $*"\n')
        path.chmod(0o755)
        return str(path)

    # --- faults: TCP sees silence, and no reset ---

    def cut(self, network: str, host: int):
        """The host's link to that network carries nothing."""
        self._port(network, host, "nomaster")

    def join(self, network: str, host: int):
        self._port(network, host, "master", f"br-{network}")

    def cut_one_way(self, network: str, host: int, way: str, lost: bool = True):
        """What the host sends to that network ("from"), or what is sent to it ("to"), is lost."""
        ns, dev = {"from": (f"{self.tag}-{host}", f"{network}0"),
                   "to": (self.switch, f"{network}{host}p")}[way]
        what = ("replace", "dev", dev, "root", "blackhole") if lost else ("del", "dev", dev, "root")
        run("tc", "-n", ns, "qdisc", *what)

    def part(self, network: str, *hosts: int, parted: bool = True):
        """These hosts do not reach each other, and all others."""
        for host in hosts:
            self._port(network, host, "type", "bridge_slave", "isolated", "on" if parted else "off")

    def slow(self, network: str, host: int, kbit: int):
        """Both ways; 0: as fast as ever."""
        for ns, dev in ((f"{self.tag}-{host}", f"{network}0"), (self.switch, f"{network}{host}p")):
            if kbit:
                run("tc", "-n", ns, "qdisc", "replace", "dev", dev, "root", "tbf", "rate",
                    f"{kbit}kbit", "burst", "32kb", "latency", "400ms")
            else:
                run("tc", "-n", ns, "qdisc", "del", "dev", dev, "root")

    def worsen(self, network: str, host: int, delay_ms: int, dropped: float, seed: int):
        """Its frames are late, and so many in a hundred lost, both ways; see relay.py. One at a time."""
        sw = ("ip", "-n", self.switch, "link")
        run(*sw, "add", "relay0", "type", "veth", "peer", "name", "relay1")
        inside(self.switch, lambda: offloads_off("relay1"))
        inside(f"{self.tag}-{host}", lambda: offloads_off(f"{network}0"))
        run(*sw, "set", "relay0", "up", "promisc", "on")
        run(*sw, "set", "relay1", "up", "master", f"br-{network}")
        self._port(network, host, "nomaster", "promisc", "on")
        self.relay = subprocess.Popen(
            ["ip", "netns", "exec", self.switch, sys.executable,
             Path(__file__).with_name("relay.py"), f"{network}{host}p", "relay0", str(delay_ms),
             str(dropped), str(seed)], stdin=subprocess.DEVNULL)

    def mend(self, network: str, host: int):
        """After worsen()."""
        self.relay.terminate()
        code = self.relay.wait()
        self.relay = None
        run("ip", "-n", self.switch, "link", "del", "relay0")
        self._port(network, host, "promisc", "off", "master", f"br-{network}")
        if code not in (0, -15):
            raise OSError(f"relay.py ended with {code}")

    def close(self):
        """Processes on the hosts have ended. This process may be on one until it ends."""
        if self.relay:
            self.relay.kill()
            self.relay.wait()
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False)
        for line in listed.stdout.splitlines():
            if line.startswith(f"{self.tag}-"):
                subprocess.run(["ip", "netns", "del", line.split()[0]], check=False)


def on_hosts(hosts: Hosts, folder: Path, bin_dir: Path, groups: dict) -> tuple[dict, tuple]:
    """Parts of cluster.yaml, and words for mpirun, of groups that are lists of hosts, one rank each,
    under a coordinator on host 1."""
    pki = folder / "pki"
    run(str(bin_dir / "witan"), "pki", "init", str(pki))
    for role in ("coordinator", "worker"):
        run(str(bin_dir / "witan"), "pki", "issue", str(pki), "--role", role)
    ctl, data = NETWORKS["ctl"], NETWORKS["data"]
    parts = {
        "pki": str(pki),
        "listen": {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0", "cluster": f"{ctl}.1:8002"},
        "groups": [{"name": name, "tp": len(on), "data_plane": f"{data}.0/24",
                    "hosts": [{"name": f"{ctl}.{h}", "ranks": 1} for h in on]}
                   for name, on in groups.items()]}
    tmp = folder / "mpi"
    tmp.mkdir()
    return parts, ("--mca", "plm", "rsh", "--mca", "plm_rsh_agent", hosts.agent(folder), "--mca",
                   "plm_rsh_no_tree_spawn", "1", "--mca", "orte_tmpdir_base", str(tmp))


HOST_1 = ("unshare", "--uts", "--", "bash", "-c", 'hostname node1; exec "$@"', "-")
