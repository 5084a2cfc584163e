"""What deploy/ holds against schemas of others: Kubernetes' manifests, and the list of what the programs are made of."""
import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

TOP = Path(os.environ["WITAN_TOP"])
BIN = Path(os.environ["WITAN_BIN"])
FOLDER = TOP / "deploy/kubernetes"
VERSIONS = ["1.29", "1.34"]
# LeaderWorkerSet has no schema here: what its v1 has beside pod templates.
LWS = {"replicas", "leaderWorkerTemplate", "rolloutStrategy", "startupPolicy", "networkConfig"}
LWS_TEMPLATE = {"leaderTemplate", "workerTemplate", "size", "restartPolicy", "subGroupPolicy"}


def documents():
    found = []
    for path in sorted(FOLDER.glob("*.yaml")):
        found += [(path.name, d) for d in yaml.safe_load_all(path.read_text())]
    return found


def named(kind, name):
    (one,) = [d for _, d in documents() if d["kind"] == kind and d["metadata"]["name"] == name]
    return one


def templates():
    """Every pod template, with a name for it."""
    for name, d in documents():
        if d["kind"] in ("Deployment", "StatefulSet"):
            yield f"{name}: {d['metadata']['name']}", d["spec"]["template"]
        elif d["kind"] == "LeaderWorkerSet":
            for role in ("leaderTemplate", "workerTemplate"):
                yield f"{name}: {role}", d["spec"]["leaderWorkerTemplate"][role]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_schemas(version):
    import kubernetes_validate

    count = 0
    for name, d in documents():
        if d["kind"] != "LeaderWorkerSet":
            kubernetes_validate.validate(d, version, strict=True)
            count += 1
    for name, template in templates():
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
        kubernetes_validate.validate(pod, version, strict=True)
        count += 1
    assert count > 15
    wrong = json.loads(json.dumps(named("Deployment", "witan-coordinator")))
    wrong["spec"]["template"]["spec"]["containers"][0]["readOnly"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_leader_worker_set():
    d = named("LeaderWorkerSet", "witan-nodes")
    assert d["apiVersion"] == "leaderworkerset.x-k8s.io/v1"
    assert set(d["spec"]) <= LWS
    t = d["spec"]["leaderWorkerTemplate"]
    assert set(t) <= LWS_TEMPLATE
    assert t["restartPolicy"] == "RecreateGroupOnPodRestart"
    # As many ranks as the layout of g2 has.
    ranks = {e["value"] for role in ("leaderTemplate", "workerTemplate")
             for e in t[role]["spec"]["containers"][0]["env"] if e["name"] == "RANKS_PER_NODE"}
    (g2,) = [g for g in config()["groups"] if g["name"] == "g2"]
    assert {str(g2["pp"] * g2["tp"] // t["size"])} == ranks


def test_pods_are_restricted():
    """The pod security standard `restricted`, and more: what the page says of rights."""
    names = []
    for name, template in templates():
        names.append(name)
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["serviceAccountName"] == "witan", name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        s = pod["securityContext"]
        assert s["runAsNonRoot"] is True and s["runAsUser"] == s["fsGroup"] == 10001, name
        assert s["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for volume in pod["volumes"]:
            assert set(volume) - {"name"} <= {"configMap", "secret", "persistentVolumeClaim", "emptyDir"}, name
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440, name
            if "emptyDir" in volume:
                assert volume["emptyDir"]["medium"] == "Memory" and volume["emptyDir"]["sizeLimit"], name
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["readOnly"] is True, name
        for c in pod["containers"]:
            assert c["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                            "capabilities": {"drop": ["ALL"]}}, name
            assert c["resources"]["limits"]["memory"], name
            assert "latest" not in c["image"] and ":" in c["image"], name
            mounted = {m["name"] for m in c["volumeMounts"]}
            assert mounted == {v["name"] for v in pod["volumes"]}, name
    assert len(names) == 4


def test_names_refer_to_each_other():
    docs = [d for _, d in documents()]
    made = {(d["kind"], d["metadata"]["name"]) for d in docs}
    assert len(made) == len(docs)
    labels = [t["metadata"]["labels"] for _, t in templates()]
    for d in docs:
        assert d["metadata"].get("namespace", d["metadata"]["name"]) == "witan"
        spec = d.get("spec", {})
        if d["kind"] == "Service":
            assert any(spec["selector"].items() <= have.items() for have in labels), d["metadata"]["name"]
        if d["kind"] == "PodDisruptionBudget":
            assert any(spec["selector"]["matchLabels"].items() <= have.items() for have in labels)
        if d["kind"] in ("Deployment", "StatefulSet"):
            assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    # What the pages of secrets and maps name is made here, or by a command of README.md.
    commands = (FOLDER / "README.md").read_text()
    for _, template in templates():
        for volume in template["spec"]["volumes"]:
            secret = volume.get("secret", {}).get("secretName")
            plain = volume.get("configMap", {}).get("name")
            assert not secret or re.search(rf"create secret \w+ {secret} ", commands), secret
            assert not plain or ("ConfigMap", plain) in made or f"create configmap {plain} " in commands, plain
    # Ranks attach where the service of that name leads, before the coordinator is ready.
    cluster = named("Service", "witan-cluster")
    assert cluster["spec"]["publishNotReadyAddresses"] is True
    (port,) = [p["port"] for p in cluster["spec"]["ports"]]
    text = (FOLDER / "group-one-node.yaml").read_text() + (FOLDER / "group-nodes.yaml").read_text()
    assert set(re.findall(r"--coordinator (\S+)", text)) == {f"witan-cluster.witan.svc:{port}"}


def config():
    return yaml.safe_load(named("ConfigMap", "witan")["data"]["cluster.yaml"])


def test_configuration_inside(tmp_path):
    """cluster.yaml as witan reads it; its listeners are the ports, its paths are mounted, its groups are served."""
    path = tmp_path / "cluster.yaml"
    path.write_text(named("ConfigMap", "witan")["data"]["cluster.yaml"])
    r = subprocess.run([BIN / "witan", "config", "--check", path], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    c = config()
    (container,) = named("Deployment", "witan-coordinator")["spec"]["template"]["spec"]["containers"]
    assert {p["name"]: p["containerPort"] for p in container["ports"]} == {
        k: int(c["listen"][k].split(":")[1]) for k in ("http", "grpc", "cluster")}
    mounts = [m["mountPath"] for m in container["volumeMounts"]]
    paths = [c["model"]["path"], c["model"]["trust"], c["listen"]["tls"]["cert"], c["listen"]["tls"]["key"],
             c["listen"]["keys"], c["pki"]]
    for p in paths:
        assert any(p == m or p.startswith(m + "/") for m in mounts), p
    assert all(g["external"] for g in c["groups"])
    groups = named("StatefulSet", "witan-group")
    assert [g["name"] for g in c["groups"]][:groups["spec"]["replicas"]] == ["g0", "g1"]
    (ranks,) = [e["value"] for e in groups["spec"]["template"]["spec"]["containers"][0]["env"] if e["name"] == "RANKS"]
    assert {str(g["tp"]) for g in c["groups"][:2]} == {ranks}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        get = container[probe]["httpGet"]
        assert get["scheme"] == "HTTPS" and get["path"] in ("/health/live", "/health/ready")


def test_no_way_out():
    policies = [d["spec"] for _, d in documents() if d["kind"] == "NetworkPolicy"]
    assert any(p["podSelector"] == {} and set(p["policyTypes"]) == {"Ingress", "Egress"} and "egress" not in p and
               "ingress" not in p for p in policies)
    for p in policies:
        for rule in p.get("egress", []) + p.get("ingress", []):
            peers = rule.get("to", []) + rule.get("from", [])
            assert peers and rule["ports"]
            for peer in peers:
                assert "ipBlock" not in peer and set(peer) <= {"podSelector", "namespaceSelector"}
                assert peer.get("namespaceSelector") != {}


def test_scripts_inside(tmp_path):
    for name, text in named("ConfigMap", "witan-nodes")["data"].items():
        path = tmp_path / name
        path.write_text(text)
        subprocess.run(["bash", "-n", path], check=True)


def schemas():
    folder = Path(importlib.util.find_spec("cyclonedx").origin).parent / "schema/_res"
    return {n: json.loads((folder / f"{n}.SNAPSHOT.schema.json").read_text()) for n in ("bom-1.5", "spdx", "jsf-0.82")}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    path = tmp_path_factory.mktemp("sbom") / "witan.cdx.json"
    subprocess.run([TOP / "deploy/release/sbom", BIN.parent, "--out", path], check=True)
    return json.loads(path.read_text())


def test_list_of_parts_schema(parts):
    found = schemas()
    # They name each other by the names of their files.
    resources = [(f"{base}{n}.SNAPSHOT.schema.json", Resource.from_contents(s, DRAFT7))
                 for n, s in found.items() for base in ("", "http://cyclonedx.org/schema/")]
    registry = Registry().with_resources(resources)
    validator = Draft7Validator(found["bom-1.5"], registry=registry, format_checker=FormatChecker())
    assert [e.message for e in validator.iter_errors(parts)] == []
    parts = json.loads(json.dumps(parts))
    parts["components"][0]["type"] = "nonsense"
    assert list(validator.iter_errors(parts))


def test_list_of_parts(parts):
    """What the loader finds is listed, with where it came from."""
    by_name = {c["name"]: c for c in parts["components"]}
    assert len(by_name) == len(parts["components"])
    listed = subprocess.run(["ldd", BIN / "witan-coordinator"], check=True, capture_output=True, text=True).stdout
    libraries = set(re.findall(r"^\s*(\S+) => /", listed, re.M))
    assert len(libraries) > 20 and libraries <= set(by_name)
    for name in libraries:
        c = by_name[name]
        assert re.fullmatch("[0-9a-f]{64}", c["hashes"][0]["content"])
        if "purl" in c:
            assert c["version"] != "unknown" and c["licenses"]
    assert sum("purl" in by_name[n] for n in libraries) > 20
    refs = [c["bom-ref"] for c in parts["components"]]
    assert len(set(refs)) == len(refs)
    edges = {d["ref"]: d["dependsOn"] for d in parts["dependencies"]}
    assert set(edges) <= {*refs, "witan"}
    assert any("libgrpc" in e for e in edges["witan:witan-coordinator"])
    assert "beside:openmpi-bin" in edges["witan:witan"]
    commit = {p["name"]: p["value"] for p in parts["metadata"]["component"]["properties"]}["witan:commit"]
    assert re.fullmatch("([0-9a-f]{40}(-dirty)?|unknown)", commit)
