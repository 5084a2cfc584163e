"""docs/migrate-from-*.md as written: every block of commands runs, in the order of its page, with a model
of our own in the place of the page's and on ports that are free."""

import os
import random
import re
import socket
import subprocess
import sys

import pytest

import server

PAGES = sorted((server.TOP / "docs").glob("migrate-from-*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
pytestmark = pytest.mark.skipif(server.MODE != "serve", reason="starts `witan serve`: run with --serve")


def free_ports(count: int) -> list[int]:
    """Below the range from which the system takes ports for connections."""
    found = []
    while len(found) < count:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_every_command_of_a_page(page, tmp_path):
    http, grpc = free_ports(2)
    own = {"127.0.0.1:8000": f"127.0.0.1:{http}", "127.0.0.1:8001": f"127.0.0.1:{grpc}",
           "/models/Qwen3-30B-A3B": str(server.MODEL)}
    drop = ("WITAN_API_KEY", "OPENAI_API_KEY", "XDG_STATE_HOME")
    env = {k: v for k, v in os.environ.items() if k not in drop}
    env |= {"HOME": str(tmp_path), "PATH": f"{server.BIN}:{env['PATH']}"}
    how = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    blocks = BLOCK.findall(page.read_text())
    assert {kind for kind, _ in blocks} <= how.keys() and len(blocks) >= 3
    try:
        for kind, text in blocks:
            for theirs, ours in own.items():
                text = text.replace(theirs, ours)
            assert "/models/" not in text and ":800" not in text
            done = subprocess.run([*how[kind], text], cwd=tmp_path, env=env, check=False,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, timeout=120 * server.FACTOR)
            assert done.returncode == 0, f"{text}\n{done.returncode}:\n{done.stdout}"
            assert not server.REPORT.search(done.stdout), done.stdout
    finally:
        subprocess.run([server.BIN / "witan", "serve", "--stop"], env=env, check=False,
                       capture_output=True, timeout=120 * server.FACTOR)
    assert "witan serve --stop" in blocks[-1][1]
