"""grpcio's client against the gRPC door."""

import grpc
import health_pb2
import health_pb2_grpc
import inference_pb2 as pb
import pytest

import server
from ask import chat_text, messages, question

LONG = server.CONTEXT - 100


def conversation(entry: dict) -> pb.Conversation:
    return pb.Conversation(messages=[pb.Message(role="user", content=question(entry))])


def sampling(temperature: float, seed: int | None = None) -> pb.Sampling:
    made = pb.Sampling(temperature=pb.Float(value=temperature))
    if seed is not None:
        made.seed.value = seed
    return made


def collect(call) -> tuple[str, list[int], pb.Finished]:
    """Text, ids and the end of an answer; nothing may come after the end."""
    text, ids, finished = "", [], None
    for response in call:
        assert finished is None, "a message after Finished"
        if response.WhichOneof("body") == "finished":
            finished = response.finished
        else:
            text += response.delta.text
            ids += response.delta.ids
    assert finished is not None
    return text, ids, finished


def refusal(call) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    return error.value


def test_conversation(inference, lighthouse):
    asked = pb.GenerateRequest(conversation=conversation(lighthouse), sampling=sampling(0))
    text, ids, finished = collect(inference.Generate(asked))
    assert text == lighthouse["answer"]
    assert finished.reason == "stop" and finished.request_id
    assert finished.completion_tokens == len(ids) and finished.prompt_tokens > 5


def test_text_comes_in_pieces(inference):
    asked = pb.GenerateRequest(text="A lighthouse is", max_tokens=12, ignore_eos=True,
                               sampling=sampling(0), model="lexicon")
    pieces = [r.delta for r in inference.Generate(asked) if r.HasField("delta")]
    assert len(pieces) > 6
    assert sum(len(p.ids) for p in pieces) == 12
    assert "".join(p.text for p in pieces).strip()


def test_token_ids_and_text_agree(inference, client):
    text = "A lighthouse is"
    ids = client.post("/../tokenize", body={"prompt": text}, cast_to=dict)["tokens"]
    shared = {"max_tokens": 12, "sampling": sampling(1.0, 3)}
    from_text = collect(inference.Generate(pb.GenerateRequest(text=text, **shared)))
    from_ids = collect(inference.Generate(
        pb.GenerateRequest(token_ids=pb.TokenIds(ids=ids), **shared)))
    assert from_text[:2] == from_ids[:2]
    bare = collect(inference.Generate(pb.GenerateRequest(text=text, token_ids_only=True, **shared)))
    assert (bare[0], bare[1]) == ("", from_text[1])
    assert from_text[2].prompt_tokens == len(ids)


def test_length_and_stop(inference, lighthouse):
    cut = pb.GenerateRequest(conversation=conversation(lighthouse), max_tokens=6,
                             sampling=sampling(0))
    text, ids, finished = collect(inference.Generate(cut))
    assert finished.reason == "length" and len(ids) == 6 == finished.completion_tokens
    assert lighthouse["answer"].startswith(text)
    stopped = pb.GenerateRequest(conversation=conversation(lighthouse), stop=[" tower"],
                                 sampling=sampling(0))
    text, _, finished = collect(inference.Generate(stopped))
    assert (text, finished.reason) == (lighthouse["answer"].split(" tower")[0], "stop")


def test_a_drawn_seed_is_told(inference):
    asked = {"text": "A river is", "max_tokens": 16, "ignore_eos": True}
    text, ids, finished = collect(inference.Generate(
        pb.GenerateRequest(sampling=sampling(1.2), **asked)))
    again = collect(inference.Generate(
        pb.GenerateRequest(sampling=sampling(1.2, finished.seed), **asked)))
    assert again[:2] == (text, ids)


@pytest.mark.parametrize("temperature,seed", [(0, 1), (0.7, 41), (1.0, 2**53), (1.5, 0)])
def test_both_doors_give_one_answer(inference, client, lighthouse, temperature, seed):
    text, _, finished = collect(inference.Generate(pb.GenerateRequest(
        conversation=conversation(lighthouse), max_tokens=24,
        sampling=sampling(temperature, seed))))
    asked = {"model": "lexicon", "messages": messages(lighthouse), "max_tokens": 24,
             "temperature": temperature, "seed": seed}
    answer = client.chat.completions.create(**asked)
    assert answer.choices[0].message.content == text
    assert answer.choices[0].finish_reason == finished.reason
    assert answer.usage.completion_tokens == finished.completion_tokens
    assert answer.usage.prompt_tokens == finished.prompt_tokens
    assert chat_text(client.chat.completions.create(stream=True, **asked)) == text


def test_deadline(inference, status, until_idle):
    before = status().groups[0].tokens
    asked = pb.GenerateRequest(text="A cat is", max_tokens=LONG, ignore_eos=True,
                               sampling=sampling(0))
    error = refusal(inference.Generate(asked, timeout=0.05))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    until_idle()
    assert status().groups[0].tokens < before + LONG


def test_cancel(inference, status, until_idle):
    before = status().groups[0].tokens
    call = inference.Generate(pb.GenerateRequest(text="A cat is", max_tokens=LONG, ignore_eos=True,
                                                 sampling=sampling(0)))
    next(call)
    assert status().requests_running == 1
    call.cancel()
    until_idle()
    assert status().groups[0].tokens < before + LONG


def test_unknown_method(channel):
    call = channel.unary_unary("/witan.inference.v1.Inference/Prophesy")
    with pytest.raises(grpc.RpcError) as error:
        call(b"", timeout=20 * server.FACTOR)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("message,code", [
    (b"\xff\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
    (b"\x12\x7f" + b"cut short", grpc.StatusCode.INVALID_ARGUMENT),
    (b"\x12\x04" + b"\xff\xfe\xc0\x80", grpc.StatusCode.INVALID_ARGUMENT),
    (pb.GenerateRequest(text="A cat\0 and a dog").SerializeToString(),
     grpc.StatusCode.INVALID_ARGUMENT),
    (pb.GenerateRequest(text="A cat", stop=["x", "\0"]).SerializeToString(),
     grpc.StatusCode.INVALID_ARGUMENT),
    (pb.GenerateRequest(conversation=pb.Conversation(messages=[
        pb.Message(role="user", content="A\0cat")])).SerializeToString(),
     grpc.StatusCode.INVALID_ARGUMENT),
    (b"\x12\x80\x80\x80\x09" + bytes(18 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED),
], ids=["garbage", "truncated", "not UTF-8", "a NUL", "a NUL in a list", "a NUL further in",
        "over the limit"])
def test_bytes_that_are_no_message(channel, inference, message, code):
    call = channel.unary_stream("/witan.inference.v1.Inference/Generate")
    error = refusal(call(message, timeout=20 * server.FACTOR))
    assert error.code() == code, error.details()
    assert inference.ListModels(pb.ListModelsRequest()).models[0].name == "lexicon"


@pytest.mark.parametrize("words,asked", [
    ("input", pb.GenerateRequest()),
    ("temperature", pb.GenerateRequest(text="A cat", sampling=sampling(-1))),
    ("temperature", pb.GenerateRequest(text="A cat", sampling=sampling(float("nan")))),
    ("top_p", pb.GenerateRequest(text="A cat", sampling=pb.Sampling(top_p=pb.Float(value=2)))),
    ("max_tokens", pb.GenerateRequest(text="A cat", max_tokens=-1)),
    ("prompt", pb.GenerateRequest(text="")),
    ("prompt", pb.GenerateRequest(token_ids=pb.TokenIds(ids=[1, 999999]))),
    ("prompt", pb.GenerateRequest(token_ids=pb.TokenIds(ids=[-5]))),
    ("context", pb.GenerateRequest(text="word " * 3000)),
    ("stop", pb.GenerateRequest(text="A cat", stop=["x"] * 17)),
    ("messages", pb.GenerateRequest(conversation=pb.Conversation())),
    ("role", pb.GenerateRequest(conversation=pb.Conversation(
        messages=[pb.Message(role="wizard", content="What is a cat?")]))),
])
def test_bad_requests_name_the_field(inference, words, asked):
    error = refusal(inference.Generate(asked))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert words in error.details()


def test_unknown_model(inference):
    error = refusal(inference.Generate(pb.GenerateRequest(model="atlas", text="A cat")))
    assert error.code() == grpc.StatusCode.NOT_FOUND and "atlas" in error.details()


def test_health(channel):
    health = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in ("", "witan.inference.v1.Inference"):
        assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == serving
    with pytest.raises(grpc.RpcError) as error:
        health.Check(health_pb2.HealthCheckRequest(service="witan.Oracle"))
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=60 * server.FACTOR)
    assert next(watch).status == serving
    watch.cancel()
    unknown = health.Watch(health_pb2.HealthCheckRequest(service="witan.Oracle"),
                           timeout=60 * server.FACTOR)
    assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    unknown.cancel()


def test_list_models(inference, client):
    models = inference.ListModels(pb.ListModelsRequest()).models
    assert [m.name for m in models] == [m.id for m in client.models.list().data]
    assert models[0].context == server.CONTEXT
    assert 2500 < models[0].vocabulary <= 2816


def test_status(inference, status, until_idle):
    until_idle()
    before = status()
    collect(inference.Generate(pb.GenerateRequest(text="A cat is", max_tokens=5, ignore_eos=True)))
    until_idle()
    now = status()
    assert now.requests_done == before.requests_done + 1
    assert now.model == "lexicon" and now.version
    (group,) = now.groups
    ranks = 1 if server.MODE == "direct" else 2
    assert group.state == "ready" and f"tp={ranks}" in group.layout
    assert group.tokens >= before.groups[0].tokens + 5
    assert group.kv_blocks_free == group.kv_blocks > 0
    assert 0 <= group.proven_seconds_ago < 60 * server.FACTOR
    assert sorted(r.rank for r in group.ranks) == list(range(ranks))
    for rank in group.ranks:
        assert rank.pid > 0 and rank.host and rank.holds and rank.resident_bytes > 0
