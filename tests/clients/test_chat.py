"""`witan chat`: on a pseudo-terminal and through pipes, against the server and against one that lies."""

import concurrent.futures
import json
import re
import signal
import stat
import subprocess
import threading

import grpc
import inference_pb2
import inference_pb2_grpc
import pytest

import server
from terminal import Terminal

pytestmark = pytest.mark.skipif(server.MODE != "direct", reason="the same in either mode: run with --direct")
CHAT = server.BIN / "witan", "chat"
UP = "\x1b[A"


class Chat(Terminal):
    """A conversation on a terminal."""

    def __init__(self, address: str, *words, **options):
        super().__init__(*CHAT, "--address", address, *words, **options)
        self.asked = 0
        self.wait("its first prompt", lambda: self.prompts() == 1)

    def prompts(self) -> int:
        """Prompts on the screen, when the last of them waits."""
        lines = self.lines()
        found = [line for line in lines if line == ">" or line.startswith("> ")]
        return len(found) if lines[-1] == ">" else 0

    def say(self, text: str, shown: str | None = None) -> list[str]:
        """Types a line, and returns what stands between it and the next prompt."""
        before = self.prompts()
        self.type(text + "\r")
        self.wait(f"the prompt after {text!r}", lambda: self.prompts() > before)
        lines = self.lines()[:-1]
        line = "> " + (text if shown is None else shown)
        start = max(i for i, found in enumerate(lines) if found == line.rstrip())
        return lines[start + 1:]


@pytest.fixture
def chat(main):
    made = []

    def start(*words, address: str = "", **options) -> Chat:
        made.append(Chat(address or main.grpc, *words, **options))
        return made[-1]
    yield start
    for one in made:
        one.close()


class Liar(inference_pb2_grpc.InferenceServicer):
    """A server that says what it was told to, and then may never end."""

    def __init__(self, thought: str, text: str, ends: bool = True, pauses: bool = False):
        self.thought, self.text, self.ends, self.pauses = thought, text, ends, pauses
        self.cancelled = threading.Event()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        inference_pb2_grpc.add_InferenceServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Generate(self, request, context):
        context.add_callback(self.cancelled.set)
        if self.thought:
            yield inference_pb2.GenerateResponse(
                delta=inference_pb2.Delta(reasoning=self.thought))
        if self.pauses:
            self.cancelled.wait(60 * server.FACTOR)
        yield inference_pb2.GenerateResponse(delta=inference_pb2.Delta(text=self.text))
        if not self.ends:
            self.cancelled.wait(60 * server.FACTOR)
        yield inference_pb2.GenerateResponse(
            finished=inference_pb2.Finished(reason="stop", prompt_tokens=3, completion_tokens=2))


@pytest.fixture
def liar():
    made = []

    def start(*words, **options) -> Liar:
        made.append(Liar(*words, **options))
        return made[-1]
    yield start
    for one in made:
        one.server.stop(0).wait()


def answer(client, messages: list, **options) -> str:
    made = client.chat.completions.create(
        model="lexicon", messages=messages, max_tokens=40,
        extra_body={"chat_template_kwargs": {"enable_thinking": False}}, **options)
    return made.choices[0].message.content


SAME = "--no-think", "--max-tokens", 40


def test_a_session_is_what_the_api_says(chat, client, entries, tmp_path):
    first, second = (f"What is a {e['word']}?" for e in entries[:2])
    talk = [{"role": "user", "content": first}]
    one = answer(client, talk, seed=5)
    talk += [{"role": "assistant", "content": one}, {"role": "user", "content": second}]
    two = answer(client, talk, seed=5)
    terminal = chat(*SAME, "--seed", 5, folder=tmp_path)
    assert "\n".join(terminal.say(first)) == one
    assert "\n".join(terminal.say(second)) == two
    # The question is asked again: the seed is set, so the answer is the same.
    assert "\n".join(terminal.say("/retry")) == two
    assert terminal.say("/save talk.json") == ["4 messages saved."]
    saved = json.loads((tmp_path / "talk.json").read_text())
    assert saved == {"messages": [*talk, {"role": "assistant", "content": two}]}
    assert stat.S_IMODE((tmp_path / "talk.json").stat().st_mode) == 0o600
    assert second in terminal.say("/undo")[0]
    assert "\n".join(terminal.say(second)) == two
    terminal.say("/new")
    assert "\n".join(terminal.say(first)) == one
    assert terminal.say("/load talk.json") == [f"4 messages loaded; the last question: {second}"]
    assert "\n".join(terminal.say("/retry")) == two
    usage = terminal.say("/usage")
    assert re.fullmatch(r"last answer: \d+ tokens in .* s, to a prompt of \d+ \(\d+ cached\), "
                        r"seed 5", usage[0])
    assert usage[1].startswith("6 answers: ")
    terminal.type("\x04")
    terminal.ended()


def test_settings(chat, client, entries):
    question = f"What is a {entries[0]['word']}?"
    terminal = chat(*SAME)
    assert any("temperature" in line and "0" in line for line in terminal.say("/set temperature 0"))
    assert "\n".join(terminal.say(question)) == answer(
        client, [{"role": "user", "content": question}], temperature=0)
    assert "expected a number" in terminal.say("/set top-k many")[0]
    assert "no such name" in terminal.say("/set colour 3")[0]
    assert "temperature" not in "".join(terminal.say("/set temperature default"))
    # The server judges what a number may be, and the conversation goes on.
    terminal.say("/set top-p 7")
    assert "top_p" in terminal.say(question)[0]
    terminal.say("/set top-p default")
    assert terminal.say("/system You are terse.") == ["system message: You are terse."]
    assert terminal.say("/system off") == ["system message: none"]
    assert terminal.say("/think on") == ["thinking: on, where the model can"]
    assert terminal.say("/think off") == ["thinking: off"]
    assert "No such command" in terminal.say("/nonsense")[0]
    assert "nothing was asked" in chat(*SAME).say("/retry")[0]
    assert "/load FILE" in terminal.say("/load")[0]
    terminal.type("/quit\r")
    terminal.ended()


def test_lines(chat, liar):
    """Editing, completion, history, lines that go on, pastes: what is sent is what was meant."""
    heard = []

    class Hears(Liar):
        def Generate(self, request, context):
            heard.append(request.conversation.messages[-1].content)
            yield from super().Generate(request, context)
    ear = Hears("", "yes")
    terminal = chat(address=ear.address)

    def sent(keys: str) -> str:
        before = terminal.prompts()
        terminal.type(keys + "\r")
        terminal.wait("an answer", lambda: terminal.prompts() > before)
        return heard[-1]
    try:
        assert sent("héllo") == "héllo"
        assert sent(UP) == "héllo"
        assert sent(UP + "\x7f\x7fp") == "hélp"
        assert sent("b\x01a\x05c") == "abc"
        assert sent("one two\x17three") == "one three"
        assert sent("xy\x1b[D\x1b[3~z") == "xz"
        assert sent("a\\\rb") == "a\nb"
        assert sent("c\x1b\rd") == "c\nd"
        assert sent(UP) == "c\nd"
        assert sent('"""\re\r/f\r"""') == "e\n/f"
        assert sent("\x1b[200~g\rh\r\x1b[201~i") == "g\nh\ni"
        assert sent(" /help") == " /help"
        assert sent("日本語\x1b[D\x7f") == "日語"
        long = "word " * 900
        assert sent(long + "!") == long + "!"
        before = terminal.prompts()
        terminal.type("gone\x03")
        terminal.wait("another prompt", lambda: terminal.prompts() > before)
        assert sent("kept") == "kept"
    finally:
        ear.server.stop(0).wait()
    assert terminal.say("/us\t", "/usage")[0].startswith("last answer: 2 tokens")
    terminal.type("/s\t")
    terminal.wait("what could go on", lambda: "/system  /set  /save" in terminal.lines())
    terminal.type("\x15/quit\r")
    terminal.ended()


def test_ctrl_c_stops_an_answer_and_keeps_the_session(chat, liar):
    slow = liar("", "It begins", ends=False)
    terminal = chat(address=slow.address)
    terminal.type("Tell\r")
    terminal.wait("the answer's beginning", lambda: "It begins" in terminal.lines())
    terminal.type("\x03")
    terminal.wait("[stopped]", lambda: "[stopped]" in terminal.lines() and terminal.prompts())
    assert slow.cancelled.wait(20 * server.FACTOR)
    assert terminal.say("/undo") == ["Forgotten, with its answer: Tell"]
    terminal.type("\x04")
    terminal.ended()


def test_ctrl_c_of_the_real_server(chat, until_idle):
    """However far the answer is by then, a prompt and an idle server follow."""
    terminal = chat("--min-tokens", 900, "--max-tokens", 900)
    terminal.type("Tell\r")
    terminal.wait("the answer's beginning", lambda: not terminal.lines()[-1].startswith(">") and
                  terminal.lines()[-1])
    terminal.type("\x03")
    terminal.wait("the next prompt", lambda: terminal.prompts() >= 2)
    until_idle()
    assert terminal.say("/think off") == ["thinking: off"]
    terminal.type("\x04")
    terminal.ended()


HOSTILE = ("a\x1b]0;title\x07b\x1b[2Jc\x9b31md\x1b[6ne\x08\x08f\rg\x0bh\x7fi\u202ej\x1bPk\x1b\\l"
           "\x1b[?1049hm\x00n").replace("\x00", "")
KNOWN = re.compile(rb"\x1b\[(2m|0m|\?2004[hl])")


def test_hostile_output_is_harmless_on_a_terminal(chat, liar):
    evil = liar(HOSTILE, HOSTILE)
    terminal = chat(address=evil.address)
    shown = terminal.say("Tell")
    assert "\\x1b]0;title\\x07b" in shown[0] and "\\x1b" in shown[-1]
    rest = KNOWN.sub(b"", terminal.written()).decode()
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", rest), rest
    terminal.type("\x04")
    terminal.ended()


class Refuses(inference_pb2_grpc.InferenceServicer, inference_pb2_grpc.AdminServicer):
    """A server whose every answer is an error with hostile words."""

    def __init__(self):
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        inference_pb2_grpc.add_InferenceServicer_to_server(self, self.server)
        inference_pb2_grpc.add_AdminServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Generate(self, request, context):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, HOSTILE + "end")

    GetStatus = Generate


def test_hostile_errors_are_harmless_on_a_terminal(chat):
    evil = Refuses()
    try:
        terminal = chat(address=evil.address)
        assert "\\u009b31md" in terminal.say("Tell")[0]
        terminal.type("\x04")
        terminal.ended()
        once = Terminal(*CHAT, "--address", evil.address, "Tell")
        status = Terminal(server.BIN / "witan", "status", "--address", evil.address)
        try:
            once.ended(1)
            status.ended(1)
        finally:
            once.close()
            status.close()
        for one in (terminal, once, status):
            rest = KNOWN.sub(b"", one.written()).decode()
            assert "\\u009b31md" in rest and "\\u202ej" in rest and "end" in rest
            assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", rest), rest
    finally:
        evil.server.stop(0).wait()


@pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_sequence_where_none_is_wanted(chat, liar, plain):
    evil = liar(HOSTILE, HOSTILE + "end")
    terminal = chat(address=evil.address, **plain)
    terminal.type("Tell\r")
    terminal.wait("two answers", lambda: terminal.prompts() == 2)
    assert "end" in terminal.written().decode()
    assert b"(thinking) a" in terminal.written() and b"(answer) a" in terminal.written()
    assert b"\x1b" not in terminal.written() and b"\xc2\x9b" not in terminal.written()
    terminal.type("/quit\r")
    terminal.ended()


def test_thinking_is_dimmed(chat, liar):
    terminal = chat(address=liar("hmm", "yes").address)
    terminal.say("Tell")
    assert b"\x1b[2mhmm\x1b[0m\r\n\r\nyes\r\n" in terminal.written()
    terminal.type("\x04")
    terminal.ended()


def piped(address: str, *words, text: str = "", code: int = 0) -> str:
    done = subprocess.run([*map(str, (*CHAT, "--address", address, *words))], input=text.encode(),
                          capture_output=True, timeout=60 * server.FACTOR, check=False)
    assert done.returncode == code, done.stderr
    assert b"\x1b" not in done.stderr and not server.REPORT.search(done.stderr.decode())
    return done.stdout.decode()


def test_a_pipe_gets_the_answer_alone(main, client, entries, liar):
    question = f"What is a {entries[0]['word']}?"
    told = answer(client, [{"role": "user", "content": question}], seed=3)
    assert piped(main.grpc, *SAME, "--seed", 3, text=question + "\n") == told + "\n"
    assert piped(main.grpc, *SAME, "--seed", 3, question) == told + "\n"
    # As it is, whatever it is: what reads it is no terminal. And no thought.
    assert piped(liar("hmm", HOSTILE).address, text="Tell") == HOSTILE + "\n"
    assert piped("127.0.0.1:1", text="Tell", code=1) == ""
    assert piped(main.grpc, "--top-p", "7", text="Tell", code=1) == ""
    assert piped(main.grpc, "--seed", "many", text="Tell", code=2) == ""


def test_history_is_kept_only_where_it_is_asked(chat, liar, tmp_path):
    where, file = liar("", "yes").address, tmp_path / "past"
    terminal = chat(address=where, folder=tmp_path, HOME=str(tmp_path))
    terminal.say("secret")
    terminal.type("\x04")
    terminal.ended()
    assert not list(tmp_path.iterdir())
    for _ in range(2):
        terminal = chat("--history", file, address=where, folder=tmp_path, HOME=str(tmp_path))
        terminal.say("once")
        terminal.say(UP, "once")
        terminal.type("\x04")
        terminal.ended()
    assert list(tmp_path.iterdir()) == [file] and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == '"once"\n'
    terminal = chat("--history", file, address=where)
    terminal.say(UP, "once")
    file.chmod(0o644)
    refused = Terminal(*CHAT, "--history", file)
    try:
        refused.ended(1)
    finally:
        refused.close()


def test_save_replaces_only_conversations(chat, tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("important")
    terminal = chat(folder=tmp_path)
    assert "stays as it is" in terminal.say("/save mine.txt")[0]
    assert mine.read_text() == "important"
    assert terminal.say("/save a.json") == terminal.say("/save a.json") == ["0 messages saved."]
    bad = {"messages": [{"role": "robot", "content": "x"}]}
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    assert "messages[0].role" in terminal.say("/load bad.json")[0]
    assert "absent.json" in terminal.say("/load absent.json")[0]


def test_a_kill_leaves_the_terminal_as_it_was(chat):
    terminal = chat()
    terminal.type("half a li")
    terminal.wait("the text", lambda: terminal.lines()[-1] == "> half a li")
    terminal.child.send_signal(signal.SIGTERM)
    terminal.ended(-signal.SIGTERM)
    assert terminal.written().endswith(b"\x1b[?2004l")


@pytest.mark.parametrize("words", [(), ("Tell",)])
def test_a_kill_in_a_thought_leaves_no_dimmed_terminal(liar, words):
    slow = liar("hmm", "yes", ends=False, pauses=True)
    terminal = Terminal(*CHAT, "--address", slow.address, *words)
    try:
        if not words:
            terminal.wait("a prompt", lambda: terminal.lines()[-1] == ">")
            terminal.type("Tell\r")
        terminal.wait("a thought", lambda: b"\x1b[2mhmm" in terminal.written())
        terminal.child.send_signal(signal.SIGTERM)
        terminal.ended(-signal.SIGTERM)
        assert terminal.written().endswith(b"\x1b[2mhmm\x1b[0m")
    finally:
        terminal.close()
