"""How much each field matters for a result: Optuna's importances, over several forests, as a table with its caveat."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from sweep.records.study_questions import ERROR, RIGHT, Quality
from sweep.report.comparisons.fever import spread
from sweep.report.naming import SEEDS, varying
from sweep.report.references import is_baseline
from sweep.report.study import Trial
from sweep.report.table import MISSING, Cell, Table, cell_text, number

FORESTS = 5
"""Random forests; their spread says how far an importance is an accident of the forest. Optuna's default, fANOVA, takes
65 s for five on 144 trials (one busy core), these 1 s."""
MIN_TRIALS, MOST_TRIALS = 20, 500
"""Ours: below the one a forest of trees tells next to nothing; above the other shares move little, and of 2,400 trials
they took a fifth of the report's time, most of it for comparing the fields that each trial has."""
LEGEND = (
    "Share of the result's variance that splits on a field take away in a random forest over the trials (Optuna's mean "
    f"decrease of impurity; mean ± standard deviation of {FORESTS} forests; of more than {MOST_TRIALS} trials so many, "
    "drawn at random). Read it with care: it describes the "
    "trials that were run, not all that could have been; a field with more values, "
    "or tried over a wider range, looks more important; where stages chose a value from earlier ones, fields are mixed "
    "up with one another; it says nothing about the direction, and no comparison rests on it."
)


def importance_table(trials: Sequence[Trial]) -> Table | None:
    """Return importances for memorisation error and accuracy; None where too few trials vary in too few fields."""
    own = [t for t in trials if t.status == "done" and not is_baseline(t) and t.get("method") != "allocate"]
    names = [name for name in (*varying(own), *_seeds(own)) if any(t.get(name) is not None for t in own)]
    if len(names) < 2:
        return None
    found = {q: shares for q in (ERROR, RIGHT) if (shares := _importances(own, names, q))}
    if not found:
        return None
    ranked = sorted(names, key=lambda name: -max(spread(shares[name]).mean for shares in found.values()))
    rows = tuple(((name,), tuple(_cell(shares[name]) for shares in found.values())) for name in ranked)
    columns = tuple(quality.name for quality in found)
    return Table("importance", "Which field matters most", ("field",), columns, rows, (LEGEND,))


def _seeds(trials: Sequence[Trial]) -> list[str]:
    return [name for name in SEEDS if len({t.get(name) for t in trials}) > 1]


def _cell(shares: Sequence[float]) -> Cell:
    over = spread(shares)
    if over.mean != over.mean:
        return Cell(None, MISSING)
    return Cell(over.mean, f"{number(over.mean, 2)} ± {number(over.sd, 2)}", sd=over.sd)


def _importances(trials: Sequence[Trial], names: Sequence[str], quality: Quality) -> dict[str, list[float]]:
    """Return each field's share for each forest; empty where too few trials have the result, or all the same."""
    import optuna

    measured = [(t, value) for t in trials if (value := t.metric(quality.metric)) is not None]
    if len(measured) < MIN_TRIALS or len({value for _, value in measured}) < 2:
        return {}
    if len(measured) > MOST_TRIALS:
        measured = random.Random(0).sample(measured, MOST_TRIALS)
    choices = {name: sorted({cell_text(t.get(name)) for t, _ in measured}) for name in names}
    used = {name: known for name, known in choices.items() if len(known) > 1}
    if not used:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds: dict[str, Any] = {name: optuna.distributions.CategoricalDistribution(known) for name, known in used.items()}
    study = optuna.create_study()
    study.add_trials([
        optuna.trial.create_trial(
            params={name: cell_text(t.get(name)) for name in used}, distributions=kinds, value=value
        )
        for t, value in measured
    ])  # fmt: skip
    shares: dict[str, list[float]] = {name: [] if name in used else [0.0] * FORESTS for name in names}
    for seed in range(FORESTS):
        evaluator = optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=seed)
        for name, share in optuna.importance.get_param_importances(study, evaluator=evaluator).items():
            shares[name].append(float(share))
    return shares
