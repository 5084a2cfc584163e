"""A small file system in memory, to be filled and freed."""

import os
import subprocess
from pathlib import Path

from serving import skip


class SmallDisk:
    """`path`, while it is entered."""

    def __init__(self, path: Path, mbytes: int = 4):
        self.path, self.size, self.filler = path, f"size={mbytes}m", path / "filler"

    def __enter__(self):
        self.path.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", self.size, "faults", self.path],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            skip(f"no file system to fill: {done.stderr.strip()}")
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "--lazy", self.path], check=False)

    def fill(self):
        """Until not a byte fits."""
        fd = os.open(self.filler, os.O_WRONLY | os.O_CREAT, 0o600)
        for piece in (1 << 16, 1):
            try:
                while True:
                    os.write(fd, b"x" * piece)
            except OSError:
                continue
        os.close(fd)

    def free(self):
        self.filler.unlink(missing_ok=True)
