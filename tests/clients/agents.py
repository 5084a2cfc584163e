"""An agent's loop of two tools and three turns, for every client, and what each of its turns must be. The model
that ships chooses no tool by itself, so the first two turns demand one, and masks see to the call."""

import json
from typing import NamedTuple

import server

QUESTION = "What is a lighthouse?"
PARAMETERS = {"look_up": {"word": "string"}, "count": {"text": "string", "vowels": "boolean"}}
FUNCTIONS = [{"name": name, "description": f"Can {name}.", "parameters": {
    "type": "object", "properties": {k: {"type": v} for k, v in fields.items()}}}
    for name, fields in PARAMETERS.items()]
TOOLS = [{"type": "function", "function": f} for f in FUNCTIONS]
# So hot that the arguments differ from seed to seed.
HEAT = {"temperature": 1.5, "top_p": 1}
SEED = {"seed": 12}
LENGTH = 110
# What the chat template makes of a call and its result, between two prompts.
BETWEEN = ("<tool_call>\n{\"name\": \"%s\", \"arguments\": %s}\n</tool_call><|im_end|>\n<|im_start|>user\n"
           "<tool_response>\n%s\n</tool_response><|im_end|>\n<|im_start|>assistant\n")


class Turn(NamedTuple):
    text: str
    calls: list[tuple[str, dict]]
    prompt_tokens: int
    answer_tokens: int


def run_tool(name: str, arguments: dict) -> str:
    """What the tools do; the model may give them anything."""
    words = sorted(f"{key}: {value}" for key, value in arguments.items())
    return f"{name} found {len(words)} in {', '.join(words)}"


def chat_choice(choice: str):
    return choice if choice in ("auto", "none", "required") else {
        "type": "function", "function": {"name": choice}}


def chat_turn(answer) -> Turn:
    """Of an answer of OpenAI's chat."""
    message = answer.choices[0].message
    calls = [(c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or []]
    return Turn(message.content or "", calls, answer.usage.prompt_tokens, answer.usage.completion_tokens)


def at_once(client, messages: list, choice: str) -> Turn:
    """The next turn of a conversation that nobody had: OpenAI's client sends it whole."""
    return chat_turn(client.chat.completions.create(
        model="lexicon", messages=messages, tools=TOOLS, tool_choice=chat_choice(choice),
        max_tokens=LENGTH, extra_body=SEED, **HEAT))


def three_turns(client, agent):
    """`agent` has ask(choice, stream), which gives a Turn, and give(result), after which the next turn has
    that one's call and its result before it."""
    said, choice, names, before, between = [{"role": "user", "content": QUESTION}], "required", [], None, ""
    for last in (False, False, True):
        turn = agent.ask(choice, stream=True)
        assert agent.ask(choice, stream=False) == turn
        if last or server.FACTOR == 1:  # masks take long under a sanitizer
            assert turn == at_once(client, said, choice)
        if before:
            grown = client.post("/../tokenize", body={"prompt": between}, cast_to=dict)["count"]
            assert turn.prompt_tokens - before.prompt_tokens == grown
        if last:
            break
        [(name, arguments)] = turn.calls
        assert turn.text == ""
        names.append(name)
        result = run_tool(name, arguments)
        agent.give(result)
        # However a client spells them.
        written = json.dumps(arguments, ensure_ascii=False)
        said += [{"role": "assistant", "tool_calls": [{"id": f"own-{name}", "type": "function", "function": {
                     "name": name, "arguments": written}}]},
                 {"role": "tool", "tool_call_id": f"own-{name}", "content": result}]
        before, between = turn, BETWEEN % (name, written, result)
        choice = "auto" if len(names) == 2 else next(n for n in PARAMETERS if n != name)
    assert sorted(names) == sorted(PARAMETERS)
    assert turn.text and not turn.calls
