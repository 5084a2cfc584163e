"""A Qwen2 checkpoint, whose chat template is not known: text is continued, chat refused.

Its weights are the oracle's random ones, its tokenizer the shipped model's, so only the ids below the
model's vocabulary, the bytes among them, mean anything to it.
"""

import json
import shutil

import grpc
import inference_pb2 as pb
import inference_pb2_grpc
import openai
import pytest

import server

GOLDEN = server.TOP / "tests/golden/oracle/qwen2"
WARNING = "unknown chat template with SHA-256 "
REFUSAL = "a chat template that is not known here: text can be continued, conversations cannot"


@pytest.fixture(scope="module")
def told():
    """The golden's prompt and greedy continuation."""
    return json.loads((GOLDEN / "golden.json").read_text())


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen2")
    model = folder / "model"
    model.mkdir()
    for path in (*GOLDEN.glob("*config.json"), *GOLDEN.glob("*.safetensors"),
                 server.MODEL / "tokenizer.json"):
        shutil.copy(path, model)
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    running = server.Direct(folder, model={"path": model, "name": "qwen2"},
                            limits={"context": 256, "kv": "f32"})
    yield running
    running.stop()
    said = (folder / "coordinator.stderr").read_text()
    assert said.count(WARNING) == 1, said


@pytest.fixture(scope="module")
def dense(qwen2):
    with openai.OpenAI(base_url=f"http://{qwen2.http}/v1", api_key="none", max_retries=0,
                       timeout=60 * server.FACTOR) as made:
        yield made


def test_token_ids_are_continued_as_the_reference_does(qwen2, told):
    asked = pb.GenerateRequest(token_ids=pb.TokenIds(ids=told["prompt"]), ignore_eos=True,
                               max_tokens=len(told["greedy"]),
                               sampling=pb.Sampling(temperature=pb.Float(value=0)))
    with grpc.insecure_channel(qwen2.grpc) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        parts = list(stub.Generate(asked, timeout=60 * server.FACTOR))
    assert [i for part in parts for i in part.delta.ids] == told["greedy"]


def test_text_is_continued(dense):
    answers = {dense.completions.create(model="qwen2", prompt="Q", max_tokens=8,
                                        temperature=0).choices[0].text for _ in range(2)}
    assert len(answers) == 1


def test_conversations_are_refused(dense):
    with pytest.raises(openai.BadRequestError, match=REFUSAL):
        dense.chat.completions.create(model="qwen2", messages=[{"role": "user", "content": "Q"}])
