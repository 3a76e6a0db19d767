"""Models on the Hub: what is found in the layouts people meet, who may have it, and that it is downloaded once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from tests.stand_ins import TOKEN, Hub, Rule, model_files
from trainables.data import online
from trainables.errors import ConfigError, DataError
from trainables.lm.aliases import MODELS
from trainables.lm.card import ModelCard, model_card
from trainables.lm.download import choose_weights, download_model, find_model
from trainables.lm.hub_commit import hub_commit
from trainables.lm.tokens import encode, load_tokenizer
from trainables.lm.upper import load_upper
from trainables.lm.weights import model_fingerprint, model_folder, tokenizer_folder

NAME = "someone/tiny"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(online, "_sleep", pauses.append)
    return pauses


@pytest.fixture
def put(hub: Hub, tiny_models: dict[str, Path]) -> Callable[..., ModelCard]:
    """Put the tiny Llama on the Hub in some layout and return its card."""

    def place(layout: str = "safetensors", name: str = NAME, **more: bytes) -> ModelCard:
        files = laid_out(model_files(tiny_models["llama"]), layout, tiny_models["llama"])
        hub.add("models", name).commit({**files, **more})
        return model_card(name)

    return place


def forget() -> None:
    """Look everything up again, as a new process does."""
    for cached in (hub_commit, model_card, model_folder):
        cached.cache_clear()


def test_planning_waits_three_seconds_for_a_hub_that_does_not_answer(
    put: Callable[..., ModelCard], hub: Hub, capfd: pytest.CaptureFixture[str]
) -> None:
    card = put()
    find_model(card)
    forget()
    hub.rules.append(Rule("GET /api/models", delay_s=6.0))
    start = time.monotonic()
    assert model_card(NAME) == card
    model_card("pythia-70m")
    assert time.monotonic() - start < 4
    assert capfd.readouterr().err.count("no answer from") == 1


def laid_out(files: dict[str, bytes], layout: str, folder: Path) -> dict[str, bytes]:
    whole = files.pop("model.safetensors")
    tensors = load_file(folder / "model.safetensors")
    scratch = folder.parent / "scratch"
    scratch.mkdir(exist_ok=True)

    def saved(part: dict[str, torch.Tensor], kind: str) -> bytes:
        path = scratch / f"part.{kind}"
        save_file(part, path) if kind == "safetensors" else torch.save(part, path)
        return path.read_bytes()

    def shards(stem: str, kind: str, index: bool) -> dict[str, bytes]:
        names = sorted(tensors)
        parts = [names[: len(names) // 2], names[len(names) // 2 :]]
        made, where = {}, {}
        for number, part in enumerate(parts, 1):
            file = f"{stem}-{number:05d}-of-00002.{kind}"
            made[file] = saved({name: tensors[name] for name in part}, kind)
            where |= dict.fromkeys(part, file)
        told = json.dumps({"metadata": {}, "weight_map": where}).encode()
        return made | ({f"{stem}.{kind}.index.json": told} if index else {})

    useless = {"onnx/model.onnx": b"x" * 9000, "consolidated.00.pth": b"y" * 9000, "tf_model.h5": b"z" * 9000}
    one_bin = saved(tensors, "bin")
    weights = {
        "safetensors": {"model.safetensors": whole},
        "safetensors-index": shards("model", "safetensors", True),
        "safetensors-no-index": shards("model", "safetensors", False),
        "bin": {"pytorch_model.bin": one_bin},
        "bin-index": shards("pytorch_model", "bin", True),
        "both": {"model.safetensors": whole, "pytorch_model.bin": one_bin},
        "both-index": {**shards("model", "safetensors", True), **shards("pytorch_model", "bin", True)},
        "index-of-missing-shards": {
            "model.safetensors.index.json": b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}',
            "pytorch_model.bin": one_bin,
        },
        "tokenizer-alone": {"model.safetensors": whole},
    }[layout]
    if layout == "tokenizer-alone":
        files = {name: content for name, content in files.items() if name in ("config.json", "tokenizer.json")}
    return {**files, **weights, **useless}


LAYOUTS = {
    "safetensors": 1, "safetensors-index": 3, "safetensors-no-index": 2, "bin": 1, "bin-index": 3, "both": 1,
    "both-index": 3, "index-of-missing-shards": 2, "tokenizer-alone": 1,
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_model(
    put: Callable[..., ModelCard], tiny_models: dict[str, Path], layout: str
) -> None:
    card = put(layout)
    folder = model_folder(card)
    there = {path.name for path in folder.rglob("*") if path.is_file()}
    weights = {name for name in there if name.endswith((".safetensors", ".bin", ".index.json"))}
    assert len(weights) == LAYOUTS[layout] and not there & {"model.onnx", "consolidated.00.pth", "tf_model.h5"}
    local = model_card(str(tiny_models["llama"]))
    for loaded in (model_card(str(folder)), card):
        found, wanted = (dict(load_upper(c, 1, torch.float32, "cpu").named_parameters()) for c in (loaded, local))
        assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert encode(load_tokenizer(card), "Ann sings.") == encode(load_tokenizer(local), "Ann sings.")


def test_a_tokenizer_is_had_without_the_weights(put: Callable[..., ModelCard]) -> None:
    tokenizer_folder(put())
    assert "model.safetensors" not in {path.name for path in tokenizer_folder(model_card(NAME)).iterdir()}


def test_a_model_that_is_here_asks_nothing_once_its_commit_is_known(put: Callable[..., ModelCard], hub: Hub) -> None:
    card = replace(put(), commit=find_model(put()).commit)
    folder = download_model(card)
    hub.requests.clear()
    assert download_model(card) == folder and not hub.requests


def test_a_branch_that_moves_during_a_sweep_changes_nothing(
    put: Callable[..., ModelCard], hub: Hub, tiny_models: dict[str, Path]
) -> None:
    card = put()
    first = find_model(card).commit
    moved = hub.repos[f"models/{NAME}"].commit({**model_files(tiny_models["llama"]), "new.txt": b"new"})
    assert card.key == f"{NAME}@{first}" and download_model(card).name == first != moved
    assert model_fingerprint(card) == f"someone--tiny@{first}"
    forget()
    new = model_card(NAME)
    assert new.key == f"{NAME}@{moved}" and download_model(new).name == moved
    assert model_card(NAME, "main", first) == card, "a sweep that goes on takes the commit with which it began"


def test_a_revision_is_another_model(put: Callable[..., ModelCard], hub: Hub, tiny_models: dict[str, Path]) -> None:
    put()
    step = hub.repos[f"models/{NAME}"].commit({**model_files(tiny_models["llama"]), "s": b"1"}, "step1000")
    card = model_card(NAME, "step1000")
    assert model_folder(card).name == step and card.key == f"{NAME}@{step}" and card.revision == "step1000"
    with pytest.raises(ConfigError, match=f"{NAME} has no such revision"):
        model_card(NAME, "step9")


@pytest.mark.parametrize("alias", MODELS)
@pytest.mark.thorough(but=("pythia-70m", "llama2-7b", "smollm2-360m"))
def test_every_alias_is_looked_up_by_its_repository(hub: Hub, tiny_models: dict[str, Path], alias: str) -> None:
    card = model_card(alias)
    hub.add("models", card.source).commit(model_files(tiny_models["llama"]))
    assert find_model(card).weights == ("model.safetensors",)
    assert card.source == MODELS[alias].source


def test_a_gated_model_is_refused_in_one_line_and_opens_with_a_token(
    hub: Hub, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = model_card("llama2-7b")
    hub.add("models", card.source, gated=True).commit(model_files(tiny_models["llama"]))
    with pytest.raises(ConfigError, match="is gated .*no token.*accept its licence at .*hf auth login.*open copy") as e:
        find_model(card)
    assert "\n" not in str(e.value) and card.is_gated
    monkeypatch.setenv("HF_TOKEN", "hf_of_someone_without_access")
    with pytest.raises(ConfigError, match="is gated and does not open"):
        find_model(card)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    folder = download_model(card)
    monkeypatch.delenv("HF_TOKEN")
    assert download_model(replace(card, commit=find_model(card).commit)) == folder, "what is here is used"
    assert hub.authorised and not [asked for asked in hub.authorised if asked.startswith("localhost")], (
        "the token stays with the Hub"
    )


def test_a_gated_hub_id_is_refused_as_well(hub: Hub, tiny_models: dict[str, Path]) -> None:
    hub.add("models", NAME, gated=True).commit(model_files(tiny_models["llama"]))
    with pytest.raises(ConfigError, match=f"model='{NAME}': {NAME} is gated"):
        model_card(NAME)


def test_what_the_hub_does_not_have_is_named(hub: Hub, tiny_models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="the Hub has no repository no/such"):
        model_card("no/such")
    files = model_files(tiny_models["llama"])
    hub.add("models", NAME).commit({"config.json": files["config.json"], "tokenizer.json": files["tokenizer.json"]})
    with pytest.raises(DataError, match="no complete weights"):
        find_model(model_card(NAME))
    hub.repos[f"models/{NAME}"].commit({name: files[name] for name in ("config.json", "model.safetensors")})
    forget()
    with pytest.raises(DataError, match="no tokenizer.json or tokenizer.model"):
        find_model(model_card(NAME))


def test_a_download_cut_in_the_middle_goes_on(
    put: Callable[..., ModelCard], hub: Hub, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    weights = (tiny_models["llama"] / "model.safetensors").read_bytes()
    size = len(weights)
    card = put()
    place = f"GET /cdn/{hashlib.sha256(weights).hexdigest()}"  # several files are fetched at once: this one is cut
    hub.rules.append(Rule(place, times=1, cut_after=size // 2))
    folder = model_folder(card)
    assert (folder / "model.safetensors").stat().st_size == size
    assert any("[bytes=" in request for request in hub.asked("GET /cdn"))


def test_a_busy_hub_is_waited_for_and_it_is_said(
    put: Callable[..., ModelCard], hub: Hub, no_waiting: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    card = put()
    hub.rules += [Rule("GET /cdn", times=1, status=429, headers={"Retry-After": "3"})]
    hub.rules += [Rule("GET /api/models", times=1, status=502)]
    model_folder(card)
    assert len(no_waiting) == 2 and 3.0 in no_waiting
    assert capfd.readouterr().err.count("trying again in") == 2


def test_without_a_network_a_model_that_is_here_is_used_and_another_refused(
    put: Callable[..., ModelCard], hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    card = put()
    folder = model_folder(card)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    forget()
    capfd.readouterr()
    assert model_card(NAME) == card and model_folder(card) == folder
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "note: no answer from 127.0.0.1:9: models of the Hub are planned as they were last downloaded"
    assert find_model(card).commit == card.commit
    assert "as it was downloaded" in capfd.readouterr().err
    start = time.monotonic()
    other = model_card("pythia-70m")
    assert other.key == "EleutherAI/pythia-70m@main" and time.monotonic() - start < 1, "the Hub is asked once"
    with pytest.raises(online.Unreachable, match="cannot be reached"):
        find_model(other)
    assert time.monotonic() - start < 10


def test_two_processes_on_an_empty_cache_download_once(put: Callable[..., ModelCard], hub: Hub) -> None:
    put()
    program = (
        "import sys; from trainables.lm.card import model_card; from trainables.lm.download import download_model;"
        "print(download_model(model_card(sys.argv[1])))"
    )
    run = [sys.executable, "-c", program, NAME]
    both = [subprocess.Popen(run, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0] and len(folders) == 1
    assert len(hub.asked("GET /cdn")) == len(set(hub.asked("GET /cdn")))


def test_a_read_only_cache_that_holds_the_model_is_enough(
    put: Callable[..., ModelCard], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = put()
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(place / "token"))
    try:
        folder = download_model(card)
        for path in [place, *place.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        if os.getuid() == 0:
            os.seteuid(65534)
        with pytest.raises(PermissionError):
            (place / "x").touch()
        assert download_model(replace(card, commit=find_model(card).commit)) == folder == download_model(card)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        for path in [place, *place.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(place)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin"], ("model.safetensors",)),
        (["model-00001-of-00002.safetensors", "pytorch_model.bin"], ("pytorch_model.bin",)),
        (["model.fp16.safetensors", "pytorch_model.bin"], ("pytorch_model.bin",)),
    ],
)
def test_weights_are_chosen_by_name(names: list[str], chosen: tuple[str, ...]) -> None:
    assert choose_weights(names, lambda _: "", "here") == chosen


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": 3}'])
def test_a_broken_index_is_named(index: str) -> None:
    with pytest.raises(DataError, match="here/model.safetensors.index.json: not an index"):
        choose_weights(["model.safetensors.index.json", "model.safetensors"], lambda _: index, "here")


def test_the_card_of_a_hub_id_has_its_shape(put: Callable[..., ModelCard], tiny_models: dict[str, Any]) -> None:
    card, local = put(), model_card(str(tiny_models["llama"]))
    assert (card.num_blocks, card.model_dim, card.tied) == (local.num_blocks, local.model_dim, local.tied)
    assert card.name == "tiny" and card.key == f"{NAME}@{card.commit}"
