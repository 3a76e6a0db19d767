"""The container image and the MLflow server's compose file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="module")
def dockerfile(infra: Path) -> str:
    return (infra / "Dockerfile").read_text()


def _copied(dockerfile: str) -> set[str]:
    return {source for line in re.findall(r"^COPY (.+)$", dockerfile, re.M) for source in line.split()[:-1]}


def test_the_files_it_copies_exist(root: Path, dockerfile: str) -> None:
    assert {"sweep", "trainables", "search_spaces", "constraints.txt"} <= _copied(dockerfile)
    assert not {source for source in _copied(dockerfile) if not (root / source).exists()}


def test_nothing_else_is_sent_to_the_build(infra: Path, dockerfile: str) -> None:
    first, *lines = (infra / "Dockerfile.dockerignore").read_text().split()
    assert first == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == _copied(dockerfile)


def test_pinned_packages_it_looks_for_are_pinned(root: Path, dockerfile: str) -> None:
    pins = (root / "constraints.txt").read_text()
    names = re.findall(r"grep '\^(\w+)==' constraints.txt", dockerfile)
    assert set(names) == {"mlflow", "torch"}
    assert all(re.search(rf"^{name}==", pins, re.M) for name in names)


def test_the_extras_it_installs_exist(root: Path, dockerfile: str) -> None:
    (extras,) = re.findall(r"-e '\.\[(.+)\]'", dockerfile)
    declared = (root / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1]
    assert all(re.search(rf"^{name} = ", declared, re.M) for name in extras.split(","))


def test_image_names_carry_no_registry(infra: Path, dockerfile: str) -> None:
    texts = [path.read_text() for path in infra.rglob("*.yaml")]
    images = re.findall(r"^\s*(?:- )?image: (\S+)", "\n".join(texts), re.M) + re.findall(
        r"^FROM (\S+)", dockerfile, re.M
    )
    assert len(images) >= 6
    assert not [image for image in images if "/" in image]


def test_the_compose_file_builds_a_stage_that_exists(infra: Path, dockerfile: str) -> None:
    compose = yaml.safe_load((infra / "mlflow" / "compose.yaml").read_text())
    assert set(compose) == {"name", "services", "volumes"}
    server, database = compose["services"]["server"], compose["services"]["database"]
    context = (infra / "mlflow" / server["build"]["context"]).resolve()
    assert (context / server["build"]["dockerfile"]).read_text() == dockerfile
    assert f" AS {server['build']['target']}\n" in dockerfile
    named = {volume.split(":")[0] for service in (server, database) for volume in service["volumes"]}
    assert named == set(compose["volumes"])
    assert set(server["depends_on"]) == {"database"}


def test_mlflow_takes_the_servers_options(infra: Path) -> None:
    from mlflow.cli import server as command

    compose = yaml.safe_load((infra / "mlflow" / "compose.yaml").read_text())
    pods = list(yaml.safe_load_all((infra / "kubernetes" / "mlflow.yaml").read_text()))
    pod = next(document for document in pods if document["kind"] == "Deployment")["spec"]["template"]["spec"]
    known = {option for parameter in command.params for option in parameter.opts}
    for args in (compose["services"]["server"]["command"], pod["containers"][0]["args"]):
        assert args[:2] == ["mlflow", "server"]
        assert {arg.partition("=")[0] for arg in args[2:]} <= known
