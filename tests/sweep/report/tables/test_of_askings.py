"""Askings that were added later, beside the trials' own."""

from __future__ import annotations

from dataclasses import replace

from sweep.records.sweep_storage import SweepStorage
from sweep.report.study import Study, load_study
from sweep.report.tables.of_askings import asking_tables, later_askings

LATER = "fever:num_shots=5"


def study_of(fake, with_base: bool = True) -> tuple[Study, dict[str, str]]:
    """A memory that answers as the pretrained model, but better when it is asked with five shots."""
    fields = {"num_documents": 20, "metrics": {"memory/nll": 1.0}}
    ids = {
        "base": fake.add("s", "all", method="pretrained", num_documents=20, accuracy=0.3),
        "memory": fake.add("s", "all", layer=1, accuracy=0.3, **fields),
        "good": fake.add("other", "all", layer=2, accuracy=0.9, **fields),
    }
    fake.write_plans()
    study = load_study(SweepStorage(str(fake.root)), ["s"])
    (good,) = (t for t in load_study(SweepStorage(str(fake.root)), ["other"]).trials)
    again = {ids["base"]: None if with_base else (), ids["memory"]: good}
    trials = []
    for trial in study.trials:
        source = again[trial.id]
        if source == ():
            trials.append(trial)
            continue
        source = source or trial
        metrics = {**trial.metrics, f"{LATER}/accuracy": source.metrics["fever/accuracy"]}
        trials.append(replace(trial, metrics=metrics, answers={**trial.answers, LATER: source.answers["fever"]}))
    return replace(study, trials=tuple(trials)), ids


def test_each_asking_is_compared_with_the_pretrained_model_asked_the_same(fake):
    study, ids = study_of(fake)
    (summary, each), data = asking_tables(study, resamples=300)
    rows = {labels[0]: [cell.value for cell in cells] for labels, cells in summary.rows}
    assert rows["fever"][4:] == [0.0, 0.0, 1.0] and rows[LATER][4:] == [1.0, 0.0, 0.0]
    accuracy = {t.id: t.metrics for t in study.trials}
    assert rows[LATER][1] == accuracy[ids["base"]]["fever/accuracy"]
    assert rows[LATER][3] == rows[LATER][2] - rows[LATER][1] > 0.3
    assert each.columns == ("fever", LATER) and each.trials[each.rows.index(each.rows[0])] in ids.values()
    told = {row["trial"]: row for row in data[each.slug]}
    assert told[ids["memory"]][f"{LATER}/accuracy"] == accuracy[ids["memory"]][f"{LATER}/accuracy"]


def test_what_the_pretrained_model_was_not_asked_is_shown_and_not_compared(fake):
    study, _ = study_of(fake, with_base=False)
    summary = asking_tables(study, resamples=300)[0][0]
    cells = dict(summary.rows)[(LATER,)]
    assert cells[2].value is not None and [cell.value for cell in cells[3:]] == [None] * 4


def test_without_later_askings_there_is_no_section(fake):
    fake.add("s", "all", layer=1)
    fake.write_plans()
    study = load_study(SweepStorage(str(fake.root)))
    assert later_askings(study.trials) == {} and asking_tables(study) == ([], {})
