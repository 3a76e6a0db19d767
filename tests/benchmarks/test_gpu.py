"""`python -m benchmarks gpu`: all arms in miniature, and the refusal where there is no GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import gpu
from benchmarks.__main__ import app
from benchmarks.common import NotTheSame


def run(*arguments: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["--threads", "1", "gpu", *arguments])
    if isinstance(found.exception, NotTheSame):
        raise found.exception
    return found.exit_code, found.stdout, found.stderr


@pytest.mark.thorough(beside="test_other_losses_print_no_figure")
def test_all_arms_run_in_miniature_with_equal_losses(tmp_path: Path) -> None:
    out = tmp_path / "b.json"
    code, said, _ = run("--tiny", "--processes", "0", "--out", str(out))
    assert code == 0 and "same losses" in said
    for arm in ("plain", "ours, K = 1", "ours, K = 2", "peft LoRA", "targets on one H100"):
        assert arm in said
    (row,) = json.loads(out.read_text())["gpu"]["models"][0]["rows"]
    assert row["ours"]["1"]["launches"] < row["plain"]["launches"]
    assert row["ours"]["2"]["tokens_per_s"] > 0 < row["peft_lora"]["tokens_per_s"]


@pytest.mark.slow
def test_plain_programs_run_at_a_time(tmp_path: Path) -> None:
    code, said, _ = run("--tiny", "--processes", "2", "--out", str(tmp_path / "b.json"))
    assert code == 0 and "2 plain processes" in said


def test_other_losses_print_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = gpu.plain
    monkeypatch.setattr(gpu, "plain", lambda *given, **named: (plain(*given, **named)[0], [1.0, 2.0, 3.0, 4.0]))
    with pytest.raises(NotTheSame, match="losses differ"):
        run("--tiny", "--processes", "0", "--out", str(tmp_path / "b.json"))
    assert not (tmp_path / "b.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    code, said, told = run("--out", str(tmp_path / "b.json"))
    assert (code, said) == (2, "") and told.count("\n") == 1 and "no CUDA device" in told


def test_packs_that_do_not_fit_end_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, ours = [], gpu.ours

    def small_card(model: Any, members: int, *given: Any) -> Any:
        tried.append(members)
        if members > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return ours(model, members, *given)

    monkeypatch.setattr(gpu, "ours", small_card)
    (row,) = gpu.compare("pythia-410m", True, (8,), (16,), (1, 2, 4))["rows"]
    assert tried == [1, 1, 2] and list(row["ours"]) == list(row["kernel_by_kernel"]) == ["1"]
