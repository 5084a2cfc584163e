"""What a running server may do once it has started, and which TLS its doors speak."""

import os
import re
import ssl
import subprocess
from pathlib import Path

import pytest

import server

pytestmark = pytest.mark.skipif(server.MODE != "direct", reason="once is enough: --direct has it")


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def sandboxed(running) -> bool:
    return "sandbox: none in a build with sanitizers" not in running.coordinator.process.said()


@pytest.fixture(scope="module")
def talkative(tmp_path_factory):
    folder = tmp_path_factory.mktemp("talkative")
    running = server.Direct(folder, worker_words=("--verbose",), verbose=True)
    yield running
    running.stop()


def test_processes_are_cut_down(talkative):
    if not sandboxed(talkative):
        pytest.skip("builds with sanitizers have no sandbox: their runtimes want what it forbids")
    if "no seccomp" in talkative.coordinator.process.said():
        pytest.skip("this kernel, or what started the tests, has no seccomp filter for us")
    for pid in talkative.pids():
        for task in Path(f"/proc/{pid}/task").iterdir():
            found = {key: value.strip() for key, _, value in
                     (line.partition(":") for line in (task / "status").read_text().splitlines())}
            assert found["NoNewPrivs"] == "1" and found["Seccomp"] == "2", (pid, task)
        assert status_of(pid)["NoNewPrivs"] == "1"
    coordinator = status_of(talkative.coordinator.process.child.pid)
    assert int(coordinator["CapPrm"], 16) == 0
    said = talkative.coordinator.process.said()
    assert "sandbox: no capabilities, " in said and "seccomp" in said
    assert "sandbox: loaded: " in talkative.workers[0].said()


def test_no_sandbox_says_so(tmp_path):
    running = server.Direct(tmp_path / "open", worker_words=("--no-sandbox",), sandbox="off")
    try:
        for process in (running.coordinator.process, *running.workers):
            assert status_of(process.child.pid)["Seccomp"] in ("0", "2")  # 2: this test's own
        assert "sandbox: off: this process may do all that its user may" in \
            running.coordinator.process.said()
        assert "--no-sandbox: this process may do all" in running.workers[0].said()
    finally:
        running.stop()


def test_memory_is_locked_or_refused(tmp_path):
    """Whether it may is this machine's to say; that it does not go on as if it had is ours."""
    if b"__asan_init" in (server.BIN / "witan-coordinator").read_bytes() or \
            b"__tsan_init" in (server.BIN / "witan-coordinator").read_bytes():
        pytest.skip("sanitizers map terabytes, which nobody locks")
    pki = server.make_pki(tmp_path / "pki")
    started = server.Coordinator(tmp_path, server.write_config(tmp_path, pki=pki, retention={"mlock": True}))
    try:
        server.poll("it listens or refuses", 30, lambda: started.process.child.poll() is not None
                    or "listening http" in os.read(started.pipe, 65536).decode())
        said = started.process.said()
        if "retention.mlock" in said:
            assert re.search(r"RLIMIT_MEMLOCK of \d+ MiB or more, or CAP_IPC_LOCK, found \d+ MiB", said)
            assert started.process.wait(30) == 1
        else:
            assert int(status_of(started.process.child.pid)["VmLck"].split()[0]) > 1000
            started.process.child.terminate()
            started.process.check()
    finally:
        if started.process.child.poll() is None:
            started.process.child.kill()
            started.process.child.wait()
        os.close(started.pipe)


# --- TLS ---

@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    """HTTP, gRPC and the ranks' listener of a coordinator without ranks."""
    folder = tmp_path_factory.mktemp("tls")
    tls = {"cert": folder / "pki" / "door.pem", "key": folder / "pki" / "door.key"}
    running = server.Direct(folder, workers=False, listen={"tls": tls})
    own = ["-cert", running.pki / "worker.pem", "-key", running.pki / "worker.key"]
    yield {"http": [running.http], "grpc": [running.grpc], "cluster": [running.cluster, *own]}
    running.stop()


def shakes_hands(door: list, *words: str) -> str:
    """What `openssl s_client` comes to at this door: the suite, or '' where it is refused."""
    done = subprocess.run(["openssl", "s_client", "-connect", *map(str, door), "-alpn", "h2", "-brief", *words],
                          stdin=subprocess.DEVNULL, capture_output=True, check=False,
                          timeout=60 * server.FACTOR)
    lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("Ciphersuite")), "")


@pytest.mark.parametrize("door", ["http", "grpc", "cluster"])
def test_tls_is_1_2_or_later(doors, door):
    for version in ("-tls1", "-tls1_1"):
        assert shakes_hands(doors[door], version, "-cipher", "ALL:@SECLEVEL=0") == ""
    assert "GCM" in shakes_hands(doors[door], "-tls1_2")
    assert shakes_hands(doors[door], "-tls1_3").startswith("TLS_")


@pytest.mark.parametrize("door", ["http", "grpc", "cluster"])
def test_no_weak_suite(doors, door):
    """One by one, those of TLS 1.2 without forward secrecy or authenticated encryption."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    suites = [c for c in context.get_ciphers() if c["protocol"] != "TLSv1.3"]
    good = [c["name"] for c in suites if c["aead"] and "ECDHE" in c["name"]]
    weak = [c["name"] for c in suites if c["name"] not in good]
    assert len(good) >= 4 and len(weak) > 20
    assert shakes_hands(doors[door], "-tls1_2", "-cipher", ":".join(good)) in good
    assert shakes_hands(doors[door], "-tls1_2", "-cipher", ":".join(weak) + ":@SECLEVEL=0") == ""
