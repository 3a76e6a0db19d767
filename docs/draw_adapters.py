"""Draw two figures on what is trained from the reports of a storage: `python docs/draw_adapters.py STORAGE`.

It reads the tables of the reports on the sweeps `adapters` and `use_memory` (`python -m sweep.report STORAGE/NAME`) and
writes docs/adapters_forgetting.svg and docs/use_memory.svg. Of several seeds it draws each.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sweep.report.figures.drawing import COLOURS, MARKERS, finish, panels

DOCS = Path(__file__).parent
Row = Mapping[str, str]
STAGES = {
    "baseline": "pretrained",
    "document": "documents",
    "longer": "documents, twice as long",
    "template": "templates",
    "together": "both together",
    "trained_on": "documents, then templates:\nthe same memory",
    "on_top": "documents, then templates:\na second memory",
}
"""How the stages of `use_memory` are called, from the bottom up."""


def rows_of(storage: Path, sweep: str, table: str) -> list[Row]:
    """Return the rows of one of a report's tables; without it the program ends in one line."""
    path = storage / sweep / "report" / "tables" / f"{table}.csv"
    if not path.exists():
        raise SystemExit(f"{path}: missing; run the sweep, then: python -m sweep.report {storage / sweep}")
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw_forgetting(trials: Sequence[Row]) -> str:
    """Return a picture of what each method memorises and what it forgets."""
    methods = list(dict.fromkeys(row["method"] for row in trials))
    with panels(1, 1, width=6.0, height=3.6) as (canvas, axes):
        axis = axes[0, 0]
        for row in trials:
            place = methods.index(row["method"])
            params = float(row["train/params"])
            label = row["method"] if not params else f"{row['method']} ({params:,.0f}; {row['epochs']})"
            memorised, others = float(row["memory/nll"]), float(row["forgetting/nll"])
            axis.scatter([memorised], [others], s=60, color=COLOURS[place], marker=MARKERS[place], label=label)
            if not params:
                axis.axhline(others, color="#999999", linewidth=0.8, linestyle="--")
                axis.axvline(memorised, color="#999999", linewidth=0.8, linestyle="--")
        axis.set_xlabel("error on the documents memorised (nats per token)")
        axis.set_ylabel("error on other documents\n(nats per token)")
        axis.legend(title="method (numbers trained; epochs)", loc="center left", bbox_to_anchor=(1.0, 0.5))
        return finish(canvas, "adapters_forgetting", "", "").svg.decode()


def draw_use(trials: Sequence[Row], compared: Sequence[Row]) -> str:
    """Return a picture of accuracy, with its interval against the pretrained model, beside the memorisation error."""
    against = {row["trial"]: row for row in compared}
    order = sorted(trials, key=lambda row: (list(STAGES).index(row["stage"]), row["layer"], row["template_layer"]))
    with panels(1, 2, width=4.6, height=0.34 * len(order) + 1.2, share_y=True) as (canvas, axes):
        names = []
        for place, row in enumerate(order):
            found, colour = against.get(row["trial"]), COLOURS[list(STAGES).index(row["stage"])]
            accuracy = float(row["fever/accuracy"])
            axes[0, 0].plot([accuracy], [place], "o", color=colour)
            if found:
                before = accuracy - float(found["accuracy_difference"])
                ends = [before + float(found[name]) for name in ("accuracy_low", "accuracy_high")]
                axes[0, 0].plot(ends, [place, place], color=colour)
            else:
                axes[0, 0].axvline(accuracy, color="#999999", linewidth=0.8, linestyle="--")
            axes[0, 1].plot([float(row["memory/nll"])], [place], "o", color=colour)
            block = row["template_layer"] or row["layer"]
            sizes = {other["memory_dim"] for other in order if other["stage"] == row["stage"]}
            told = [STAGES[row["stage"]], *([f"block {block}"] if block else [])]
            names.append(", ".join([*told, *([f"{row['memory_dim']} entries"] if len(sizes) > 1 else [])]))
        axes[0, 0].set_yticks(range(len(order)), names)
        axes[0, 0].set_xlabel("FEVER accuracy, 95 % interval of\nthe difference from the pretrained model")
        axes[0, 1].set_xlabel("error on the documents\n(nats per token)")
        return finish(canvas, "use_memory", "", "").svg.decode()


def main(storage: Path) -> None:
    """Draw what there is a report on."""
    there = [sweep for sweep in ("adapters", "use_memory") if (storage / sweep / "report").is_dir()]
    if not there:
        raise SystemExit(
            f"{storage}: no report on adapters or use_memory; make one: python -m sweep.report STORAGE/NAME"
        )
    for sweep in there:
        done = [row for row in rows_of(storage, sweep, "trials") if row["status"] == "done"]
        if sweep == "adapters":
            (DOCS / "adapters_forgetting.svg").write_text(draw_forgetting(done), encoding="utf-8")
        else:
            picture = draw_use(done, rows_of(storage, sweep, "against_pretrained"))
            (DOCS / "use_memory.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("say which storage: python docs/draw_adapters.py STORAGE")
    main(Path(sys.argv[1]))
