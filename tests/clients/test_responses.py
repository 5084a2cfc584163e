"""The Responses API, by OpenAI's own client."""

import openai
import pytest

from ask import messages, question

GREEDY = {"model": "lexicon", "temperature": 0}


def test_responses_answer_exactly(client, entries):
    for entry in entries[:2]:
        response = client.responses.create(input=question(entry), **GREEDY)
        assert response.output_text == entry["answer"]
        assert (response.status, response.object, response.model) == ("completed", "response", "lexicon")
        assert response.id.startswith("resp_") and response.store is False
        item = response.output[-1]
        assert (item.type, item.role, item.status) == ("message", "assistant", "completed")


def test_stream_is_the_whole_response(client, lighthouse):
    asked = {"input": question(lighthouse), **GREEDY}
    whole = client.responses.create(**asked)
    events = list(client.responses.create(stream=True, **asked))
    types = [e.type for e in events]
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert types[:2] == ["response.created", "response.in_progress"]
    assert types[-1] == "response.completed"
    order = ["response.output_item.added", "response.content_part.added", "response.output_text.delta",
             "response.output_text.done", "response.content_part.done", "response.output_item.done"]
    assert [types.index(t) for t in order] == sorted(types.index(t) for t in order)
    assert types.count("response.output_text.delta") > 3
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    final = events[-1].response
    assert text == final.output_text == whole.output_text == lighthouse["answer"]
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.id == events[0].response.id
    done = next(e for e in events if e.type == "response.output_item.done")
    assert done.item.content[0].text == text and done.item.id == final.output[-1].id


def test_the_clients_stream_helper(client, lighthouse):
    with client.responses.stream(input=question(lighthouse), **GREEDY) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == lighthouse["answer"]


def test_usage_and_seed_are_the_chat_doors(client, lighthouse):
    system = "You are a dictionary."
    chat = client.chat.completions.create(
        messages=[{"role": "system", "content": system}, *messages(lighthouse)], model="lexicon",
        temperature=3, top_p=1, seed=11, max_tokens=20)
    response = client.responses.create(instructions=system, input=question(lighthouse), temperature=3,
                                       top_p=1, model="lexicon", max_output_tokens=20,
                                       extra_body={"seed": 11})
    assert response.output_text == chat.choices[0].message.content
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    assert response.usage.output_tokens == chat.usage.completion_tokens
    if chat.choices[0].finish_reason == "length":
        assert response.status == "incomplete"
        assert response.incomplete_details.reason == "max_output_tokens"


def test_a_conversation_of_items_goes_on(client, lighthouse, entries):
    river = next(e for e in entries if e["word"] == "river")
    first = client.responses.create(input=messages(lighthouse), **GREEDY)
    talk = [*messages(lighthouse), *(item.model_dump() for item in first.output),
            {"role": "user", "content": [{"type": "input_text", "text": "And a river?"}]}]
    assert client.responses.create(input=talk, **GREEDY).output_text == river["answer"]


@pytest.mark.parametrize("words,wrong", [
    ("previous_response_id: not supported", {"previous_response_id": "resp_1"}),
    ("background: not supported", {"background": True}),
    ("input[0].content[0].type: \"input_image\"",
     {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}),
    ("input[0].role", {"input": [{"role": "wizard", "content": "x"}]}),
    ("input: expected 1 to", {"input": []}),
    ("max_output_tokens: expected 1 to", {"max_output_tokens": 0}),
    ("tools[0].type: \"web_search\"", {"tools": [{"type": "web_search"}]}),
    ("reasoning.effort", {"reasoning": {"effort": "brute"}}),
])
def test_bad_requests_name_the_field(client, lighthouse, words, wrong):
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**{"input": question(lighthouse), **GREEDY, **wrong})
    assert words in refused.value.body["message"]
    assert refused.value.body["type"] == "invalid_request_error"


def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError):
        client.responses.create(input="x", model="atlas")
