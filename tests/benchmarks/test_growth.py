"""Growth: fits, the picture, and a small run of both kinds."""

from __future__ import annotations

import pytest

from benchmarks import common, growth
from trainables.errors import ConfigError


def table() -> growth.Table:
    """A table as `command` makes it, of made-up times."""
    x = [10, 100, 1000]
    linear, flat = [1.0 + 0.05 * n for n in x], [2.0, 2.1, 1.9]
    seconds = {part: linear if part == "train_s" else flat for part in [*growth.PARTS, *growth.WHOLE]}
    documents = {
        "documents": x,
        "remaining": x,
        "tokens": [100 * n for n in x],
        "claims": x,
        "seconds": seconds,
        "fits": {part: growth.fit(x, values) for part, values in seconds.items()},
        "fits_by_tokens": {"train_s": growth.fit(x, linear)},
    }
    times = {name: linear for name in ["compute_s", *growth.WHOLE]}
    fits = {name: growth.fit(x, values) for name, values in times.items()}
    trials = {"trials": x, "packs": [2, 4, 32], "seconds": times, "fits": fits}
    return {
        "documents_model": "one",
        "trials_model": "two",
        "threads": 2,
        "epochs": 1,
        "documents": documents,
        "trials": trials,
    }


def test_a_line_and_a_power_are_fitted():
    line = growth.fit([1, 10, 100], [3.5, 8.0, 53.0])
    assert line["slope"] == pytest.approx(0.5) and line["intercept"] == pytest.approx(3.0)
    assert line["r2"] == pytest.approx(1.0) and line["exponent"] < 1
    assert growth.fit([1, 10, 100], [2, 20, 200])["exponent"] == pytest.approx(1.0)
    assert growth.fit([1, 10, 100], [0, 0, 0])["exponent"] is None


@pytest.mark.parametrize("suffix, magic", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_picture_is_written_where_asked(suffix, magic, tmp_path):
    path = tmp_path / "new" / f"growth.{suffix}"
    growth.draw(table(), path)
    assert path.read_bytes().startswith(magic)


def test_the_text_has_every_count_and_fit():
    shown = "\n".join(growth.lines(table()))
    assert "1,000 documents, 100,000 tokens" in shown and "1000 trials, 32 packs" in shown
    assert "50.0 ms each (R² 1.000" in shown


@pytest.mark.parametrize("text", ["10", "10,5", "0,3", "a,b", "3,3", ""])
def test_counts_that_make_no_line_are_refused(text):
    with pytest.raises(ConfigError, match="rising whole numbers"):
        common.rising_numbers(text)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_documents_and_trials_are_timed(tiny_models, sample_data):
    settings = {"model": str(tiny_models["llama"]), "data": str(sample_data), "memory_dim": 16, "claims_per_page": 1}
    documents = growth.by_documents(settings, [3, 6], threads=1, repeats=1)
    assert documents["tokens"][0] < documents["tokens"][1] and documents["remaining"] == [3, 6]
    assert all(min(documents["seconds"][part]) > 0 for part in ("data_s", "trunk_s", "train_s", "evaluate_s"))
    trials = growth.by_trials({**settings, "num_documents": 3}, [2, 5], repeats=1)
    assert trials["packs"] == [2, 2] and min(trials["seconds"]["trials_s"]) > 0
