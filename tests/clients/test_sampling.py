"""Sampling and logprobs through OpenAI's client and grpcio: what a parameter does to real answers."""

import math

import grpc
import inference_pb2 as pb
import openai
import pytest

import server
from ask import chat_text, completion_text, messages, question

GREEDY = {"model": "lexicon", "temperature": 0}
WARM = {"model": "lexicon", "temperature": 2.5, "top_p": 1, "max_tokens": 16}
OFF = {"top_k": 0}  # of extra_body


def ids_of(client, text: str) -> list[int]:
    return client.post("/../tokenize", body={"prompt": text}, cast_to=dict)["tokens"]


def text_of(client, ids: list[int]) -> str:
    return client.post("/../detokenize", body={"tokens": ids}, cast_to=dict)["prompt"]


def generate(inference, **asked) -> tuple[list[int], list, list, pb.Finished]:
    """Ids, their logprobs, the prompt's, and the end."""
    ids, logprobs, prompt, finished = [], [], [], None
    for response in inference.Generate(pb.GenerateRequest(**asked), timeout=60 * server.FACTOR):
        if response.WhichOneof("body") == "finished":
            finished = response.finished
        else:
            assert not (prompt and ids and response.delta.prompt_logprobs)
            ids += response.delta.ids
            logprobs += response.delta.logprobs
            prompt += response.delta.prompt_logprobs
    return ids, logprobs, prompt, finished


def greedy(**fields) -> pb.Sampling:
    return pb.Sampling(temperature=pb.Float(), **fields)


def single(value: float) -> float:
    """As the 32 bits that the server computes with."""
    return pb.Float(value=value).value


# --- what changes the draw ---


def test_a_bias_forces_and_forbids(client):
    prompt = "A lighthouse is"
    asked = {"prompt": prompt, "max_tokens": 4, **GREEDY}
    forced = ids_of(client, " tower")[0]
    answer = client.completions.create(logit_bias={str(forced): 100}, **asked)
    assert answer.choices[0].text == text_of(client, [forced] * 4)
    plain = client.completions.create(logprobs=0, **asked).choices[0]
    first = ids_of(client, plain.logprobs.tokens[0])[0]
    without = client.completions.create(logprobs=0, logit_bias={str(first): -100}, **asked)
    tokens = without.choices[0].logprobs.tokens
    assert plain.logprobs.tokens[0] not in tokens
    # Logprobs are the model's own: what was forced is no likelier than before.
    scored = client.completions.create(logprobs=0, logit_bias={str(forced): 100}, **asked)
    assert scored.choices[0].logprobs.token_logprobs[0] < plain.logprobs.token_logprobs[0]


@pytest.mark.parametrize("penalty", [{"presence_penalty": 2}, {"frequency_penalty": 2},
                                     {"extra_body": {"repetition_penalty": 3}}])
def test_penalties_make_words_come_back_less(client, penalty):
    extra = {"ignore_eos": True, **penalty.get("extra_body", {})}
    asked = {"prompt": "A cat is", "max_tokens": 96, "logprobs": 0, **GREEDY}
    plain = client.completions.create(extra_body={"ignore_eos": True}, **asked)
    less = client.completions.create(**{**asked, **penalty, "extra_body": extra})
    distinct = [len(set(a.choices[0].logprobs.tokens)) for a in (plain, less)]
    assert distinct[1] > distinct[0], distinct


def test_a_penalty_below_zero_brings_words_back(client):
    asked = {"model": "lexicon", "prompt": "A cat is", "max_tokens": 48, "logprobs": 0, "n": 4,
             "seed": 3, "temperature": 1.5, "top_p": 1, "extra_body": {"ignore_eos": True, **OFF}}
    plain, more = (client.completions.create(frequency_penalty=penalty, **asked)
                   for penalty in (0, -2))
    distinct = [sum(len(set(c.logprobs.tokens)) for c in a.choices) for a in (plain, more)]
    assert distinct[1] < distinct[0], distinct


def test_stop_ids_and_min_tokens(client, inference, lighthouse):
    asked = {"messages": messages(lighthouse), **GREEDY}
    conversation = pb.Conversation(messages=[pb.Message(role="user",
                                                        content=question(lighthouse))])
    ids, _, _, _ = generate(inference, conversation=conversation, sampling=greedy())
    where = next(i for i in range(12, len(ids)) if ids[i] not in ids[:i])
    stop = {"stop_token_ids": [ids[where]]}
    answer = client.chat.completions.create(extra_body=stop, **asked)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == where + 1
    said = text_of(client, ids[:where]).split("</think>")[-1].lstrip("\n")
    assert said and answer.choices[0].message.content == said
    least = len(ids) + 8
    longer = client.chat.completions.create(extra_body={**stop, "min_tokens": least}, **asked)
    assert longer.usage.completion_tokens >= least
    _, _, _, finished = generate(inference, conversation=conversation, sampling=greedy(
        stop_token_ids=[ids[where]]))
    assert (finished.reason, finished.completion_tokens) == ("stop", where + 1)


def test_n_answers_are_those_of_n_seeds(client):
    asked = {"prompt": "A river is", "extra_body": OFF, **WARM}
    four = client.completions.create(n=4, seed=11, **asked)
    alone = [client.completions.create(seed=11 + i, **asked).choices[0].text for i in range(4)]
    assert [c.text for c in four.choices] == alone
    assert len(set(alone)) > 1


def test_a_seed_decides_with_everything_on(client, lighthouse):
    asked = {"messages": messages(lighthouse), "seed": 5, "presence_penalty": 0.5,
             "frequency_penalty": 0.25, "logit_bias": {"40": 2, "41": -3},
             "extra_body": {"repetition_penalty": 1.3, "min_tokens": 4, "stop_token_ids": [44],
                            **OFF}, **WARM}
    first, again = (client.chat.completions.create(**asked) for _ in range(2))
    assert first.choices[0].message.content == again.choices[0].message.content
    streamed = chat_text(client.chat.completions.create(stream=True, **asked))
    assert streamed == first.choices[0].message.content


def test_the_likeliest_of_many_is_told(client):
    asked = {"prompt": "A river is", "seed": 21, "extra_body": OFF, **WARM}
    all_of_them = client.completions.create(n=6, logprobs=0, **asked).choices

    def mean(choice):
        return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)
    order = sorted(range(6), key=lambda i: -mean(all_of_them[i]))
    raw = client.completions.with_raw_response.create(n=2, best_of=6, **asked)
    best = raw.parse()
    assert [c.text for c in best.choices] == [all_of_them[i].text for i in order[:2]]
    assert raw.headers["x-witan-seed"] == ",".join(str(21 + i) for i in order[:2])
    assert best.usage.completion_tokens > 2 * 16
    assert best.choices[0].logprobs is None


def test_what_was_asked_before_is_told(client, inference):
    system = "".join(f"Rule {i}: {i * 7919 % 1000} is no word. " for i in range(20))
    asked = {"messages": [{"role": "system", "content": system},
                          {"role": "user", "content": "What is a cat?"}], "max_tokens": 4}
    first, second = (client.chat.completions.create(**asked, **GREEDY).usage for _ in range(2))
    assert first.prompt_tokens == second.prompt_tokens > 128
    assert first.prompt_tokens_details.cached_tokens == 0
    cached = second.prompt_tokens_details.cached_tokens
    assert 64 <= cached < second.prompt_tokens and cached % 64 == 0
    conversation = pb.Conversation(messages=[pb.Message(role=m["role"], content=m["content"])
                                             for m in asked["messages"]])
    _, _, _, finished = generate(inference, conversation=conversation, sampling=greedy(),
                                 max_tokens=4)
    assert finished.cached_tokens == cached


# --- logprobs ---


def test_chat_logprobs(client, lighthouse):
    answer = client.chat.completions.create(messages=messages(lighthouse), logprobs=True,
                                            top_logprobs=5, **GREEDY)
    content = answer.choices[0].logprobs.content
    thought = answer.choices[0].logprobs.model_extra["reasoning_content"]
    assert answer.choices[0].logprobs.refusal is None
    assert bytes(b for t in content for b in t.bytes).decode() == lighthouse["answer"]
    assert "".join(t.token for t in content) == lighthouse["answer"]
    assert "".join(t["token"] for t in thought).strip() == "<think>\n\n</think>"
    # The end token is neither.
    assert answer.usage.completion_tokens == len(thought) + len(content) + 1
    for token in content:
        assert len(token.top_logprobs) == 5
        best = token.top_logprobs[0]
        assert (token.token, token.logprob, token.bytes) == (best.token, best.logprob, best.bytes)
        values = [t.logprob for t in token.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert sum(map(math.exp, values)) <= 1 + 1e-5


def test_streamed_logprobs_are_those_of_the_whole(client, lighthouse):
    for asked in ({"stop": " tower"}, {"temperature": 2.5, "seed": 9, "extra_body": OFF}):
        asked = {"messages": messages(lighthouse), "logprobs": True, "top_logprobs": 2,
                 "max_tokens": 24, **GREEDY, **asked}
        whole = client.chat.completions.create(**asked).choices[0]
        said, listed = "", []
        for chunk in client.chat.completions.create(stream=True, **asked):
            choice = chunk.choices[0]
            said += choice.delta.content or ""
            listed += choice.logprobs.content if choice.logprobs else []
            # At no time does a list run ahead of its text, but by what is no character yet.
            told = b"".join(bytes(t.bytes) for t in listed)
            assert said.encode().startswith(told[:len(said.encode())]) or "\ufffd" in said
        assert said == whole.message.content
        assert [t.model_dump() for t in listed] == [t.model_dump()
                                                    for t in whole.logprobs.content]


def test_completion_logprobs_lie_in_the_text(client):
    asked = {"prompt": "A lighthouse is", "max_tokens": 12, "logprobs": 3, "seed": 4, **GREEDY}
    for echo in (False, True):
        choice = client.completions.create(echo=echo, **asked).choices[0]
        lists = choice.logprobs
        assert len(lists.tokens) == len(lists.token_logprobs) == len(lists.top_logprobs)
        assert choice.text.startswith("A lighthouse is") == echo
        ends = [*lists.text_offset[1:], len(choice.text)]
        for i, token in enumerate(lists.tokens):
            assert choice.text[lists.text_offset[i]:ends[i]] in (token, "")
        assert (lists.token_logprobs[0] is None) == echo
        assert all(max(top.values()) == top[token] == logprob for token, top, logprob in
                   list(zip(lists.tokens, lists.top_logprobs, lists.token_logprobs))[-12:])
    streamed = list(client.completions.create(stream=True, **asked))
    tokens = [t for c in streamed if c.choices[0].logprobs for t in c.choices[0].logprobs.tokens]
    assert tokens == client.completions.create(**asked).choices[0].logprobs.tokens
    assert completion_text(streamed) == client.completions.create(**asked).choices[0].text


def test_the_end_of_a_completion_is_listed(client, inference):
    ids, _, _, _ = generate(inference, text="A lighthouse is", max_tokens=6, ignore_eos=True,
                            sampling=greedy())
    end = next(i for i in range(2, 6) if ids[i] not in ids[:i])
    answer = client.completions.create(prompt="A lighthouse is", max_tokens=6, logprobs=1,
                                       extra_body={"stop_token_ids": [ids[end]]}, **GREEDY)
    choice = answer.choices[0]
    assert (choice.finish_reason, choice.text) == ("stop", text_of(client, ids[:end]))
    assert choice.logprobs.tokens == [text_of(client, [i]) for i in ids[:end + 1]]
    assert choice.logprobs.text_offset[-1] == len(choice.text)
    assert answer.usage.completion_tokens == end + 1


def test_harnesses_score_a_continuation(client):
    """As lm-evaluation-harness does: echo, logprobs and one token more, which it drops."""
    context, continuation = "A lighthouse is", " a tower with a light"
    start = len(ids_of(client, context))
    scores = {}
    for most in (0, 1):
        choice = client.completions.create(prompt=context + continuation, echo=True, logprobs=1,
                                           max_tokens=most, **GREEDY).choices[0]
        lists = choice.logprobs
        whole = lists.token_logprobs[:len(lists.tokens) - most]
        assert len(whole) == len(ids_of(client, context + continuation))
        scores[most] = whole[start:]
        assert all(x <= 0 for x in scores[most])
        assert choice.finish_reason == "length"
    assert scores[0] == scores[1]


def test_what_was_drawn_is_scored_the_same(client, inference):
    """Logprobs of drawn tokens are bit for bit those of the same tokens in a prompt."""
    prompt = ids_of(client, "A river is")
    sampling = pb.Sampling(temperature=pb.Float(value=2.5), top_p=pb.Float(value=1), top_k=pb.Int(),
                           presence_penalty=pb.Float(value=1), seed=pb.Seed(value=17))
    ids, drawn, _, _ = generate(inference, token_ids=pb.TokenIds(ids=prompt), max_tokens=20,
                                ignore_eos=True, sampling=sampling, logprobs=pb.Int(value=3))
    assert len(ids) == len(drawn) == 20
    _, _, scored, _ = generate(inference, token_ids=pb.TokenIds(ids=prompt + ids), max_tokens=1,
                               prompt_logprobs=pb.Int(value=3))
    assert len(scored) == len(prompt) + len(ids) - 1
    assert scored[len(prompt) - 1:] == drawn
    assert any(d.rank > 1 for d in drawn)
    echoed = client.completions.create(prompt=prompt + ids, echo=True, logprobs=0, max_tokens=0,
                                       **GREEDY).choices[0].logprobs
    assert [single(x) for x in echoed.token_logprobs[len(prompt):]] == [d.logprob for d in drawn]


def test_both_doors_tell_the_same_logprobs(client, inference, lighthouse):
    conversation = pb.Conversation(messages=[pb.Message(role="user",
                                                        content=question(lighthouse))])
    ids, logprobs, prompt, finished = generate(
        inference, conversation=conversation, sampling=greedy(), logprobs=pb.Int(value=2),
        prompt_logprobs=pb.Int(), max_tokens=10)
    answer = client.chat.completions.create(messages=messages(lighthouse), logprobs=True,
                                            top_logprobs=2, max_tokens=10,
                                            extra_body={"prompt_logprobs": 0}, **GREEDY)
    told = answer.choices[0].logprobs
    listed = told.model_extra["reasoning_content"] + [t.model_dump() for t in told.content]
    assert [single(t["logprob"]) for t in listed] == [p.logprob for p in logprobs]
    assert [list(p.top_ids)[0] for p in logprobs] == ids and {p.rank for p in logprobs} == {1}
    told = answer.model_extra["prompt_logprobs"]
    assert told[0] is None and len(told) == finished.prompt_tokens == len(prompt) + 1
    for listed, p in zip(told[1:], prompt):
        (entry,) = listed.values()
        assert (single(entry["logprob"]), entry["rank"]) == (p.logprob, p.rank)
        assert p.rank >= 1 and not p.top_ids


def test_prompt_logprobs_of_completions(client):
    choice = client.completions.create(prompt="A lighthouse is", max_tokens=1,
                                       extra_body={"prompt_logprobs": 2}, **GREEDY).choices[0]
    ids = ids_of(client, "A lighthouse is")
    told = choice.model_extra["prompt_logprobs"]
    assert told[0] is None and len(told) == len(ids)
    for token, listed in zip(ids[1:], told[1:]):
        assert next(iter(listed)) == str(token)
        assert 2 <= len(listed) <= 3
        assert {1, 2} <= {e["rank"] for e in listed.values()}
        assert all(e["decoded_token"] == text_of(client, [int(i)]) for i, e in listed.items())


# --- what is refused ---


@pytest.mark.parametrize("field,wrong", [
    ("presence_penalty", {"presence_penalty": 3}),
    ("logit_bias", {"logit_bias": {"cat": 1}}),
    ("logit_bias", {"logit_bias": {"999999": 1}}),
    ("logit_bias", {"logit_bias": {"5": 1000}}),
    ("stop_token_ids", {"extra_body": {"stop_token_ids": [999999]}}),
    ("repetition_penalty", {"extra_body": {"repetition_penalty": 0}}),
    ("min_tokens", {"max_tokens": 3, "extra_body": {"min_tokens": 4}}),
    ("top_logprobs", {"top_logprobs": 3}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
    ("prompt_logprobs", {"stream": True, "extra_body": {"prompt_logprobs": 1}}),
    ("priority", {"extra_body": {"priority": 7}}),
])
def test_bad_sampling_names_the_field(client, lighthouse, field, wrong):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{"messages": messages(lighthouse), **GREEDY, **wrong})
    assert field in (refused.value.param or refused.value.body["message"])


def test_max_tokens_that_cannot_fit(client, inference, lighthouse):
    asked = {"messages": messages(lighthouse), **GREEDY}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(max_tokens=server.CONTEXT, **asked)
    assert refused.value.code == "context_length_exceeded"
    assert str(server.CONTEXT) in refused.value.body["message"]
    assert client.chat.completions.create(**asked).choices[0].message.content
    with pytest.raises(grpc.RpcError) as error:
        generate(inference, text="A cat is", max_tokens=server.CONTEXT)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "max_tokens" in error.value.details()


@pytest.mark.parametrize("words,asked", [
    ("repetition_penalty", {"sampling": greedy(repetition_penalty=pb.Float(value=0))}),
    ("frequency_penalty", {"sampling": greedy(frequency_penalty=pb.Float(value=-3))}),
    ("logit_bias[1]", {"sampling": greedy(logit_bias=[pb.LogitBias(id=1), pb.LogitBias(id=-1)])}),
    ("logit_bias", {"sampling": greedy(logit_bias=[pb.LogitBias(id=1, bias=float("nan"))])}),
    ("logit_bias", {"sampling": greedy(logit_bias=[pb.LogitBias()] * 1025)}),
    ("stop_token_ids", {"sampling": greedy(stop_token_ids=range(65))}),
    ("min_tokens", {"sampling": greedy(min_tokens=-1)}),
    ("min_tokens", {"max_tokens": 3, "sampling": greedy(min_tokens=4)}),
    ("logprobs", {"logprobs": pb.Int(value=21)}),
    ("prompt_logprobs", {"prompt_logprobs": pb.Int(value=-1)}),
    ("priority", {"priority": 2}),
])
def test_bad_sampling_over_grpc(inference, words, asked):
    with pytest.raises(grpc.RpcError) as error:
        generate(inference, text="A cat", **asked)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert words in error.value.details()
