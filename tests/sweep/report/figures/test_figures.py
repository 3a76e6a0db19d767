"""What the figures are made of: curves, targets, panels, analyses."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from sweep.records.sweep_storage import SweepStorage
from sweep.report.figures.alpha import alpha_figures, default_target, epochs_to
from sweep.report.figures.drawing import finish, panels
from sweep.report.figures.guidance import guidance_figures, words_table
from sweep.report.figures.layers import (
    bands_told,
    draw_band,
    error_curve,
    mean_curve,
    nll_curve,
    pretrained_error,
    seed_interval,
)
from sweep.report.figures.simset import Analysis, analyses, simset_table
from sweep.report.references import References, plain_by_layer
from sweep.report.study import Trial, load_study

FALL = [(0.0, 3.0), (1.0, 2.0), (2.0, 1.0)]


@pytest.mark.parametrize("target, epoch", [(3.5, 0.0), (2.0, 1.0), (1.5, 1.5), (0.9, None)])
def test_epochs_to_a_target_are_read_between_epochs(target, epoch):
    assert epochs_to(FALL, target) == epoch


def test_the_default_target_is_most_of_what_plain_memorising_reaches():
    assert default_target(FALL, []) == pytest.approx(3.0 - 0.8 * 2.0)
    assert default_target([], [[(0.0, 3.0), (1.0, 2.5)], FALL]) == pytest.approx(3.0 - 0.8 * 2.0)
    assert default_target([], []) is None


def test_curves_of_several_seeds_are_averaged_where_all_have_a_value():
    assert mean_curve([[(0, 1.0), (1, 3.0)], [(0, 2.0), (1, 1.0), (2, 0.0)], []]) == [(0, 1.5), (1, 2.0)]
    assert mean_curve([]) == []


def test_the_error_curve_starts_before_training(fake):
    curves = {"train/nll": [[1, 2.0], [2, 1.0]], "memory/nll": [[2, 0.9]]}
    fake.add("s", "all", depth=0.5, metrics={"memory/nll": 0.9, "memory/nll_before": 3.0}, curves=curves)
    (trial,) = load_study(SweepStorage(str(fake.root))).trials
    assert nll_curve(trial) == FALL


def test_layers_start_at_their_own_untrained_memory_beside_the_pretrained_line(fake):
    curves = {"train/nll": [[1, 2.0], [2, 1.0]], "memory/nll": [[2, 0.9]]}
    metrics = {"memory/nll": 0.9, "memory/nll_before": 3.0}
    fake.add("s", "all", layer=1, metrics=metrics, curves={**curves, "memory/nll_untrained": [[0, 4.0]]})
    fake.add("s", "all", layer=2, metrics=metrics, curves={**curves, "memory/nll": [[0, 5.0], [2, 0.9]]})
    fake.add("s", "all", layer=3, metrics=metrics, curves=curves)
    trials = {t.get("layer"): t for t in load_study(SweepStorage(str(fake.root))).trials}
    assert error_curve(trials[1]) == [(0.0, 4.0), *FALL[1:]]
    assert error_curve(trials[2]) == [(0.0, 5.0), (2.0, 0.9)]
    assert error_curve(trials[3]) == FALL[1:], "an earlier version did not measure it"
    assert pretrained_error(trials.values()) == 3.0


def test_layers_are_compared_at_the_most_documents_and_equal_settings(fake):
    for layer in (1, 2, 3):
        for documents in (10, 20):
            fake.add(
                "s",
                "all",
                model="pythia-1b",
                layer=layer,
                num_documents=documents,
                metrics={"memory/nll": 1.0},
            )
    fake.add("s", "all", model="pythia-1b", layer=9, num_documents=20, lr=0.1, metrics={"memory/nll": 1.0})
    fake.add("s", "all", model="pythia-70m", layer=1, metrics={"memory/nll": 1.0})
    found = plain_by_layer(load_study(SweepStorage(str(fake.root))).trials)
    assert list(found) == ["pythia-1b"]
    assert {layer: [t.get("num_documents") for t in own] for layer, own in found["pythia-1b"].items()} == {
        1: [20], 2: [20], 3: [20],
    }  # fmt: skip


def test_one_analysis_per_allocation_with_the_most_documents(fake):
    fake.add_inductive(models=("pythia-1b",), depths=(0.75,), documents=(10, 20), alphas=(0.2,), with_analysis=True)
    study = load_study(SweepStorage(str(fake.root)))
    found = analyses(study.storage, study.trials)
    assert [a.name for a in found] == ["partitioned", "random", "simset1-dim", "simset2-dim", "simset3-dim"]
    assert all(len(a.report["entries"]) == 20 for a in found)


def test_figures_leave_matplotlib_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    with panels(1, 2) as (canvas, _):
        finish(canvas, "slug", "Title", "Caption")
    assert dict(matplotlib.rcParams) == before


def test_a_figure_is_laid_out_once_and_painted_once_for_each_of_its_files(monkeypatch):
    calls: Counter[str] = Counter()

    def counted(owner: type, name: str) -> None:
        plain = getattr(owner, name)

        def counting(*args, **kwargs):
            calls[name] += 1
            return plain(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    counted(ConstrainedLayoutEngine, "execute")
    counted(Canvas, "draw")
    counted(PngImageFile, "load")
    with panels(1, 2) as (canvas, axes):
        for ax in axes.flat:
            ax.plot([0, 1], [1, 2], label="x")
        figure = finish(canvas, "slug", "title", "caption")
    assert calls == {"execute": 1, "draw": 2}, "no picture is stored to be read again"
    with Image.open(io.BytesIO(figure.png)) as picture:
        assert picture.mode == "P" and picture.width == round(130 * canvas.get_figwidth())


def test_guidance_is_drawn_with_its_errors_entries_and_words(fake):
    curves = {"train/nll": [[1, 3.0], [2, 2.0]], "train/nll_negative": [[1, 3.5], [2, 4.5]]}
    cells = io.BytesIO()
    np.save(cells, np.eye(3, 6, dtype=np.float16))
    told = {"titles": ["A_page", "B", "C"], "promoted_words": [[" red", "\n"], ["x"], ["y"]]}
    fake.add(
        "g", "all", method="docguidance", layer=1, num_documents=3, metrics={"memory/nll": 2.0}, curves=curves,
        extra={"analysis.json": told, "activations.npy": cells.getvalue()},
    )  # fmt: skip
    study = load_study(SweepStorage(str(fake.root)))
    figures = guidance_figures(study.storage, study.trials)
    assert [figure.slug for figure in figures] == ["guidance_errors", "guided_entries"]
    assert all(figure.png.startswith(b"\x89PNG") and b"<svg" in figure.svg for figure in figures)
    table = words_table(study)
    assert table is not None and [(labels[1], row[0].text) for labels, row in table.rows] == [
        ("A page", "red \\n"), ("B", "x"), ("C", "y"),
    ]  # fmt: skip
    assert not guidance_figures(study.storage, [])


def test_figures_of_sampled_pairs_have_an_interval_and_those_of_all_pairs_none():
    pair = {"jaccard": 0.5, "shared": 0, "overlap": 0.0}
    report = {"pairs": [pair], "correlation": 0.25, "entries": [3], "memory_dim": 8, "groups": 90}
    sampled = {"pairs": 4005, "correlation_interval": [0.2, 0.31], "unshared_interval": [0.9, 1.0]}
    trial = Trial.__new__(Trial)
    object.__setattr__(trial, "model", "m")
    found = [Analysis("one", trial, {**report, **more}, {}) for more in ({"sampled": sampled}, {})]
    table = simset_table(found)
    assert table is not None
    texts = [[cell.text for cell in cells] for _, cells in table.rows]
    assert texts[0][5] == "0.250 (0.200 to 0.310)" and texts[0][7] == "1.000 (0.900 to 1.000)"
    assert texts[1][5] == "0.250" and texts[1][7] == "1.000"


def test_a_curve_of_several_seeds_has_a_band_and_one_of_a_single_seed_says_why_not():
    seeds = [[(0.0, 3.0), (1.0, 2.0), (2.0, 1.0)], [(0.0, 3.2), (1.0, 2.4), (2.0, 1.2)]]
    with panels(1, 2) as (_, axes):
        several, single = axes[0]
        draw_band(several, seeds, "black")
        draw_band(single, [seeds[0], []], "black")
    (band,) = several.collections
    low, high = seed_interval([2.0, 2.4])
    assert sorted({float(y) for x, y in band.get_paths()[0].vertices if x == 1.0}) == pytest.approx([low, high])
    assert not single.collections
    assert "Bands" in bands_told([seeds]) and "single training" in bands_told([seeds, seeds[:1]])
    assert "no interval" in bands_told([seeds[:1]]) and "Bands" not in bands_told([seeds[:1]])


def test_figures_over_alpha_say_what_their_bars_are_and_why_some_have_none(fake):
    fake.add_inductive(models=("pythia-1b",), depths=(0.75,), documents=(10,), alphas=(0.0, 1.0))
    study = load_study(SweepStorage(str(fake.root)))
    figures = {f.slug: f for f in alpha_figures(study.trials, References(study.everyone, {}), {})}
    assert "95 % interval over seeds" in figures["epochs_to_nll"].caption
    assert "a single training" in figures["alpha_allocation_nll"].caption
