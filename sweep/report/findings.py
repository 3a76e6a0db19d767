"""Comparisons of a sweep's trials as plain values for MLflow, and the pictures of its page there."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import partial

from sweep.records.files import damaged_files
from sweep.records.manifest import manifest_stages
from sweep.records.store import RecordIndex, Store
from sweep.report.answers import read_answers
from sweep.report.comparisons.fever import Comparison, compare_all
from sweep.report.references import References, is_baseline
from sweep.report.study import Trial, load_study
from sweep.tracking.address import Tracking
from sweep.tracking.layout import Finding
from sweep.tracking.publish import Counts, Extras, Progress
from sweep.tracking.publish import publish as bring_up
from sweep.tracking.sweep_run import Picture

FIGURES = 2
PICTURE_WIDTH = 900  # pixels


def publish(
    store: Store,
    names: Sequence[str],
    tracking: Tracking,
    progress: Progress = lambda done, total: None,
    index: RecordIndex | None = None,
) -> Counts:
    """Bring MLflow up to date with the records of some sweeps and with how their trials compare.

    Arguments, result and errors are those of `sweep.tracking.publish.publish`.
    """
    index = store.index() if index is None else index
    return bring_up(store, names, tracking, index, progress, extras_of(store, names, index))


def extras_of(store: Store, names: Sequence[str], index: RecordIndex) -> Extras:
    """Compare the trials of some sweeps with the pretrained model and with plain memorising.

    Pretrained trials of other sweeps of the storage serve where the sweep has none of its own. Holm's correction is
    over each sweep's trials.

    Args:
        store: the storage.
        names: sweeps.
        index: the records of the storage.
    """
    damaged = damaged_files(store, index.values())
    everything = load_study(store, index=index, damaged=damaged).trials
    baselines = [trial for trial in everything if is_baseline(trial)]
    findings: dict[str, Finding] = {}
    for name in names:
        planned = {trial for _, trials in manifest_stages(store, name) for trial in trials}
        own = [trial for trial in everything if trial.sweep == name or trial.id in planned]
        findings |= {trial: found for trial, found in _findings(store, own, baselines).items() if trial not in findings}
    return Extras(findings, partial(_pictures, store, index, damaged))


def _findings(store: Store, trials: Sequence[Trial], baselines: Sequence[Trial]) -> Mapping[str, Finding]:
    own = {trial.id for trial in trials}
    others = [trial for trial in baselines if trial.id not in own]
    answers = read_answers(store, [*trials, *others])
    references = References([*trials, *others], answers)
    values: dict[str, dict[str, float]] = {}
    tags: dict[str, dict[str, str]] = {}
    notes: dict[str, str] = {}
    for against, reference_of in (("vs_pretrained", references.baseline), ("vs_plain", references.plain)):
        for comparison in compare_all(trials, reference_of, answers):
            values.setdefault(comparison.trial.id, {}).update(_values(comparison, against))
            own_tags = tags.setdefault(comparison.trial.id, {})
            if against == "vs_pretrained":
                own_tags["verdict"] = comparison.verdict
                notes[comparison.trial.id] = (
                    f"Of {comparison.claims:,} claims {comparison.gained} newly right, {comparison.lost} newly wrong."
                )
            else:
                own_tags["verdict_vs_plain"] = comparison.verdict
    return {trial: Finding(found, tags[trial], notes.get(trial, "")) for trial, found in values.items()}


def _values(comparison: Comparison, against: str) -> dict[str, float]:
    low, high = comparison.accuracy_interval
    found = {
        "accuracy": comparison.accuracy_difference, "accuracy_low": low, "accuracy_high": high,
        "f1_macro": comparison.f1_difference, "p_holm": comparison.p_holm,
    }  # fmt: skip
    return {f"{against}/{name}": value for name, value in found.items() if value == value}


def _pictures(store: Store, index: RecordIndex, damaged: Mapping[str, Mapping[str, str]], name: str) -> list[Picture]:
    """Draw what shows a sweep's main result: alpha and allocation where they vary, else the layers."""
    from sweep.report.figures.alpha import alpha_figures
    from sweep.report.figures.layers import layer_figures

    study = load_study(store, [name], index, damaged)
    references = References(study.trials)
    figures = [*alpha_figures(study.trials, references), *layer_figures(study.trials, references, {})]
    return [Picture(figure.slug, figure.title, _narrow(figure.png)) for figure in figures[:FIGURES]]


def _narrow(png: bytes) -> bytes:
    """Scale a picture down to the width of the column that the UI shows descriptions in."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        if picture.width <= PICTURE_WIDTH:
            return png
        size = (PICTURE_WIDTH, round(picture.height * PICTURE_WIDTH / picture.width))
        small = picture.resize(size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "png", optimize=True)
    return out.getvalue()
