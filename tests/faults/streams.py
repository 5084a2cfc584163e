#!/usr/bin/env python3
"""Streams of sampled answers over HTTP, and what each of them must have been: the client of all tests
of faults. Standard library only.

    streams.py HOST:PORT [--streams N] [--tokens N] [--seed N] [--at-once N] [--retries N]
               [--key KEY] [--save FILE] [--compare FILE]

Half are chats, half completions; request i of a seed is the same at every run. Of those that are asked
again (--retries) half go on behind the last event that came, half begin anew. --save writes the answers
as a reference, --compare holds them against one. One line of summary; exit code 1 with a line for each
violation, which names its request."""

import argparse
import asyncio
import json
import random
import sys
import threading
import time
import uuid

THINGS = ("a lighthouse", "a violin", "a glacier", "a hammer", "a volcano", "a lantern", "a compass",
          "a harbour", "a loom", "an anchor", "a meadow", "a telescope", "a windmill", "a river")
MIXES = ({"temperature": 0}, {"temperature": 1}, {"temperature": 1.2, "top_p": 0.9},
         {"temperature": 0.8, "top_k": 40, "frequency_penalty": 0.3})
LINE_LIMIT = 1 << 20
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.1, 3.0
NOT_TAKEN = (429, 503)


class Broken(Exception):
    """The stream ended before its time, or could not begin: a retry may help."""


class Refused(Broken):
    """The request was not taken: asking later is no retry of an answer."""


class Request:
    """Request `index` of a seed: completion or chat, its sampling and its length fixed by these."""

    def __init__(self, seed: int, index: int, tokens: int):
        rng = random.Random(f"{seed}/{index}")
        self.index, self.tokens = index, tokens
        self.chat = index % 2 == 1
        self.resumes = index // 4 % 2 == 0  # a retry goes on behind the last event
        self.name = f"request {index} ({'chat' if self.chat else 'completion'})"
        self.path = "/v1/chat/completions" if self.chat else "/v1/completions"
        thing = rng.choice(THINGS)
        self.body = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": tokens,
                     "ignore_eos": True, "seed": seed * 1000003 + index, **rng.choice(MIXES)}
        if self.chat:
            self.body["messages"] = [{"role": "user", "content": f"Number {index}: what is {thing}?"}]
            self.body["logprobs"] = index % 4 == 3
        else:
            self.body["prompt"] = f"Note {index} tells of {thing} and"
            if index % 4 == 2:
                self.body["logprobs"] = 0


class Answer:
    """What one attempt has brought so far, or all of them where the later ones go on behind the
    earlier; `came` are the times of its pieces, by the wall clock, `last_id` its last event's."""

    def __init__(self):
        self.asked = time.time()
        self.text, self.thought, self.tokens, self.logprobs = "", "", [], []
        self.finish, self.usage, self.done, self.late = [], [], 0, 0
        self.came = []
        self.ended, self.taken, self.last_id = 0.0, False, ""

    def take(self, event: str):
        """One server-sent event: its lines."""
        fields = dict(line.split(": ", 1) for line in event.split("\n") if ": " in line)
        if "data" in fields:
            self._take_data(fields["data"])
            self.last_id = fields.get("id", self.last_id)

    def _take_data(self, event: str):
        self.late += self.done
        if event == "[DONE]":
            self.done += 1
            return
        chunk = json.loads(event)
        if "error" in chunk:
            raise Broken(f"an error in mid-stream: {chunk['error'].get('message', chunk['error'])}")
        if chunk.get("usage"):
            self.usage.append(chunk["usage"])
        for choice in chunk.get("choices", ()):
            self._take_choice(choice)

    def _take_choice(self, choice: dict):
        self.late += bool(self.finish)
        delta = choice.get("delta", {})
        text = choice.get("text", delta.get("content")) or ""
        thought = delta.get("reasoning_content") or ""
        self.text += text
        self.thought += thought
        logprobs = choice.get("logprobs") or {}
        for entry in (logprobs.get("reasoning_content") or []) + (logprobs.get("content") or []):
            self.tokens.append(entry["token"])
            self.logprobs.append(entry["logprob"])
        self.tokens += logprobs.get("tokens") or []
        self.logprobs += logprobs.get("token_logprobs") or []
        if text or thought:
            self.came.append(time.time())
        if choice.get("finish_reason"):
            self.finish.append(choice["finish_reason"])

    def said(self) -> list:
        """What must be equal in every run."""
        return [self.thought, self.text, self.tokens, self.logprobs]

    def gap(self) -> float:
        """The longest time between two pieces, in seconds."""
        return max((b - a for a, b in zip(self.came, self.came[1:])), default=0.0)


async def _headers(reader: asyncio.StreamReader) -> tuple[int, dict]:
    status = (await reader.readline()).decode("latin-1").split()
    if len(status) < 2:
        raise Broken("the connection ended before an answer")
    headers = {}
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(status[1]), headers


async def _body(reader: asyncio.StreamReader, headers: dict):
    """The body's pieces. Raises Broken where it ends before its end."""
    if headers.get("transfer-encoding") != "chunked":
        yield await reader.readexactly(int(headers.get("content-length", "0")))
        return
    while True:
        size = (await reader.readline()).strip()
        if not size:
            raise Broken("the connection ended in mid-stream")
        piece = await reader.readexactly(int(size, 16) + 2)
        if size == b"0":
            return
        yield piece[:-2]


async def _exchange(address: str, request: Request, answer: Answer, headers: dict):
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=LINE_LIMIT)
    try:
        body = json.dumps(request.body).encode()
        fields = {"Host": address, "Content-Type": "application/json", "Connection": "close",
                  "Content-Length": len(body), **headers}
        head = "".join(f"{k}: {v}\r\n" for k, v in fields.items())
        writer.write(f"POST {request.path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        await writer.drain()
        status, headers = await _headers(reader)
        answer.taken = status == 200
        rest = b""
        async for piece in _body(reader, headers):
            rest += piece
            if status != 200:
                continue
            *events, rest = rest.split(b"\n\n")
            for event in events:
                answer.take(event.decode())
        if status != 200:
            words = f"status {status}: {rest.decode(errors='replace').strip()[:300]}"
            raise Refused(words) if status in NOT_TAKEN else AssertionError(words)
    finally:
        writer.close()


class Stream:
    """One request with its attempts. `answer` is the last attempt's, or all attempts' stitched."""

    def __init__(self, request: Request, expected: list | None):
        self.request, self.expected = request, expected
        self.answer, self.attempts, self.refused, self.wrong = Answer(), 0, 0, []
        self.resumed = 0  # attempts that went on behind an event
        self.pieces = []  # times of all attempts' pieces
        self.key = {"Idempotency-Key": str(uuid.uuid4())} if request.resumes else {}

    def _next_attempt(self) -> dict:
        """The headers of one: behind the last event where there are a key and such an event."""
        if not (self.key and self.answer.last_id):
            self.answer = Answer()
            return self.key
        return {**self.key, "Last-Event-ID": self.answer.last_id}

    async def run(self, address: str, retries: int, timeout_s: float, headers: dict,
                  patient: bool = False):
        """Asks, and asks again after what may pass, at most `retries` times, at the next of several
        addresses ("A,B"); `patient`: after a refusal as often as the time allows."""
        end, tries, doors = time.monotonic() + timeout_s, 0, address.split(",")
        while True:
            tries += 1
            self.attempts = tries - self.refused
            more, seen = self._next_attempt(), len(self.answer.came)
            try:
                left = max(end - time.monotonic(), 0.1)
                await asyncio.wait_for(
                    _exchange(doors[(tries - 1) % len(doors)], self.request, self.answer,
                              {**headers, **more}), left)
                break
            except asyncio.TimeoutError:
                self.wrong.append(f"not ended within {timeout_s:.0f} s, {len(self.answer.came)} pieces")
                return
            except (Broken, OSError, asyncio.IncompleteReadError) as why:
                self._check_part()
                if isinstance(why, Refused) and patient and time.monotonic() < end:
                    self.refused += 1
                elif self.attempts > retries:
                    self.wrong.append(f"lost after {len(self.answer.came)} pieces: {why}")
                    return
            except (AssertionError, ValueError, KeyError) as why:
                self.wrong.append(f"{why}")
                return
            finally:
                self.pieces += self.answer.came[seen:]
                self.resumed += 0 < seen < len(self.answer.came)
            wait = min(BACKOFF_FIRST_S * 2 ** min(tries - 1, 10), BACKOFF_MOST_S)
            await asyncio.sleep(wait * random.uniform(0.5, 1))
        self.answer.ended = time.time()
        self._check()

    def _check_part(self):
        """What was said before a break is a beginning of what must be said."""
        a, want = self.answer, self.expected
        if want and not (want[0].startswith(a.thought) and want[1].startswith(a.text)):
            self.wrong.append("another text before the break than the reference")

    def _check(self):
        a, n = self.answer, self.request.tokens
        counted = [u["completion_tokens"] for u in a.usage]
        for found, expected, what in (
                (a.finish, ["length"], "finish reasons"), (a.done, 1, "[DONE]"),
                (a.late, 0, "events after the end"), (counted, [n], "tokens by usage")):
            if found != expected:
                self.wrong.append(f"{what}: expected {expected}, found {found}")
        if a.tokens and not self.request.chat and len(a.tokens) != n:
            self.wrong.append(f"tokens listed: expected {n}, found {len(a.tokens)}")
        if not self.expected:
            return
        for what, found, expected in zip(("thought", "text", "tokens", "log probabilities"),
                                         a.said(), self.expected):
            if found != expected:
                at = next((i for i, (x, y) in enumerate(zip(found, expected)) if x != y),
                          min(len(found), len(expected)))
                self.wrong.append(f"{what} differ from the reference at {at} of {len(expected)}: "
                                  f"{found[at:at + 20]!r} for {expected[at:at + 20]!r}")

    def gap(self) -> float:
        return max((b - a for a, b in zip(self.pieces, self.pieces[1:])), default=0.0)


class Crowd:
    """Streams on a thread of its own, at most `at_once` at a time, divided among the addresses where
    there are several ("A,B").

    Its thread is in the network namespace of the thread that starts it. `streams` grow no more after
    the start; their fields may be read meanwhile."""

    def __init__(self, address: str, requests: list[Request], reference: dict | None = None,
                 at_once: int = 0, retries: int = 0, timeout_s: float = 120, key: str = ""):
        self.address, self.retries, self.timeout_s = address, retries, timeout_s
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.streams = [Stream(r, reference[r.index] if reference else None) for r in requests]
        self.at_once = at_once or len(requests)
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self):
        room, doors = asyncio.Semaphore(self.at_once), self.address.split(",")

        async def one(stream):
            first = stream.request.index // 8 % len(doors)  # by eights: each kind at each address
            async with room:
                await stream.run(",".join(doors[first:] + doors[:first]), self.retries,
                                 self.timeout_s, self.headers)

        await asyncio.gather(*(one(s) for s in self.streams))

    def start(self) -> "Crowd":
        self.thread.start()
        return self

    def wait(self) -> "Crowd":
        """Until all have ended: each does within its timeout."""
        self.thread.join()
        return self

    def begun(self, pieces: int) -> bool:
        """Whether every stream that has not ended has so many pieces."""
        return all(s.answer.ended or s.wrong or len(s.answer.came) >= pieces for s in self.streams)

    def reference(self) -> dict:
        return {s.request.index: s.answer.said() for s in self.streams}

    def wrong(self) -> list[str]:
        return [f"{s.request.name}: {w}" for s in self.streams for w in s.wrong]

    def longest_gap(self) -> float:
        return max((s.gap() for s in self.streams), default=0.0)

    def summary(self) -> str:
        ended = sum(bool(s.answer.ended) for s in self.streams)
        tokens = sum(s.request.tokens for s in self.streams if s.answer.ended)
        again = sum(s.attempts - 1 for s in self.streams if s.attempts)
        behind = sum(s.resumed for s in self.streams)
        bad = sum(bool(s.wrong) for s in self.streams)
        return (f"{len(self.streams)} streams, {ended} ended, {tokens} tokens, {bad} wrong, "
                f"{again} asked again, {behind} went on behind an event, longest gap {self.longest_gap() * 1e3:.0f} ms")


def make_requests(seed: int, count: int, tokens: int) -> list[Request]:
    return [Request(seed, i, tokens + i % 7) for i in range(count)]


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("address")
    for name, default in (("streams", 50), ("tokens", 100), ("seed", 1), ("at-once", 0), ("retries", 0),
                          ("timeout", 300)):
        p.add_argument(f"--{name}", type=int, default=default)
    for name in ("key", "save", "compare"):
        p.add_argument(f"--{name}", default="")
    o = p.parse_args()
    reference = None
    if o.compare:
        with open(o.compare, encoding="utf-8") as f:
            reference = {int(k): v for k, v in json.load(f).items()}
    crowd = Crowd(o.address, make_requests(o.seed, o.streams, o.tokens), reference, o.at_once,
                  o.retries, o.timeout, o.key).start().wait()
    if o.save:
        with open(o.save, "w", encoding="utf-8") as f:
            json.dump(crowd.reference(), f)
    for line in crowd.wrong():
        print(line)
    print(crowd.summary())
    return 1 if crowd.wrong() else 0


if __name__ == "__main__":
    sys.exit(main())
