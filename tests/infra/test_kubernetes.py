"""The Kubernetes manifests: hold only fields that exist, by Kubernetes' own published schemas, and fit each other.

KubeRay's schema is in no package registry; of a RayJob the fields around its pods are listed here.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

TEXT, COUNT, NAMED = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "object"}


def _closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


START_PARAMS = {"type": "object", "additionalProperties": TEXT}
WORKER_GROUP = _closed(
    {
        "groupName": TEXT,
        "replicas": COUNT,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "rayStartParams": START_PARAMS,
        "template": NAMED,
    },
    "groupName",
    "minReplicas",
    "maxReplicas",
    "template",
)
CLUSTER = _closed(
    {
        "rayVersion": TEXT,
        "authOptions": _closed({"mode": {"enum": ["token", "disabled"]}}, "mode"),
        "enableInTreeAutoscaling": {"type": "boolean"},
        "gcsFaultToleranceOptions": NAMED,
        "headGroupSpec": _closed({"rayStartParams": START_PARAMS, "template": NAMED}, "template"),
        "workerGroupSpecs": _list(WORKER_GROUP),
    },
    "headGroupSpec",
)
RAY_JOB = _closed(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": _closed({"name": TEXT}, "name"),
        "spec": _closed(
            {
                "entrypoint": TEXT,
                "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]},
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": COUNT,
                "backoffLimit": COUNT,
                "activeDeadlineSeconds": COUNT,
                "preRunningDeadlineSeconds": COUNT,
                "runtimeEnvYAML": TEXT,
                "rayClusterSpec": CLUSTER,
            },
            "entrypoint",
            "rayClusterSpec",
        ),
    },
    "apiVersion",
    "kind",
    "metadata",
    "spec",
)


@pytest.fixture(scope="module")
def job(infra: Path) -> dict[str, Any]:
    return yaml.safe_load((infra / "kubernetes" / "rayjob.yaml").read_text())


@pytest.fixture(scope="module")
def others(infra: Path) -> dict[tuple[str, str], dict[str, Any]]:
    found = [
        document
        for name in ("storage", "mlflow")
        for document in yaml.safe_load_all((infra / "kubernetes" / f"{name}.yaml").read_text())
    ]
    return {(document["kind"], document["metadata"]["name"]): document for document in found}


def _pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [part["template"]["spec"] for part in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_the_rayjob_has_only_known_fields(job: dict[str, Any]) -> None:
    jsonschema.validate(job, RAY_JOB)


def _check(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def _as_template(pod: dict[str, Any]) -> dict[str, Any]:
    """Return a pod of the RayJob as an object that Kubernetes itself has a schema for."""
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": {"spec": pod}}


def test_kubernetes_knows_every_field(job: dict[str, Any], others: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert len(others) >= 3
    for document in others.values():
        _check(document)
    for pod in _pods(job):
        _check(_as_template(pod))


def test_a_misspelt_field_of_a_pod_is_refused(job: dict[str, Any]) -> None:
    pod = copy.deepcopy(_pods(job)[1])
    pod["containers"][0]["volumeMount"] = pod["containers"][0].pop("volumeMounts")
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        _check(_as_template(pod))


def test_a_misspelt_field_is_refused(job: dict[str, Any]) -> None:
    wrong = copy.deepcopy(job)
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        jsonschema.validate(wrong, RAY_JOB)


def test_all_workers_are_there_from_the_start_and_have_a_gpu(job: dict[str, Any]) -> None:
    for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] > 0
        assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_every_pod_has_the_settings_that_all_nodes_must_share(job: dict[str, Any]) -> None:
    for pod in _pods(job):
        container = pod["containers"][0]
        env = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert env["RAY_AUTH_MODE"] == job["spec"]["rayClusterSpec"]["authOptions"]["mode"] == "token"
        places = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert "emptyDir" in volumes[places[env["MEMORY_SWEEP_CACHE"]]]
        assert "persistentVolumeClaim" in volumes[places["/shared"]]
        assert set(places.values()) == set(volumes)


def test_what_the_rayjob_refers_to_exists(job: dict[str, Any], others: dict[tuple[str, str], dict[str, Any]]) -> None:
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in _pods(job)
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert all(others["PersistentVolumeClaim", claim]["spec"]["accessModes"] == ["ReadWriteMany"] for claim in claims)
    port = others["Service", "mlflow"]["spec"]["ports"][0]["port"]
    assert f"--tracking-uri http://mlflow:{port}" in job["spec"]["entrypoint"]
    assert "--storage /shared/" in job["spec"]["entrypoint"]


def test_the_mlflow_service_reaches_its_pod(others: dict[tuple[str, str], dict[str, Any]]) -> None:
    deployment, service = others["Deployment", "mlflow"]["spec"], others["Service", "mlflow"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert service["selector"] == deployment["selector"]["matchLabels"] == labels
    container = deployment["template"]["spec"]["containers"][0]
    assert container["ports"][0]["containerPort"] == service["ports"][0]["targetPort"]
    assert any(arg.startswith("--allowed-hosts=mlflow,mlflow:*") for arg in container["args"])


def test_the_ray_version_is_the_pinned_one(root: Path, job: dict[str, Any]) -> None:
    version = job["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"ray=={version}" in (root / "constraints.txt").read_text().split()
