"""What a sweep comes to in sentences, on made-up records whose answers are known."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from sweep.records.sweep_storage import SweepStorage
from sweep.report.answers import read_answers
from sweep.report.build import build_report
from sweep.report.comparisons.by_unit import UnitComparison, unit_comparisons
from sweep.report.comparisons.counterfact import counterfact_comparisons
from sweep.report.comparisons.fever import compare_all
from sweep.report.conclusions import COST, HELPS, LAYER, STRUCTURE, SURE, Conclusion, conclude
from sweep.report.evidence import Evidence
from sweep.report.figures.answers import answer_figures
from sweep.report.findings import extras_of
from sweep.report.probe_rows import ASKED
from sweep.report.references import References
from sweep.report.study import load_study

pytestmark = pytest.mark.usefixtures("unpainted")
PAGES = 20
RESAMPLES = 300


def concluded(fake, sweep: str = "s") -> dict[str, Conclusion]:
    """Return the conclusions on one sweep by their keys."""
    fake.write_plans()
    study = load_study(SweepStorage(str(fake.root)), [sweep])
    answers = read_answers(study.storage, study.everyone)
    references = References(study.everyone, answers)
    pretrained, plain = (
        compare_all(study.trials, of, answers, resamples=RESAMPLES) for of in (references.baseline, references.plain)
    )
    rates = counterfact_comparisons(study, RESAMPLES)
    units = {probe.name: unit_comparisons(study, probe, RESAMPLES) for probe in ASKED}
    evidence = Evidence("", study.trials, references, answers, pretrained, plain, rates, units)
    return {c.key: c for c in conclude(evidence.of_sweep(study, study.sweeps[0]))}


def add(fake, accuracy, sweep="s", **fields):
    fields = {"num_documents": PAGES, "method": "memory", **fields}
    if fields["method"] != "pretrained":
        fields = {"layer": 3, "metrics": {"memory/nll": 1.0}, **fields}
    return fake.add(sweep, "all", accuracy=accuracy, **fields)


def right_of(fake, ident: str) -> list[bool]:
    import pyarrow.parquet as pq

    (path,) = fake.root.rglob(f"{ident}/predictions.parquet")
    return pq.read_table(path)["correct"].to_pylist()


def test_a_clear_win_is_a_yes_with_its_size_interval_and_corrected_p(fake):
    base = add(fake, 0.3, method="pretrained")
    low, high = (add(fake, accuracy, layer=layer) for layer, accuracy in ((1, 0.6), (2, 0.9)))
    yes, largest, *_ = concluded(fake)[HELPS].sentences
    assert yes == "Yes, all 2 trials are better (FEVER accuracy, against the pretrained model)."
    study = load_study(SweepStorage(str(fake.root)))
    accuracy = {t.id: t.metric("fever/accuracy") for t in study.trials}
    assert f"is +{accuracy[high] - accuracy[base]:.3f} [+" in largest and "layer 2" in largest
    assert "largest gain (of 2, so likely overstated)" in largest
    answers = [right_of(fake, ident) for ident in (base, low, high)]
    ps = []
    for own in answers[1:]:
        gained = sum(a and not b for a, b in zip(own, answers[0], strict=True))
        lost = sum(b and not a for a, b in zip(own, answers[0], strict=True))
        ps.append(binomtest(gained, gained + lost).pvalue)
    assert max(ps) < 0.0005 and "corrected p < 0.001" in largest


def test_a_clear_loss_is_a_no(fake):
    add(fake, 0.9, method="pretrained")
    add(fake, 0.2)
    no, largest = concluded(fake)[HELPS].sentences
    assert no == "No, the one trial compared is worse (FEVER accuracy, against the pretrained model)."
    assert largest.startswith("The difference is −0.")


def test_wins_and_losses_depend_and_are_counted_by_model(fake):
    for model, accuracy in (("pythia-1b", 0.9), ("llama2-7b", 0.1)):
        add(fake, 0.5, method="pretrained", model=model)
        add(fake, accuracy, model=model)
    lead, _, by_model = concluded(fake)[HELPS].sentences
    assert lead.startswith("It depends: of 2 trials 1 better and 1 worse")
    assert "pythia-1b: 1 better, 0 worse of 1" in by_model and "llama2-7b: 0 better, 1 worse of 1" in by_model


def test_a_tie_finds_no_difference_and_says_how_small_one_could_have_been_seen(fake):
    add(fake, 0.5, method="pretrained")
    add(fake, 0.5, answer_seed=3)
    found = concluded(fake)
    assert found[HELPS].sentences[0].startswith("No difference was found: the one trial compared is neither")
    assert any(s.startswith("The median interval reaches 0.0") for s in found[SURE].sentences)


def test_answers_that_stay_as_they_are_are_told_without_an_interval_of_nothing(fake):
    add(fake, 0.5, method="pretrained")
    add(fake, 0.5)
    told = " ".join(concluded(fake)[SURE].sentences)
    assert "In 1 of them no claim became right or wrong." in told and "median interval" not in told


def test_the_largest_of_the_real_gains_is_named_not_a_larger_one_that_is_none(fake):
    add(fake, 0.4, method="pretrained")
    add(fake, 0.4, method="pretrained", num_documents=4)
    real = add(fake, 0.7, layer=1)
    add(fake, 1.0, layer=2, num_documents=4)
    lead, largest = concluded(fake)[HELPS].sentences[:2]
    assert lead.startswith("Yes, in 1 of 2 trials") and "layer 1, 20 documents" in largest and real
    assert "In 1 of them there are fewer than 6 pages" in " ".join(concluded(fake)[SURE].sentences)


@pytest.mark.parametrize(
    "trials, why",
    [
        ([], "no trained trial has a result yet"),
        ([{"accuracy": 0.5, "status": "failed"}], "none of 1 trials that ended has a result"),
        ([{"accuracy": None, "probes": ()}], "no trained trial was asked anything"),
        ([{"accuracy": 0.5}], "the storage holds no pretrained model"),
        (
            [{"accuracy": 0.5}, {"accuracy": 0.5, "method": "pretrained", "seed": 7}],
            "no pretrained model was asked the same",
        ),
    ],
)  # fmt: skip
def test_where_nothing_can_be_compared_the_reason_is_said(fake, trials, why):
    fake.add("s", "all", write=False, depth=1.0)
    for fields in trials:
        add(fake, **fields)
    (only,) = concluded(fake)[HELPS].sentences
    assert only.startswith(f"No trial could be compared with the pretrained model: {why}")


def test_a_pretrained_model_of_another_sweep_serves(fake):
    add(fake, 0.2, sweep="few_shot", method="pretrained")
    add(fake, 0.9)
    assert concluded(fake)[HELPS].sentences[0].startswith("Yes, the one trial")


def test_the_layer_that_memorises_best_is_named_and_layers_that_answer_otherwise(fake):
    for layer, nll, accuracy in ((1, 2.0, 0.9), (2, 1.0, 0.3), (3, 1.5, 0.31)):
        add(fake, accuracy, layer=layer, model="pythia-1b", metrics={"memory/nll": nll})
    lead, details = concluded(fake)[LAYER].sentences
    assert lead == "Layer 2 of 16 in pythia-1b memorises best (layers count from 0)."
    assert details.startswith("pythia-1b: 1.000 NLL per token at layer 2, then 1.500 at layer 3;")
    assert "against it: layer 1 better (+0." in details and "layer 3" not in details.split("against it")[1]


def test_structure_is_held_against_plain_memorising(fake):
    add(fake, 0.3)
    for alpha, accuracy in ((0.5, 0.9), (1.0, 0.3)):
        add(fake, accuracy, allocation="random", alpha=alpha, metrics={"memory/nll": 1.2 - alpha / 10})
    lead, largest, best = concluded(fake)[STRUCTURE].sentences
    assert lead.startswith("Of 2 structured memories 1 better and 0 worse")
    assert "alpha 0.5" in largest
    assert "random alpha 1 memorises best, 1.100 NLL per token (plain memorising: 1.000)" in best


@pytest.mark.parametrize("names", [["s"], ["s", "t"]])
@pytest.mark.thorough(only=("names1",))
def test_each_answer_of_the_first_page_has_its_figure(fake, names):
    for sweep in names:
        add(fake, 0.3, sweep, method="pretrained")
        for layer in (1, 3):
            add(fake, 0.5, sweep, layer=layer)
        add(fake, 0.6, sweep, allocation="random", mode="hard")
    fake.write_plans()
    study = load_study(SweepStorage(str(fake.root)))
    found = build_report(study).answers
    drawn = {answer.question: answer.figure and answer.figure.slug for answer in found}
    for sweep in names:
        heading, end = (f"{sweep}: ", f"_{sweep}") if len(names) > 1 else ("", "")
        assert drawn[f"{heading}Does memorising help?"] == f"differences{end}"
        assert drawn[f"{heading}Which layer?"] == f"by_layer{end}"
        assert drawn[f"{heading}Does structure help: which alpha, which allocation?"] == f"structure{end}"
        assert drawn[f"{heading}How sure is this?"] == f"sure{end}"
    slugs = [slug for slug in drawn.values() if slug]
    assert len(slugs) == len(set(slugs)) and len(slugs) == 4 * len(names)


def test_how_sure_counts_and_measures_other_answers_too(fake):
    add(fake, 0.3)
    fake.write_plans()
    (trial,) = load_study(SweepStorage(str(fake.root))).trials
    changes = [UnitComparison(trial, trial, "accuracy", 40, 10, 0.25, 0.5, (0.05, 0.45), 0.01, False, 0.01)]
    evidence = Evidence("", [trial], References([trial], {}), {}, [], [], (), {"choices": changes})
    sure = {c.key: c for c in conclude(evidence)}[SURE]
    assert sure.sentences[0].startswith("1 comparison of the share of questions with choices")
    assert "reaches 0.200 to either side" in sure.sentences[0]
    assert {HELPS, SURE} == set(answer_figures(evidence))


def test_what_was_not_asked_is_said_with_the_command_that_asks_it(fake):
    add(fake, 0.3)
    (told,) = concluded(fake)[COST].sentences
    assert f"python -m sweep.evaluate {fake.root}/s --probe forgetting" in told


def test_one_seed_is_said_and_several_are_told_with_their_spread(fake):
    add(fake, 0.5, layer=1)
    assert "one seed" in " ".join(concluded(fake)[SURE].sentences)
    add(fake, 0.7, layer=1, seed=1)
    told = " ".join(concluded(fake)[SURE].sentences)
    assert "one seed" not in told and "with 2 seeds, whose accuracy differs by 0." in told


def test_what_is_lost_is_counted(fake):
    add(fake, 0.5, layer=1)
    add(fake, 0.5, layer=2, status="diverged")
    fake.add("s", "all", depth=1.0, write=False)
    assert "Not in it: 1 diverged, 1 without a result yet." in concluded(fake)[SURE].sentences


@pytest.mark.thorough(beside="test_a_pretrained_model_of_another_sweep_serves")
def test_report_and_mlflow_say_the_same_also_where_sweeps_share_a_storage(fake):
    add(fake, 0.2, sweep="few_shot", method="pretrained")
    add(fake, 0.9)
    add(fake, 0.6, allocation="random", alpha=0.5)
    add(fake, 0.55, sweep="other", layer=5)
    fake.write_plans()
    storage = SweepStorage(str(fake.root))
    told = extras_of(storage, ["s", "other"], storage.index()).conclusions
    for name in ("s", "other"):
        answers = build_report(load_study(storage, [name])).answers
        assert [(a.question, tuple(a.sentences)) for a in answers] == list(told[name])
    together = build_report(load_study(storage)).answers
    said = {a.question: tuple(a.sentences) for a in together}
    for name in ("s", "other"):
        for question, sentences in told[name]:
            assert said[f"{name}: {question}"] == sentences
