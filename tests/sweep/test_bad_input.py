"""The user's mistakes: one clear line, exit status 2, nothing started."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweep import run

SAMPLE = str(Path(__file__).parents[2] / "search_spaces" / "sample.py")
INDUCTIVE = str(Path(__file__).parents[2] / "search_spaces" / "inductive.py")


def refused(tmp_path: Path, *args: object) -> str:
    """Run the command, expect the user's mistake, and return its line."""
    done = CliRunner().invoke(run.app, [*map(str, args), "--storage", str(tmp_path / "out")])
    assert done.exit_code == 2, (done.exit_code, done.output, done.exception)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert not list((tmp_path / "out").rglob("record.json"))
    return lines[0]


def space_file(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("space = (", "mine.py:1: "),
        ("x = 1", "has no `space`"),
        ("from sweep.space import Space\nspace = Space(name='n', title='t', axes={}, stages=())", "no stages"),
        (
            "from sweep.space import Space, Stage\n"
            "space = Space(name='n', title='t', axes={'laier': [1]}, stages=(Stage(name='s', axes={}),))",
            "did you mean 'layer'",
        ),
        ("import nothing_like_this", "mine.py:1: ModuleNotFoundError"),
    ],
)
def test_a_space_file_that_is_none(tmp_path, text, said):
    assert said in refused(tmp_path, space_file(tmp_path, text))


def test_a_missing_space_file(tmp_path):
    assert "did you mean" in refused(tmp_path, SAMPLE.replace("sample.py", "sampel.py"))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("layer=0,99", "layer=99"),
        ("alpha=-1", "alpha=-1"),
        ("alpha=much", "alpha='much'"),
        ("allocation=partitoned", "did you mean 'partitioned'"),
        ("allocatoin=simset1", "did you mean 'allocation'"),
        ("num_clusters=50", "num_clusters=50"),
        ("memory_dim=3", "memory_dim=3"),
        ("num_documents=61", "60"),
        ("model=/no/such/folder", "/no/such/folder"),
        ("model=llama2-8b", "did you mean 'llama2-7b'"),
        ("data=/no/such/folder", "/no/such/folder"),
        ("epochs=0", "epochs=0"),
        ("eval_epochs=900", "eval_epochs"),
        ("probes=fevver", "did you mean 'fever'"),
        ("depth=1.5", "depth=1.5"),
        ("nothing", "FIELD=VALUE"),
    ],
)
def test_an_impossible_setting(tmp_path, setting, said, sample_data):
    assert said in refused(tmp_path, SAMPLE, "--set", setting)


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "model").mkdir()
    assert "config.json" in refused(tmp_path, SAMPLE, "--set", f"model={tmp_path / 'model'}")
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    assert "bert" in refused(tmp_path, SAMPLE, "--set", f"model={tmp_path / 'model'}")


def test_broken_and_missing_data_files(tmp_path, sample_data):
    data = tmp_path / "data"
    shutil.copytree(sample_data, data)
    claims = next(data.rglob("paper_dev.jsonl"))
    lines = claims.read_text().splitlines()
    claims.write_text("\n".join([*lines[:3], '{"id": 7, "claim": ', *lines[4:]]))
    assert "paper_dev.jsonl:4:" in refused(tmp_path, SAMPLE, "--data", data)
    claims.unlink()
    assert "paper_dev" in refused(tmp_path, SAMPLE, "--data", data)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--pack-size", "many"], "pack-size"),
        (["--device", "cuba"], "did you mean 'cuda'"),
        (["--name", "a/b"], "name="),
        (["--stage", "inductiv"], "did you mean 'inductive'"),
        (["--cpus-per-trial", "4000"], "no node has that much"),
    ],
)
@pytest.mark.thorough(only=("no node has that much",))
def test_options_that_make_no_sense(tmp_path, args, said, sample_data, monkeypatch):
    from trainables.lm.sample import models

    monkeypatch.setattr(models, "ensure_sample_models", lambda names: None)
    assert said in refused(tmp_path, SAMPLE, *args)


def test_a_storage_that_cannot_be_written(tmp_path, sample_data):
    (tmp_path / "out").write_text("a file, not a folder")
    done = CliRunner().invoke(run.app, [SAMPLE, "--storage", str(tmp_path / "out")])
    assert done.exit_code == 2 and "cannot be" in done.stderr


def test_a_model_that_is_not_whole_starts_nothing(tmp_path, tiny_models, monkeypatch):
    from safetensors.torch import load_file, save_file

    from sweep.running import ray_cluster

    monkeypatch.setattr(ray_cluster, "ray_session", lambda *_: pytest.fail("Ray was started"))
    folder = shutil.copytree(tiny_models["llama"], tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.self_attn.q_proj.base_layer.weight"] = tensors.pop("model.layers.2.self_attn.q_proj.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    line = refused(tmp_path, SAMPLE, "--set", f"model={folder}")
    assert "model.safetensors: tensor 'model.layers.2.self_attn.q_proj.base_layer.weight' belongs to an adapter" in line


def test_cuda_without_a_device_starts_nothing(tmp_path, monkeypatch):
    import torch

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "device='cuda': no machine here has a CUDA device" in refused(tmp_path, SAMPLE, "--device", "cuda")
