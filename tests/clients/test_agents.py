"""Agents over each API, by its own client: agents.py says what each of their turns must be."""

import json

import anthropic
import pytest

import server
from agents import (FUNCTIONS, HEAT, LENGTH, QUESTION, SEED, TOOLS, Turn, chat_choice, chat_turn,
                    three_turns)


class Chat:
    def __init__(self, main, client):
        self.client, self.said, self.answer = client, [{"role": "user", "content": QUESTION}], None

    def ask(self, choice, stream):
        asked = {"model": "lexicon", "messages": self.said, "tools": TOOLS, "max_tokens": LENGTH,
                 "tool_choice": chat_choice(choice), "extra_body": SEED, **HEAT}
        if not stream:
            self.answer = self.client.chat.completions.create(**asked)
            return chat_turn(self.answer)
        with self.client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
            return chat_turn(events.get_final_completion())

    def give(self, result):
        message = self.answer.choices[0].message
        self.said += [message.model_dump(exclude_none=True), {
            "role": "tool", "tool_call_id": message.tool_calls[0].id, "content": result}]


class Responses:
    TOOLS = [{"type": "function", "strict": False, **f} for f in FUNCTIONS]

    def __init__(self, main, client):
        self.client, self.said, self.answer = client, [{"role": "user", "content": QUESTION}], None

    def ask(self, choice, stream):
        asked = {"model": "lexicon", "input": self.said, "tools": self.TOOLS, "max_output_tokens": LENGTH,
                 "tool_choice": choice if choice in ("auto", "required") else {
                     "type": "function", "name": choice}, "extra_body": SEED, **HEAT}
        if stream:
            with self.client.responses.stream(**asked) as events:
                answer = events.get_final_response()
        else:
            answer = self.answer = self.client.responses.create(**asked)
        calls = [(i.name, json.loads(i.arguments)) for i in answer.output if i.type == "function_call"]
        return Turn(answer.output_text, calls, answer.usage.input_tokens, answer.usage.output_tokens)

    def give(self, result):
        call = self.answer.output[-1]
        self.said += [i.model_dump(exclude_none=True) for i in self.answer.output]
        self.said.append({"type": "function_call_output", "call_id": call.call_id, "output": result})


class Messages:
    TOOLS = [{"name": f["name"], "description": f["description"], "input_schema": f["parameters"]}
             for f in FUNCTIONS]

    def __init__(self, main, client):
        self.client = anthropic.Anthropic(base_url=f"http://{main.http}", api_key="none", max_retries=0,
                                          timeout=60 * server.FACTOR)
        self.said, self.answer = [{"role": "user", "content": QUESTION}], None

    def ask(self, choice, stream):
        choices = {"auto": {"type": "auto"}, "required": {"type": "any"}}
        asked = {"model": "lexicon", "messages": self.said, "tools": self.TOOLS, "max_tokens": LENGTH,
                 "tool_choice": choices.get(choice, {"type": "tool", "name": choice}),
                 "thinking": {"type": "adaptive"}, "extra_body": {**SEED, **HEAT}}
        if stream:
            with self.client.messages.stream(**asked) as events:
                answer = events.get_final_message()
        else:
            answer = self.answer = self.client.messages.create(**asked)
        calls = [(b.name, b.input) for b in answer.content if b.type == "tool_use"]
        return Turn("".join(b.text for b in answer.content if b.type == "text"), calls,
                    answer.usage.input_tokens + answer.usage.cache_read_input_tokens,
                    answer.usage.output_tokens)

    def give(self, result):
        call = self.answer.content[-1]
        self.said += [{"role": "assistant", "content": self.answer.content}, {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": call.id, "content": result}]}]


# Under a sanitizer masks take long: one of them there, the one whose bodies are translated most.
@pytest.mark.parametrize("api", [Chat, Responses, Messages] if server.FACTOR == 1 else [Messages])
def test_three_turns_with_two_tools(main, client, api):
    three_turns(client, api(main, client))
