"""The manifests: what a pod may do; they agree with the image, the command and the service."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.service import image

from clinloom import cli
from clinloom.deploy import rest, serving
from clinloom.deploy._limits import OPEN, Limits
from clinloom.deploy._options import Options

FOLDER = image.FOLDER / "kubernetes"
VERSION = tomllib.loads((image.ROOT / "pyproject.toml").read_text())["project"]["version"]
FILES = sorted(FOLDER.glob("*.yaml"))
DOCUMENTS = {file.stem: yaml.safe_load(file.read_text()) for file in FILES}
DEPLOYMENT = DOCUMENTS["deployment"]["spec"]
POD = DEPLOYMENT["template"]["spec"]
[CONTAINER] = POD["containers"]
LABELS = DEPLOYMENT["template"]["metadata"]["labels"]
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def size(text: str) -> int:
    """Bytes of a quantity of Kubernetes."""
    return int(text[:-2]) * UNITS[text[-2:]]


def values(node: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, wherever it stands."""
    if isinstance(node, Mapping):
        yield from node.items()
    for part in node.values() if isinstance(node, Mapping) else node:
        if isinstance(part, (Mapping, list)):
            yield from values(part)


def test_kustomize_takes_every_file_but_the_optional():
    listed = {Path(name).stem for name in DOCUMENTS["kustomization"]["resources"]}
    assert listed == DOCUMENTS.keys() - {"kustomization", "autoscaler"}
    for name, document in DOCUMENTS.items():
        if name != "kustomization":
            assert document["metadata"]["name"] == "clinloom"
            assert document["metadata"]["labels"] == LABELS


def test_a_pod_is_nobody_and_writes_nothing():
    person, own = POD["securityContext"], CONTAINER["securityContext"]
    uid, gid = map(int, image.last("USER").split(":"))
    assert person["runAsNonRoot"] is True
    assert (person["runAsUser"], person["runAsGroup"], person["fsGroup"]) == (uid, gid, gid)
    assert person["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["readOnlyRootFilesystem"] is True and own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert POD["automountServiceAccountToken"] is False
    forbidden = {"privileged", "hostNetwork", "hostPID", "hostIPC", "hostPath", "hostPort", "add"}
    assert not forbidden & {key for key, _ in values(POD)}
    writable = [m["name"] for m in CONTAINER["volumeMounts"] if not m.get("readOnly")]
    [volume] = [volume for volume in POD["volumes"] if volume["name"] in writable]
    assert writable == ["tmp"] and size(volume["emptyDir"]["sizeLimit"]) > 0


def test_what_it_starts_is_the_image_s_own_command():
    begun = image.words(image.last("ENTRYPOINT"))
    asked = cli.parser().parse_args([*begun[begun.index("serve") :], *CONTAINER["args"]])
    plain = image.words(image.last("CMD"))
    same = cli.parser().parse_args(["serve", *plain])
    assert vars(asked) == vars(same)
    assert "command" not in CONTAINER  # the entry point stays the image's
    mounts = {mount["mountPath"]: mount for mount in CONTAINER["volumeMounts"]}
    assert asked.bundle in mounts and asked.token.startswith("file:/")
    folder, _, name = asked.token.removeprefix("file:").rpartition("/")
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    secret = volumes[mounts[folder]["name"]]["secret"]
    assert name == "token" and secret["defaultMode"] == 0o440


def test_ports_agree():
    [port] = CONTAINER["ports"]
    asked = cli.parser().parse_args(["serve", *CONTAINER["args"]])
    assert port["containerPort"] == asked.port == serving.PORT == int(image.last("EXPOSE"))
    [told] = DOCUMENTS["service"]["spec"]["ports"]
    assert told["targetPort"] == port["name"] and told["port"] == serving.PORT
    [allowed] = DOCUMENTS["network"]["spec"]["ingress"]
    assert allowed["ports"] == [{"protocol": "TCP", "port": port["name"]}]


def test_probes_ask_what_is_answered_without_a_token(published):
    paths = {route.path for route in rest.application(str(published)).routes}
    probes = {name: probe for name, probe in CONTAINER.items() if name.endswith("Probe")}
    assert probes.keys() == {"startupProbe", "livenessProbe", "readinessProbe"}
    for probe in probes.values():
        assert probe["httpGet"]["path"] in paths & {*OPEN}
        assert probe["httpGet"]["port"] == CONTAINER["ports"][0]["name"]
    assert probes["livenessProbe"]["httpGet"]["path"] == "/health"
    assert probes["readinessProbe"]["httpGet"]["path"] == "/ready"


def test_it_has_the_time_to_end():
    before = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    whole = before + serving.GRACE + Options.timeout
    assert POD["terminationGracePeriodSeconds"] > whole


def test_it_has_room_for_what_may_be_there_at_once():
    resources = CONTAINER["resources"]
    for kind in ("cpu", "memory", "ephemeral-storage"):
        assert resources["requests"][kind] and resources["limits"][kind]
    bodies = (Limits.bodies + Options.at_once) * Options.max_body
    assert size(resources["limits"]["memory"]) > bodies + size(resources["requests"]["memory"])


def test_nothing_comes_in_but_gateways_and_nothing_goes_out_but_names():
    policy = DOCUMENTS["network"]["spec"]
    assert {*policy["policyTypes"]} == {"Ingress", "Egress"}
    [came] = policy["ingress"]
    [peer] = came["from"]
    assert peer["podSelector"]["matchLabels"] and peer["namespaceSelector"]["matchLabels"]
    [went] = policy["egress"]
    assert {port["port"] for port in went["ports"]} == {53}
    assert all(to["podSelector"]["matchLabels"]["k8s-app"] == "kube-dns" for to in went["to"])


def test_all_of_them_mean_the_same_pods():
    assert DEPLOYMENT["selector"]["matchLabels"] == LABELS
    assert DOCUMENTS["service"]["spec"]["selector"] == LABELS
    assert DOCUMENTS["network"]["spec"]["podSelector"]["matchLabels"] == LABELS
    assert DOCUMENTS["disruption"]["spec"]["selector"]["matchLabels"] == LABELS
    assert DOCUMENTS["disruption"]["spec"]["minAvailable"] < DEPLOYMENT["replicas"]
    target = DOCUMENTS["autoscaler"]["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "clinloom"}
    assert DOCUMENTS["autoscaler"]["spec"]["minReplicas"] >= DEPLOYMENT["replicas"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_secret_and_no_version_that_moves(file: Path):
    assert ":latest" not in file.read_text()
    document = DOCUMENTS[file.stem]
    assert document["kind"] != "Secret"
    told = dict(values(document))
    assert not {"env", "envFrom", "stringData", "data"} & told.keys()
    if "image" in told:
        assert told["image"] == f"clinloom:{VERSION}"
    assert not re.search(r"https?://", file.read_text())
