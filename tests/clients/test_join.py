"""Who may attach as a rank: only who has this cluster's certificate for that very group."""

import shutil
import threading
from pathlib import Path

import cluster_pb2 as pb
import cluster_pb2_grpc
import grpc
import inference_pb2
import inference_pb2_grpc
import pytest

import server

COORDINATOR_NAME = "coordinator.witan"


@pytest.fixture(scope="module")
def waiting(tmp_path_factory):
    """A coordinator that waits for the one rank of its group; whoever comes in the end, none may
    have joined."""
    running = server.Direct(tmp_path_factory.mktemp("waiting"), workers=False)
    yield running
    assert group_state(running) == ("waiting for ranks", 0)
    running.stop()


def group_state(running) -> tuple[str, int]:
    with grpc.insecure_channel(running.grpc) as channel:
        admin = inference_pb2_grpc.AdminStub(channel)
        (group,) = admin.GetStatus(inference_pb2.GetStatusRequest()).groups
        return group.state, len(group.ranks)


def take(folder: Path, ca: Path, pair: Path) -> Path:
    """A folder as a worker reads it, of certificates that were made for something else."""
    folder.mkdir()
    shutil.copy(ca, folder / "ca.pem")
    if pair:
        shutil.copy(pair.with_suffix(".pem"), folder / "worker.pem")
        shutil.copy(pair.with_suffix(".key"), folder / "worker.key")
    return folder


@pytest.fixture(scope="module")
def imposters(waiting, tmp_path_factory) -> dict[str, Path]:
    """Folders that a rank could come with, by what is wrong with them."""
    base, ours = tmp_path_factory.mktemp("imposters"), waiting.pki
    theirs = server.make_pki(base / "theirs")
    server.witan("pki", "issue", ours, "--role", "worker", "--out", base / "issued", "--file",
                 "other-group", "--group", "g7")
    server.witan("pki", "issue", ours, "--role", "worker", "--out", base / "issued", "--file",
                 "other-rank", "--group", server.GROUP, "--rank", "3")
    return {
        "no certificate": take(base / "a", ours / "ca.pem", None),
        "another cluster": take(base / "b", theirs / "ca.pem", theirs / "worker"),
        "another cluster, our root": take(base / "c", ours / "ca.pem", theirs / "worker"),
        "a door": take(base / "d", ours / "door-ca.pem", ours / "door"),
        "a door, the cluster's root": take(base / "e", ours / "ca.pem", ours / "door"),
        "the coordinator": take(base / "f", ours / "ca.pem", ours / "coordinator"),
        "another group": take(base / "g", ours / "ca.pem", base / "issued" / "other-group"),
        "another rank": take(base / "h", ours / "ca.pem", base / "issued" / "other-rank"),
    }


def test_no_worker_joins_with_a_wrong_folder(waiting, imposters):
    # All at once: those whom TLS refuses cannot tell that from an absent coordinator and try again.
    started = {name: waiting.start_worker(f"worker-{number}", folder)
               for number, (name, folder) in enumerate(imposters.items())}
    for name, process in started.items():
        code = process.wait(45)
        said = process.said()
        assert code == 1, f"{name}: exit code {code}: {said}"
        assert said.splitlines()[-1].startswith("witan-worker: "), f"{name}: {said}"
        assert not server.REPORT.search(said), f"{name}: {said}"
    said = {name: process.said() for name, process in started.items()}
    assert "worker.pem" in said["no certificate"]
    assert "g7" in said["another group"]
    assert group_state(waiting) == ("waiting for ranks", 0)


def test_an_unknown_group_and_no_folder_at_all(waiting, tmp_path):
    for name, tls, group, word in (("none", tmp_path / "none", server.GROUP, "none"),
                                   ("unknown", waiting.pki, "g7", "g7")):
        process = waiting.start_worker(name, tls, group)
        process.check(expect=1)
        assert word in process.said()
    assert group_state(waiting) == ("waiting for ranks", 0)


def hello(group: str = server.GROUP) -> pb.RankMessage:
    return pb.RankMessage(hello=pb.Hello(
        protocol_version=1, software_version="0.1.0", group=group, incarnation=1, rank=0, world=1,
        host="imposter", pid=1, numerics_class="cpu-1",
        hardware=pb.Hardware(processor="none", kernels="none", cores=1, ranks_here=1,
                             memory_bytes=1 << 33)))


def attach(address: str, folder: Path | None, message: pb.RankMessage) -> grpc.RpcError:
    """Attaches by grpcio, which trusts our coordinator whatever certificate it shows itself."""
    if folder is None:
        channel = grpc.insecure_channel(address)
    else:
        key, cert = ((folder / f"worker.{kind}").read_bytes() if (folder / f"worker.{kind}").exists()
                     else None for kind in ("key", "pem"))
        credentials = grpc.ssl_channel_credentials((folder / "trust.pem").read_bytes(), key, cert)
        channel = grpc.secure_channel(address, credentials, (
            ("grpc.ssl_target_name_override", COORDINATOR_NAME),))
    ended = threading.Event()

    def says():
        yield message
        ended.wait(20 * server.FACTOR)  # a rank that has said all would end the stream itself

    with channel, pytest.raises(grpc.RpcError) as refused:
        for answer in cluster_pb2_grpc.ClusterStub(channel).Attach(
                says(), timeout=20 * server.FACTOR):
            raise AssertionError(f"the coordinator answers {answer}")
    ended.set()
    return refused.value


def test_no_client_joins_with_a_wrong_certificate(waiting, imposters):
    for name, folder in imposters.items():
        shutil.copy(waiting.pki / "ca.pem", folder / "trust.pem")
        error = attach(waiting.cluster, folder, hello())
        by_name = name in ("another group", "another rank", "the coordinator")
        expected = grpc.StatusCode.PERMISSION_DENIED if by_name else grpc.StatusCode.UNAVAILABLE
        assert error.code() == expected, f"{name}: {error}"
        assert group_state(waiting) == ("waiting for ranks", 0)


def test_no_client_joins_without_tls(waiting):
    assert attach(waiting.cluster, None, hello()).code() == grpc.StatusCode.UNAVAILABLE


@pytest.fixture(scope="module")
def member(waiting, tmp_path_factory) -> Path:
    """A folder that may attach."""
    folder = take(tmp_path_factory.mktemp("member") / "tls", waiting.pki / "ca.pem",
                  waiting.pki / "worker")
    shutil.copy(waiting.pki / "ca.pem", folder / "trust.pem")
    return folder


def changed(**fields) -> pb.RankMessage:
    message = hello()
    for name, value in fields.items():
        setattr(message.hello, name, value)
    return message


@pytest.mark.parametrize("message,code", [
    (changed(protocol_version=99), grpc.StatusCode.FAILED_PRECONDITION),
    (changed(world=2), grpc.StatusCode.FAILED_PRECONDITION),
    (changed(rank=1), grpc.StatusCode.FAILED_PRECONDITION),
    (changed(group="g7"), grpc.StatusCode.PERMISSION_DENIED),
    (changed(numerics_class="abacus-1"), grpc.StatusCode.FAILED_PRECONDITION),
    (pb.RankMessage(ready=pb.Ready()), grpc.StatusCode.INVALID_ARGUMENT),
    (pb.RankMessage(), grpc.StatusCode.INVALID_ARGUMENT),
], ids=["version", "world", "rank", "group", "class", "ready before hello", "empty"])
def test_a_member_must_say_what_fits(waiting, member, message, code):
    error = attach(waiting.cluster, member, message)
    assert error.code() == code, error
    assert group_state(waiting) == ("waiting for ranks", 0)


def test_inference_is_not_on_the_ranks_port(waiting, member):
    credentials = grpc.ssl_channel_credentials((member / "trust.pem").read_bytes(),
                                               (member / "worker.key").read_bytes(),
                                               (member / "worker.pem").read_bytes())
    with grpc.secure_channel(waiting.cluster, credentials, (
            ("grpc.ssl_target_name_override", COORDINATOR_NAME),)) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            stub.ListModels(inference_pb2.ListModelsRequest(), timeout=20 * server.FACTOR)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_who_belongs_joins_in_the_end(tmp_path):
    running = server.Direct(tmp_path / "cluster")
    assert group_state(running) == ("ready", 1)
    running.stop()
