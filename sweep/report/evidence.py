"""What conclusions on a sweep are drawn from: its trials, what they are compared with, and the comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sweep.report.answers import Answers
from sweep.report.comparisons.by_unit import UnitComparison
from sweep.report.comparisons.counterfact import ALL, RateComparison
from sweep.report.comparisons.fever import MIN_PAGES, Comparison, holm, holm_corrected
from sweep.report.references import References
from sweep.report.study import Study, Sweep, Trial
from sweep.report.table import interval_text, number, p_text
from trainables.node.addresses import shown


@dataclass(frozen=True)
class Difference:
    """A trial against the pretrained model, whatever was asked: positive is better.

    Attributes:
        trial: the trial.
        value: of the difference.
        interval: 95 %.
        p: after Holm's correction.
        verdict: 1 better, -1 worse, 0 no difference found.
        telling: whether there is enough behind it for a verdict.
    """

    trial: Trial
    value: float
    interval: tuple[float, float]
    p: float
    verdict: int
    telling: bool = True

    def text(self) -> str:
        """Print it with its interval and p."""
        told = interval_text(self.interval)
        return f"{number(self.value, sign=True)} {told}, corrected p {p_text(self.p)}"


@dataclass(frozen=True)
class Evidence:
    """All that conclusions on one sweep are drawn from.

    Attributes:
        sweep: its place in the storage, as a person would type it.
        trials: of the sweep.
        references: what they are compared with.
        answers: to FEVER, by trial id.
        against_pretrained, against_plain: FEVER answers compared.
        rates: CounterFact answers compared.
        units: answers to other probes compared, by the probe's name.
        missing: planned points without a record.
    """

    sweep: str
    trials: Sequence[Trial]
    references: References
    answers: Mapping[str, Answers]
    against_pretrained: Sequence[Comparison]
    against_plain: Sequence[Comparison]
    rates: Sequence[RateComparison] = ()
    units: Mapping[str, Sequence[UnitComparison]] = field(default_factory=dict)
    missing: int = 0

    def of_sweep(self, study: Study, sweep: Sweep) -> Evidence:
        """Return the part that one sweep asks for, p values corrected over its trials alone."""
        own = {t.id for t in study.trials if sweep.asks_for(t)}
        rates = [c for c in self.rates if c.trial.id in own]
        units = {probe: [c for c in found if c.trial.id in own] for probe, found in self.units.items()}
        return replace(
            self,
            sweep=shown(study.storage.full(sweep.name)),
            trials=[t for t in study.trials if t.id in own],
            against_pretrained=holm([c for c in self.against_pretrained if c.trial.id in own]),
            against_plain=holm([c for c in self.against_plain if c.trial.id in own]),
            rates=[replace(c, p_holm=p) for c, p in zip(rates, holm_corrected([c.p for c in rates]), strict=True)],
            units={
                probe: [replace(c, p_holm=p) for c, p in zip(found, holm_corrected([c.p for c in found]), strict=True)]
                for probe, found in units.items()
            },
            missing=len({i for stage in sweep.stages for i in stage.awaited}) + sum(s.unknown for s in sweep.stages),
        )

    @property
    def trained(self) -> list[Trial]:
        """The trials of something that was trained and has a result."""
        return [t for t in self.trials if t.status == "done" and t.get("method") not in ("pretrained", "allocate")]


def differences_from_pretrained(evidence: Evidence) -> tuple[str, list[Difference]]:
    """Return what was compared with the pretrained model, in words, and how: of what was asked the most telling."""
    if evidence.against_pretrained:
        return "FEVER accuracy", [of_fever(c) for c in evidence.against_pretrained]
    rates = [c for c in evidence.rates if c.score == "true_rate" and c.group == ALL]
    if rates:
        signs = {"higher": 1, "lower": -1}
        name = "share of answers that begin with CounterFact's true target"
        return name, [
            Difference(c.trial, c.value - c.reference, c.interval, c.p_holm, signs.get(c.verdict, 0)) for c in rates
        ]
    for probe, score, name in (
        ("choices", "accuracy", "share of questions with choices that are answered right"),
        ("recall", "token_accuracy", "share of a document's tokens that are recalled"),
    ):
        own = [c for c in evidence.units.get(probe, ()) if c.score == score]
        if own:
            return name, of_units(own)
    return "", []


def of_units(found: Sequence[UnitComparison]) -> list[Difference]:
    """Return comparisons of other answers as differences."""
    signs = {"better": 1, "worse": -1}
    return [Difference(c.trial, c.after - c.before, c.interval, c.p_holm, signs.get(c.verdict, 0)) for c in found]


def of_fever(found: Comparison) -> Difference:
    """Return a comparison of FEVER answers as a difference."""
    verdict = {"better": 1, "worse": -1}.get(found.verdict, 0)
    enough = found.pages >= MIN_PAGES
    return Difference(found.trial, found.accuracy_difference, found.accuracy_interval, found.p_holm, verdict, enough)
