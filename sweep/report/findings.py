"""Comparisons of a sweep's trials as plain values for MLflow, and the pictures of its page there."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from sweep.records.record_files import damaged_files
from sweep.records.study_questions import AGAINST, AGAINST_PRETRAINED, COMPARED, ENDS, RATES, TRUE_RATE, Against
from sweep.records.sweep_storage import RecordIndex, SweepStorage
from sweep.report.answers import Answers, read_answers
from sweep.report.changed import all_changed, changed_answers, changed_samples
from sweep.report.comparisons.by_unit import UnitComparisons
from sweep.report.comparisons.counterfact import ALL, RateComparison, counterfact_comparisons
from sweep.report.comparisons.fever import Comparison, compare_all
from sweep.report.conclusions import Conclusion, conclude
from sweep.report.evidence import Evidence
from sweep.report.references import References, is_baseline
from sweep.report.samples import samples_of
from sweep.report.study import Study, Trial, load_study
from sweep.tracking.address import Tracking
from sweep.tracking.publish import Counts, Extras, Progress
from sweep.tracking.publish import publish as bring_up
from sweep.tracking.run_content import ChangedAnswer, ComparisonResult
from sweep.tracking.sweep_run import Picture

FIGURES = 2
PICTURE_WIDTH = 900  # pixels


def publish_compared(
    storage: SweepStorage,
    names: Sequence[str],
    tracking: Tracking,
    progress: Progress = lambda done, total: None,
    index: RecordIndex | None = None,
    report: Callable[[], None] | None = None,
) -> Counts:
    """Bring MLflow up to date with the records of some sweeps and with how their trials compare.

    Arguments, result and errors are those of `sweep.tracking.publish.publish`; `report` is as `Extras` has it.
    """
    index = storage.index() if index is None else index
    extras = replace(extras_of(storage, names, index), report=report)
    return bring_up(storage, names, tracking, index, progress, extras)


def extras_of(storage: SweepStorage, names: Sequence[str], index: RecordIndex) -> Extras:
    """Compare the trials of some sweeps with the pretrained model and with plain memorising.

    Pretrained trials of other sweeps of the storage serve where the sweep has none of its own. Holm's correction is
    over each sweep's trials.

    Args:
        storage: the storage.
        names: sweeps.
        index: the records of the storage.
    """
    damaged = damaged_files(storage, index.values())
    study = load_study(storage, index=index, damaged=damaged)
    baselines = [trial for trial in study.trials if is_baseline(trial)]
    findings: dict[str, ComparisonResult] = {}
    changed: dict[str, Callable[[], bytes]] = {}
    conclusions: dict[str, tuple[Conclusion, ...]] = {}
    evidence: dict[str, Evidence] = {}
    sweeps = {sweep.name: sweep for sweep in study.sweeps}
    for name in names:
        own = [trial for trial in study.trials if sweeps[name].asks_for(trial)]
        found = _Findings(study, own, baselines)
        findings = {**found.all(), **findings}
        changed = {**found.changed, **changed}
        evidence[name] = found.evidence.of_sweep(study, sweeps[name])
        conclusions[name] = conclude(evidence[name])
    told = {name: [(c.question, c.sentences) for c in own] for name, own in conclusions.items()}
    return Extras(findings, lambda name: _pictures(evidence[name]), changed, told)


class _Findings:
    """What comparing one sweep's trials comes to."""

    def __init__(self, study: Study, trials: Sequence[Trial], baselines: Sequence[Trial]) -> None:
        """Compare; the baselines are those of the whole storage."""
        own = {trial.id for trial in trials}
        everyone = [*trials, *(trial for trial in baselines if trial.id not in own)]
        self.changed: dict[str, Callable[[], bytes]] = {}
        self._values: dict[str, dict[str, float]] = defaultdict(dict)
        self._tags: dict[str, dict[str, str]] = defaultdict(dict)
        self._notes: dict[str, str] = {}
        self._examples: dict[str, tuple[ChangedAnswer, ...]] = {}
        answers = read_answers(study.storage, everyone)
        references = References(everyone, answers)
        compared = []
        for against, reference_of in zip(AGAINST, (references.baseline, references.plain), strict=True):
            compared.append(compare_all(trials, reference_of, answers))
            for comparison in compared[-1]:
                self._add(comparison, against, answers)
        whole = replace(study, trials=tuple(everyone))
        rates = counterfact_comparisons(whole)
        self._add_rates(study, rates, own)
        from_pretrained, from_plain = compared
        units = UnitComparisons(whole).by_probe()
        self.evidence = Evidence("", trials, references, answers, from_pretrained, from_plain, rates, units)

    def all(self) -> dict[str, ComparisonResult]:
        """Return what was found, by trial id."""
        return {
            trial: ComparisonResult(
                values, self._tags[trial], self._notes.get(trial, ""), self._examples.get(trial, ())
            )
            for trial, values in self._values.items()
        }

    def _add(self, found: Comparison, against: Against, answers: Mapping[str, Answers]) -> None:
        trial = found.trial
        low, high = found.accuracy_interval
        values = (found.accuracy_difference, low, high, found.f1_difference, found.p_holm)
        named = zip(COMPARED, values, strict=True)
        self._values[trial.id] |= {f"{against.key}/{name}": value for name, value in named if value == value}
        self._tags[trial.id][against.verdict] = found.verdict
        if trial.id not in self._notes:  # the pretrained model goes first
            base, own = answers[found.reference.id], answers[trial.id]
            self._notes[trial.id] = (
                f"Of {found.claims:,} claims {found.gained:,} newly right, {found.lost:,} newly wrong, compared with "
                f"{against.name}."
            )
            self._examples[trial.id] = changed_answers(trial, own, base)
            self.changed[trial.id] = partial(all_changed, trial, own, base)

    def _add_rates(self, study: Study, rates: Sequence[RateComparison], own: Container[str]) -> None:
        """Add how often sampled answers begin with the targets of CounterFact."""
        named = {quality.metric.partition("/")[2]: quality for quality in RATES}
        for found in rates:
            trial = found.trial
            quality = named.get(found.score)
            if quality is None or found.group != ALL or trial.id not in own:
                continue
            difference = (found.value - found.reference, *found.interval)
            named_values = zip(ENDS, difference, strict=True)
            self._values[trial.id] |= {AGAINST_PRETRAINED.rate(quality, end): value for end, value in named_values}
            self._tags[trial.id][AGAINST_PRETRAINED.verdict_on(quality)] = found.verdict
            if quality is TRUE_RATE:
                pair = (samples_of(study, each) for each in (trial, found.base))
                self._examples[trial.id] = (*self._examples.get(trial.id, ()), *changed_samples(*pair))


def _pictures(evidence: Evidence) -> list[Picture]:
    """Draw what shows a sweep's main results: how its trials compare; alpha and allocation, or else the layers."""
    from sweep.report.figures.alpha import alpha_figures
    from sweep.report.figures.answers import differences_figure
    from sweep.report.figures.layers import layer_figures

    from_pretrained, from_plain = (
        {c.trial.id: c for c in found} for found in (evidence.against_pretrained, evidence.against_plain)
    )
    figures = [figure for figure in [differences_figure(evidence)] if figure]
    left = FIGURES - len(figures)
    more = list(islice(alpha_figures(evidence.trials, evidence.references, from_plain), left))
    more = more or layer_figures(evidence.trials, evidence.references, from_pretrained)
    return [Picture(f.slug, f.title, _narrow(f.png)) for f in [*figures, *more][:FIGURES]]


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
