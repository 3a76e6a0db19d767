"""The pictures of docs/adapters.md say what the tables of the reports say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from sweep.report.table import to_csv

_spec = importlib.util.spec_from_file_location("draw_adapters", Path(__file__).parents[2] / "docs" / "draw_adapters.py")
assert _spec is not None and _spec.loader is not None
draw_adapters = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(draw_adapters)


def test_every_finished_trial_is_in_its_picture(tmp_path: Path, monkeypatch) -> None:
    shared = {"status": "done", "memory/nll": 3.0, "fever/accuracy": 0.5, "forgetting/nll": 3.5, "train/params": 0.0}
    methods = [{**shared, "method": "pretrained"}, {**shared, "method": "lora", "train/params": 1234.0, "epochs": 8}]
    stages = [
        {
            **shared,
            "trial": stage,
            "stage": stage,
            "layer": "22",
            "memory_dim": "128",
            "template_layer": "26" if stage == "on_top" else "",
        }
        for stage in draw_adapters.STAGES
    ]
    lost = {
        **shared,
        "trial": "x",
        "stage": "document",
        "layer": "9",
        "memory_dim": "128",
        "template_layer": "",
        "status": "diverged",
    }
    compared = [
        {"trial": row["trial"], "accuracy_difference": 0.1, "accuracy_low": -0.1, "accuracy_high": 0.2}
        for row in stages[1:]
    ]
    for sweep, table, rows in (
        ("adapters", "trials", methods),
        ("use_memory", "trials", [*stages, lost]),
        ("use_memory", "against_pretrained", compared),
    ):
        folder = tmp_path / sweep / "report" / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{table}.csv").write_text(to_csv(rows))
    monkeypatch.setattr(draw_adapters, "DOCS", tmp_path)
    draw_adapters.main(tmp_path)
    forgetting, use = ((tmp_path / f"{name}.svg").read_text() for name in ("adapters_forgetting", "use_memory"))
    assert "<!-- pretrained -->" in forgetting and "<!-- lora (1,234; 8) -->" in forgetting
    told = [line for name in draw_adapters.STAGES.values() for line in name.split("\n")]
    assert all(f"<!-- {line}" in use or f"     {line}" in use or line in use for line in told)
    assert "block 26" in use and "block 22" in use and "block 9" not in use
