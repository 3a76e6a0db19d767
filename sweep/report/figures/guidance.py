"""Document guidance: errors under right and wrong keys, which documents open which entries, and what these promote."""

from __future__ import annotations

from collections.abc import Sequence

from sweep.records.sweep_storage import SweepStorage
from sweep.report.figures.activations import MOST_CELLS, picture_of, pictures_drawn
from sweep.report.figures.drawing import MAX_PANELS, Figure, colour_of, finish, panels, whole_numbers
from sweep.report.figures.simset import ANALYSIS
from sweep.report.naming import label_texts, labels_of
from sweep.report.study import Study, Trial, read_extra
from sweep.report.table import Cell, Table

HEADING = "Document guidance"
CURVES = (("train/nll", "its own key"), ("train/nll_negative", "a wrong key"))
MOST_DOCUMENTS = 12
"""Documents of a trial in the table of words."""


def guided(trials: Sequence[Trial]) -> list[Trial]:
    """Return the finished trials that were trained under guidance."""
    return [trial for trial in trials if trial.status == "done" and trial.get("method") == "docguidance"]


def guidance_figures(storage: SweepStorage, trials: Sequence[Trial]) -> list[Figure]:
    """Draw the errors by epoch, and documents by entries, a panel for each of the first trials."""
    found = guided(trials)[:MAX_PANELS]
    if not found:
        return []
    labels = labels_of(found)
    titles = [", ".join(label_texts(trial, labels)) for trial in found]
    figures = [_errors(found, titles)]
    pictures = [(title, picture_of(storage, t, None)) for title, t in zip(titles, found, strict=True)]
    drawn = [(title, picture) for title, picture in pictures if picture is not None]
    if drawn:
        with pictures_drawn(drawn) as canvas:
            caption = (
                "Mean activation of an entry, times the gate that the document's key opens, over the document's "
                "tokens; negative ones as 0, as a share of the document's largest. Entries stand by the document that "
                f"uses them most; above {MOST_CELLS} rows or columns, neighbours are averaged. Below: the mean cosine "
                "between the rows of two different documents, with its 95 % interval (bootstrap over documents)."
            )
            title = "Which documents use which entries, under guidance"
            figures.append(finish(canvas, "guided_entries", title, caption))
    return figures


def _errors(trials: Sequence[Trial], titles: Sequence[str]) -> Figure:
    with panels(1, len(trials), width=3.4) as (canvas, axes):
        for ax, trial, title in zip(axes.flat, trials, titles, strict=True):
            for index, (name, label) in enumerate(CURVES):
                points = trial.curves.get(name, ())
                ax.plot([e for e, _ in points], [v for _, v in points], color=colour_of(index), label=label)
            target = float(trial.get("guidance_target"))
            ax.axhline(target, color="#999999", linestyle=":", label="target of a wrong key")
            ax.set(title=title, xlabel="epoch")
            whole_numbers(ax)
        axes.flat[0].set_ylabel("NLL per token, in training")
        axes.flat[0].legend()
        caption = (
            "The same texts under the key of their own document and under a wrong one: means over each epoch's steps "
            "of a single training, so there is no interval."
        )
        return finish(canvas, "guidance_errors", "Errors under right and wrong keys", caption)


def words_table(study: Study) -> Table | None:
    """List the words that a document's entries promote most, for the first trial of each model that tells them."""
    rows: list[tuple[tuple[str, ...], tuple[Cell, ...]]] = []
    seen: set[str] = set()
    for trial in guided(study.trials):
        read = read_extra(study.storage, trial, ANALYSIS)
        if trial.model in seen or not isinstance(read, dict):
            continue
        titles, words = read.get("titles"), read.get("promoted_words")
        if not isinstance(titles, list) or not isinstance(words, list):
            continue
        seen.add(trial.model)
        for title, promoted in list(zip(titles, words, strict=False))[:MOST_DOCUMENTS]:
            text = " ".join(repr(word)[1:-1].strip() or "␣" for word in promoted if isinstance(word, str))
            rows.append(((trial.model, str(title).replace("_", " ")), (Cell(text, text),)))
    if not rows:
        return None
    legend = (
        "What a document's entries would add to the residual stream, each fully active, through the output head "
        "without the final norm: the words of the largest logits, in order.",
    )
    title = "Words that a document's entries promote"
    return Table("guided_words", title, ("model", "page"), ("words",), tuple(rows), legend)
