"""A program on a pseudo-terminal, and what stands on its screen."""

import codecs
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import unicodedata

import server

SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[()][0-9A-B]|[=>])")
MOVES = re.compile(r"\x1b\[(\d*)(?:;(\d*))?([HJK])")


class Screen:
    """What texts come to on a terminal whose rows have no end: carriage returns, newlines, and the
    sequences that place and erase. All others are passed over."""

    def __init__(self):
        self.rows, self.row, self.column = [[]], 0, 0

    def put(self, c: str):
        row = self.rows[self.row]
        row.extend(" " * (self.column - len(row)))
        row[self.column:self.column + 1] = [c]
        self.column += 1
        if unicodedata.east_asian_width(c) in "WF":
            row[self.column:self.column + 1] = [""]
            self.column += 1

    def go(self, row: int, column: int):
        while len(self.rows) <= row:
            self.rows.append([])
        self.row, self.column = row, column

    def sequence(self, text: str):
        found = MOVES.fullmatch(text)
        if text == "\x1b[?1049h" or text == "\x1b[2J":
            self.__init__()
        elif found and found[3] == "H":
            self.go(int(found[1] or 1) - 1, int(found[2] or 1) - 1)
        elif found and found[3] == "K":
            del self.rows[self.row][self.column:]
        elif found and found[3] == "J":
            del self.rows[self.row][self.column:]
            del self.rows[self.row + 1:]

    def feed(self, text: str) -> str:
        """Returns the beginning of a sequence at the text's end."""
        at = 0
        while at < len(text):
            found = SEQUENCE.match(text, at)
            if found:
                self.sequence(found[0])
                at = found.end()
                continue
            if text[at] == "\x1b" and len(text) - at < 16:
                return text[at:]
            if text[at] == "\r":
                self.column = 0
            elif text[at] == "\n":
                self.go(self.row + 1, self.column)
            elif text[at] >= " ":
                self.put(text[at])
            at += 1
        return ""

    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.rows]


class Terminal:
    """One program, its controlling terminal and all that it wrote there."""

    def __init__(self, *words, columns: int = 100, rows: int = 50, folder=None, **environment):
        self.main, self.side = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self.side)
        drop = ("NO_COLOR", "TERM", "WITAN_API_KEY")
        env = {k: v for k, v in os.environ.items() if k not in drop}
        env |= {"TERM": "xterm-256color", **environment}
        self.child = subprocess.Popen([str(w) for w in words], stdin=self.side, stdout=self.side,
                                      stderr=self.side, env=env, start_new_session=True, cwd=folder,
                                      preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.bytes, self.lock = b"", threading.Lock()
        self.screen, self.shown, self.begun = Screen(), 0, ""
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        while True:
            try:
                chunk = os.read(self.main, 65536)
            except OSError:
                return
            if not chunk:
                return
            with self.lock:
                self.bytes += chunk

    def resize(self, columns: int, rows: int):
        fcntl.ioctl(self.side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def written(self) -> bytes:
        with self.lock:
            return self.bytes

    def lines(self) -> list[str]:
        """The screen by now; of the alternate one where the program has it."""
        written = self.written()
        new = self.decoder.decode(written[self.shown:])
        self.shown = len(written)
        self.begun = self.screen.feed(self.begun + new)
        return self.screen.lines()

    def type(self, text: str):
        left = text.encode()
        while left:
            left = left[os.write(self.main, left):]

    def wait(self, what: str, probe, seconds: float = 30):
        try:
            return server.poll(what, seconds, probe)
        except AssertionError:
            raise AssertionError(f"not in time: {what}; on the screen:\n" +
                                 "\n".join(self.lines())) from None

    def ended(self, code: int = 0):
        """It ends so, and leaves the terminal as it found it."""
        self.wait("the program has ended", lambda: self.child.poll() is not None)
        found = termios.tcgetattr(self.side)
        self.hang_up()
        assert not self.reader.is_alive(), "something else holds the terminal"
        text = self.written().decode(errors="replace")
        assert self.child.returncode == code, f"{self.child.returncode}:\n{text}"
        assert not server.REPORT.search(text), text
        assert found == self.before

    def hang_up(self):
        """The reader has all when nobody can write any more."""
        if self.side >= 0:
            os.close(self.side)
            self.side = -1
        self.reader.join(30 * server.FACTOR)

    def close(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        self.hang_up()
        os.close(self.main)
