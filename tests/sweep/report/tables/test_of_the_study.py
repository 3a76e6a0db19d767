"""The notes' tables: what stands in which cell, bold, missing, seeds, and the notes' own numbers."""

from __future__ import annotations

import io

import pyarrow.parquet as pq

from sweep.records.sweep_storage import SweepStorage
from sweep.report.answers import read_answers
from sweep.report.notes import CONTENT, FEW_SHOT, FULL_UPDATE, note_value
from sweep.report.references import References
from sweep.report.render import markdown_table
from sweep.report.study import load_study
from sweep.report.table import records_of, to_csv, to_parquet
from sweep.report.tables.of_comparisons import beside_the_notes, seeds_table
from sweep.report.tables.of_the_study import study_tables


def tables_of(fake):
    """Return every table by its file name."""
    study = load_study(SweepStorage(str(fake.root)))
    references = References(study.trials, read_answers(study.storage, study.trials))
    sections = study_tables(study, references)
    return {table.slug: table for tables in sections.values() for table in tables}


def cells(table):
    """Return the printed cells by row label, the best marked by a star."""
    return {
        labels: dict(zip(table.columns, (c.text + "*" * c.best for c in row), strict=True))
        for labels, row in table.rows
    }


def fever(accuracy: float, macro: float = 0.1) -> dict[str, float]:
    return {"fever/accuracy": accuracy, "fever/f1_macro": macro}


def test_model_by_shots_with_best_bold_and_missing_cells_shown(fake):
    for shots, accuracy in ((0, 0.1), (1, 0.46), (3, 0.4)):
        fake.add("few", "all", model="pythia-1b", method="pretrained", num_shots=shots, metrics=fever(accuracy))
    fake.add("few", "all", model="pythia-70m", method="pretrained", num_shots=1, status="failed")
    table = tables_of(fake)["few_shot_accuracy"]
    assert table.columns == ("0", "1", "3")
    assert cells(table)["pythia-1b",] == {"0": "0.100", "1": "0.460*", "3": "0.400"}
    assert cells(table)["pythia-70m",] == {"0": "—", "1": "failed", "3": "—"}
    assert "| pythia-1b | 0.100 | **0.460** | 0.400 |" in markdown_table(table)
    assert any(line.startswith("—: no result") for line in table.legend)


def test_what_is_memorised_by_weight_decay_beside_the_baseline(fake):
    fake.add("c", "all", model="pythia-1b", method="pretrained", metrics=fever(0.3))
    for decay in (0.05, 0.01):
        for content, accuracy in (("document", 0.31), ("template", 0.33), ("document+template", 0.32)):
            fake.add(
                "c", "all", model="pythia-1b", depth=0.75, content=content, weight_decay=decay,
                template_loss="answer", metrics=fever(accuracy + decay),
            )  # fmt: skip
    table = tables_of(fake)["content_accuracy"]
    assert table.columns[:2] == ("pretrained", "document")
    row = cells(table)["pythia-1b", "memory", "0.05"]
    assert list(row.values()) == ["0.300", "0.360", "0.380*", "0.370"]
    assert list(cells(table)["pythia-1b", "memory", "0.01"].values()) == ["0.300", "0.320", "0.340", "0.330"]


def test_structure_has_pretrained_and_unstructured_beside_each_allocation(fake):
    shared = {"model": "pythia-1b", "num_documents": 10}
    fake.add("s", "all", method="pretrained", metrics=fever(0.5), **shared)
    fake.add("s", "all", layer=3, metrics={**fever(0.6), "memory/nll": 1.0}, **shared)
    for granularity in ("dim", "token"):
        fake.add(
            "s", "all", layer=3, allocation="simset1", granularity=granularity, mode="hard",
            metrics={**fever(0.4), "memory/nll": 1.5, "memory/nll_before": 3.0}, **shared,
        )  # fmt: skip
    found = tables_of(fake)
    row = cells(found["structure_accuracy"])["pythia-1b", "3", "yes"]
    assert row == {
        "pretrained": "0.500", "unstructured": "0.600*", "simset1-dim": "0.400", "simset1-token": "0.400",
    }  # fmt: skip
    assert cells(found["structure_nll"])["pythia-1b", "3", "yes"]["pretrained"] == "3.000"


def test_alpha_by_allocation_shares_the_plain_trial_at_alpha_zero(fake):
    fake.add("i", "all", depth=0.5, metrics={"memory/nll": 1.0, "memory/leakage_random": 0.8})
    for allocation in ("random", "partitioned"):
        fake.add(
            "i", "all", depth=0.5, allocation=allocation, alpha=0.2,
            metrics={"memory/nll": 0.9, "memory/leakage": 0.3},
        )  # fmt: skip
    fake.add("i", "all", depth=0.5, allocation="random", alpha=5, write=False)
    found = tables_of(fake)
    nll = cells(found["alpha_allocation_10_nll"])
    assert {labels[2]: row for labels, row in nll.items()} == {
        "partitioned": {"0": "1.000", "0.2": "0.900*"}, "random": {"0": "1.000", "0.2": "0.900*"},
    }  # fmt: skip
    leakage = {labels[2]: row["0"] for labels, row in cells(found["alpha_allocation_10_leakage"]).items()}
    assert leakage == {"partitioned": "—", "random": "0.800"}


def test_leakage_of_plain_memorising_is_out_of_the_very_sets_of_the_row(fake):
    plain = {"memory/nll": 1.0, "memory/leakage_simset2": 0.88, "memory/leakage_simset2_g2": 0.41}
    plain |= {"memory/leakage_simset2_g2_s1": 0.43}
    fake.add("i", "all", depth=0.5, metrics=plain)
    for values in ({}, {"num_clusters": 2}, {"num_clusters": 2, "mem_seed": 1}, {"num_clusters": 3}):
        fake.add("i", "all", depth=0.5, allocation="simset2", alpha=1, metrics={"memory/leakage": 0.4}, **values)
    fake.add("i", "all", depth=0.5, allocation="simset2", granularity="token", alpha=1, metrics={"memory/leakage": 0.4})
    table = tables_of(fake)["alpha_allocation_10_leakage"]
    groups, granularity = table.labels.index("num_clusters"), table.labels.index("granularity")
    found = {(labels[groups], labels[granularity]): cells[0].text for labels, cells in table.rows}
    assert found == {
        ("—", "dim"): "0.880", ("—", "token"): "—", ("2", "dim"): "0.420 ± 0.014", ("3", "dim"): "—",
    }  # fmt: skip
    assert "was not measured under simset2-token, simset2_g3," in table.legend[-1]


def test_best_layer_is_the_one_with_the_lowest_error(fake):
    for layer, nll in ((1, 1.2), (3, 0.8), (5, 0.9)):
        fake.add("l", "all", model="pythia-1b", layer=layer, metrics={"memory/nll": nll})
    table = tables_of(fake)["best_layer"]
    ((labels, row),) = table.rows
    assert labels == ("pythia-1b", "10")
    assert [cell.text for cell in row][:3] == ["3", "25%", "0.800"]
    assert row[-1].text == "5, 1"


def test_errors_per_token_are_ranked_within_a_model_and_those_per_byte_over_all(fake):
    for model, layer, nll, per_byte in (
        ("pythia-1b", 1, 2.0, 0.5), ("pythia-1b", 2, 2.1, 0.52), ("llama2-7b", 1, 1.0, 0.6),
        ("llama2-7b", 2, 1.9, 0.51),
    ):  # fmt: skip
        fake.add("b", "all", model=model, layer=layer, metrics={"memory/nll": nll, "memory/nll_per_byte": per_byte})
    found = tables_of(fake)
    assert "best_nll" not in found
    assert [row[0].text for _, row in found["best_nll_pythia-1b"].rows] == ["2.000", "2.100"]
    assert [row[0].text for _, row in found["best_nll_llama2-7b"].rows] == ["1.000", "1.900"]
    assert [row[1].text for _, row in found["best_nll_per_byte"].rows] == ["0.500", "0.510", "0.520", "0.600"]


def test_whatever_else_differs_gets_its_own_rows(fake):
    for lr in (0.001, 0.01):
        for layer in (1, 2):
            fake.add("l", "all", model="pythia-1b", layer=layer, lr=lr, metrics={"memory/nll": 1 + lr * layer})
    table = tables_of(fake)["layers"]
    assert table.labels == ("model", "layer", "lr")
    assert len(table.rows) == 4


def test_seeds_share_a_cell_and_get_an_interval(fake):
    for seed, accuracy in enumerate((0.4, 0.5, 0.6)):
        fake.add("few", "all", method="pretrained", seed=seed, metrics=fever(accuracy))
    found = tables_of(fake)
    assert next(iter(cells(found["few_shot_accuracy"]).values())) == {"1": "0.500 ± 0.100"}
    study = load_study(SweepStorage(str(fake.root)))
    table = seeds_table(study.trials)
    ((_, row),) = table.rows
    assert [row[0].text, row[3].text, row[4].text] == ["3", "0.500 ± 0.100", "[0.252, 0.748]"]


def test_a_sampled_axis_makes_no_table_of_a_hundred_columns(fake):
    for index in range(20):
        fake.add(
            "t",
            "all",
            depth=0.5,
            allocation="random",
            alpha=0.1 + 0.01 * index,
            metrics={"memory/nll": 1.0 + index},
        )
    found = tables_of(fake)
    assert not any(slug.startswith("alpha_allocation") for slug in found)
    assert found["best_nll"].rows[0][1][0].text == "1.000"


def test_csv_and_parquet_hold_the_raw_numbers(fake):
    fake.add("few", "all", model="pythia-1b", method="pretrained", num_shots=0, metrics=fever(0.123456789))
    fake.add("few", "all", model="pythia-70m", method="pretrained", num_shots=0, status="diverged")
    rows = records_of(tables_of(fake)["few_shot_accuracy"])
    assert rows == [{"model": "pythia-1b", "0": 0.123456789}, {"model": "pythia-70m", "0": "diverged"}]
    assert to_csv(rows) == "model,0\npythia-1b,0.123456789\npythia-70m,diverged\n"
    assert pq.read_table(io.BytesIO(to_parquet(rows)))["0"].to_pylist() == ["0.123456789", "diverged"]


def test_the_notes_stand_beside_the_same_point_at_full_scale_only(fake):
    shared = {"model": "llama2_chat-7b", "num_documents": 100}
    fake.add("n", "all", method="pretrained", n_trunc=99, metrics=fever(0.64, 0.46), accuracy=None, **shared)
    fake.add("n", "all", method="pretrained", num_shots=2, n_trunc=90, metrics=fever(0.5), accuracy=None, **shared)
    fake.add("n", "all", depth=0.75, weight_decay=0.01, n_trunc=99, metrics=fever(0.64), accuracy=None, **shared)
    fake.add("n", "all", depth=0.3, weight_decay=0.01, n_trunc=99, metrics=fever(0.64), accuracy=None, **shared)
    study = load_study(SweepStorage(str(fake.root)))
    table = beside_the_notes(study.trials)
    found = {labels[1]: [c.text for c in row] for labels, row in table.rows}
    assert found == {
        "pretrained": ["0.640", "0.636", "+0.004", "0.460", "0.457", "+0.003"],
        "document": ["0.640", "0.639", "+0.001", "0.100", "—", "—"],
    }


def test_note_001_at_449_pages(fake):
    shared = {"model": "llama2_chat-7b", "num_documents": 500, "layer": 24, "n_trunc": 449, "accuracy": None}
    fake.add("n", "all", metrics=fever(0.6), **shared)
    hard = {"mode": "hard", "allocation": "simset2", "granularity": "token"}
    fake.add("n", "all", metrics=fever(0.6), norm_and_gate=False, **hard, **shared)
    fake.add("n", "all", metrics=fever(0.6), norm_and_gate=True, **hard, **shared)
    study = load_study(SweepStorage(str(fake.root)))
    notes = {(t.get("allocation"), t.get("norm_and_gate")): note_value(t) for t in study.trials}
    assert notes["none", True].accuracy == 0.652
    assert notes["simset2", False].accuracy == 0.653
    assert notes["simset2", True] is None


def test_the_notes_numbers_are_whole():
    assert len(FEW_SHOT) == 12 and all(len(row) == 6 for pair in FEW_SHOT.values() for row in pair)
    assert FEW_SHOT["llama2-13b"][0][1] == 0.460 and FEW_SHOT["llama2-13b"][1][1] == 0.319
    assert FEW_SHOT["pythia-1.4b"] == (
        (0.059, 0.009, 0.139, 0.177, 0.275, 0.176), (0.067, 0.008, 0.102, 0.133, 0.178, 0.176),
    )  # fmt: skip
    assert len(CONTENT[0.05]) == 12 and len(CONTENT[0.01]) == 3
    assert CONTENT[0.01]["llama2_chat-7b"] == (0.639, 0.650, 0.642)
    assert FULL_UPDATE["pythia-410m", "document+template"] == 0.024


def test_what_is_trained_is_laid_out_where_several_methods_are(fake):
    def trained(method, params, flops, nll, **values):
        metrics = {"train/params": params, "train/flops": flops, "memory/nll": nll, "memory/nll_before": 3.0}
        fake.add("a", "all", model="pythia-70m", method=method, metrics={**metrics, **fever(0.4)}, **values)

    trained("pretrained", 0.0, 0.0, 3.0)
    trained("memory", 1000.0, 2e12, 2.0, layer=1)
    assert "methods" not in tables_of(fake)
    for rank, params in ((2, 900.0), (4, 1800.0)):
        trained("lora", params, 2.5e12, 1.5 + rank / 10, layer=1, rank=rank)
    table = tables_of(fake)["methods"]
    by_name = {(labels[1], labels[table.labels.index("rank")]): row for labels, row in table.rows}
    lora = dict(zip(table.columns, by_name["lora", "2"], strict=True))
    assert (lora["parameters"].text, lora["training TFLOP"].text) == ("900", "2.500")
    assert lora["NLL"].best and not any(
        row[table.columns.index("NLL")].best for k, row in by_name.items() if k[1] != "2"
    )
    assert len(table.rows) == 4
