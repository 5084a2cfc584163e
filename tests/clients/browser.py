"""A headless Chromium asked over a pipe (Chrome's DevTools protocol): what a page requests, says on
its console and looks like. Nothing but Python's own library."""

import base64
import contextlib
import fcntl
import json
import os
import select
import subprocess
import time
import zlib

FACTOR = float(os.environ.get("WITAN_TEST_FACTOR", "1"))
FROM, TO = 3, 4  # the browser's descriptors


def _pipe() -> tuple[int, int]:
    """One whose ends are not the browser's FROM and TO."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return moved


class Browser:
    """One page of one browser; `events` are all that it told of, oldest first."""

    def __init__(self, folder):
        words = [os.environ["WITAN_BROWSER"], "--headless", "--no-sandbox", "--disable-gpu",
                 "--remote-debugging-pipe", "--disable-background-networking",
                 "--disable-component-update", "--no-first-run", "--hide-scrollbars",
                 f"--user-data-dir={folder}", "about:blank"]
        to_read, self.out = _pipe()
        self.inn, to_write = _pipe()

        def connect():
            os.dup2(to_read, FROM)
            os.dup2(to_write, TO)

        self.child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL, preexec_fn=connect,
                                      pass_fds=(FROM, TO))
        os.close(to_read)
        os.close(to_write)
        self.rest, self.count, self.session, self.events = b"", 0, None, []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target,
                                flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def _read(self, end: float) -> dict:
        while b"\0" not in self.rest:
            left = max(0, end - time.monotonic())
            assert select.select([self.inn], [], [], left)[0], "the browser says nothing"
            more = os.read(self.inn, 1 << 20)
            assert more, f"the browser is gone: {self.child.poll()}"
            self.rest += more
        line, self.rest = self.rest.split(b"\0", 1)
        return json.loads(line)

    def _next(self, end: float) -> dict:
        message = self._read(end)
        if "method" in message:
            self.events.append(message)
        return message

    def ask(self, method: str, **params) -> dict:
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 30 * FACTOR
        while (answer := self._next(end)).get("id") != self.count:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url: str, width: int = 1000, height: int = 800, dark: bool = False):
        """Loads a page; `events` begin with it."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height,
                 deviceScaleFactor=1, mobile=width < 600)
        self.ask("Emulation.setEmulatedMedia",
                 features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.events.clear()
        self.ask("Page.navigate", url=url)
        end = time.monotonic() + 30 * FACTOR
        while not any(e["method"] == "Page.loadEventFired" for e in self.events):
            self._next(end)

    def value(self, expression: str):
        """What JavaScript comes to in the page; the page's policy is for its own scripts."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True,
                          awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, what: str, expression: str, seconds: float = 30):
        """The first true value of an expression, which must come in time."""
        end = time.monotonic() + seconds * FACTOR
        while not (value := self.value(expression)):
            assert time.monotonic() < end, f"not in {seconds * FACTOR:.0f} s: {what}"
            time.sleep(0.03)
        return value

    def write(self, text: str):
        """Into what has the focus, as if pasted."""
        self.ask("Input.insertText", text=text)

    def press(self, key: str, shift: bool = False):
        """Enter, Escape, Tab, Space or an arrow, by the keyboard."""
        code, text = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, ""), " ": (32, " "),
                      "ArrowLeft": (37, ""), "ArrowUp": (38, ""), "ArrowRight": (39, ""),
                      "ArrowDown": (40, "")}[key]
        what = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code,
                "modifiers": 8 if shift else 0}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **what, **({"text": text} if text else {}))
        self.ask("Input.dispatchKeyEvent", type="keyUp", **what)

    def requests(self) -> list[str]:
        return [e["params"]["request"]["url"] for e in self.events
                if e["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[dict]:
        return [e for e in self.events if e["method"] in
                ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")]

    def screenshot(self) -> bytes:
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def close(self):
        """Asked first; a browser that does not go is ended."""
        self.session = None
        with contextlib.suppress(OSError, AssertionError):
            self.ask("Browser.close")
        try:
            self.child.wait(10 * FACTOR)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        os.close(self.out)
        os.close(self.inn)


def drawn_share(png: bytes) -> float:
    """The share of a PNG's bytes that differ from what its filters foretell: next to none where all
    is of one colour."""
    data, at = b"", 8
    while at < len(png):
        size = int.from_bytes(png[at:at + 4], "big")
        if png[at + 4:at + 8] == b"IDAT":
            data += png[at + 8:at + 8 + size]
        at += size + 12
    raw = zlib.decompress(data)
    return 1 - raw.count(0) / len(raw)
