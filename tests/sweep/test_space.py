"""Spaces that do not fit together are refused, naming the place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.planning.expand import build_plan
from sweep.space import (
    ALL,
    EVERY_LAYER,
    Best,
    LogUniform,
    OneOf,
    Sampling,
    Space,
    Stage,
    Uniform,
    checked,
    middle,
    stage_base,
    stage_named,
)
from trainables.errors import ConfigError, SweepError

FIRST = Stage(name="first", axes={"model": ALL, "depth": [0.5, 1.0]}, fixed={"alpha": 0})
SECOND = Stage(
    name="second", axes={"model": ALL, "alpha": [1]}, take=Best(field="layer", stage="first", per=("model",))
)
SPACE = Space(
    name="demo", title="", axes={"model": ["pythia-70m"], "alpha": [0, "1"]},
    fixed={"depth": 0.5, "epochs": "3"}, stages=(FIRST, SECOND),
)  # fmt: skip


def test_values_get_their_fields_types() -> None:
    space = checked(SPACE)
    assert space.axes["alpha"] == (0.0, 1.0) and space.fixed["epochs"] == 3
    assert checked(space) == space


def test_a_stage_shares_what_it_does_not_vary_or_take() -> None:
    space = checked(SPACE)
    assert stage_base(space, space.stages[0]) == {"epochs": 3, "alpha": 0.0, "stage": "first"}
    assert stage_base(space, space.stages[1]) == {"epochs": 3, "stage": "second"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": ()}, "no stages"),
        ({"stages": (FIRST, FIRST)}, "same name"),
        ({"axes": {"alhpa": [1]}}, "did you mean 'alpha'"),
        ({"axes": {"alpha": []}}, "must be a list of values"),
        ({"axes": {"model": "pythia-70m"}}, "must be a list of values"),
        ({"axes": {"alpha": [-1]}}, "at least 0"),
        ({"fixed": {"epochs": 0}}, "epochs=0"),
        ({"stages": (replace(FIRST, axes={"seed": ALL, "depth": [0.5]}),)}, "seed is neither an axis"),
        ({"stages": (replace(FIRST, fixed={"layer": 3}),)}, "depth and layer stated more than once"),
        ({"stages": (SECOND, FIRST)}, "no earlier stage"),
        ({"stages": (replace(FIRST, axes={"model": ALL, "seed": [1]}), SECOND)}, "no grid with an axis layer"),
        ({"stages": (FIRST, replace(SECOND, axes={"alpha": [1]}))}, "per model"),
        ({"stages": (replace(FIRST, axes={**FIRST.axes, "epochs": [1, 2]}), SECOND)}, "varies epochs too"),
        (
            {"stages": (replace(FIRST, sampling=Sampling(fields={"bias": Uniform(0, 1)}, num_samples=1)),)},
            "bias: unknown field",
        ),
        (
            {"stages": (replace(FIRST, sampling=Sampling(fields={"lr": LogUniform(2, 1)}, num_samples=1)),)},
            "lr has nothing to sample from",
        ),
        (
            {"stages": (replace(FIRST, sampling=Sampling(fields={"lr": Uniform(-1, 1)}, num_samples=1)),)},
            "lr=-1.0: must be above 0",
        ),
    ],
)
def test_a_space_that_does_not_fit_together_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(replace(SPACE, **change))


def test_an_unknown_stage_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match="demo has first, second, did you mean 'second'"):
        stage_named(SPACE, "secnd")


def test_the_middle_of_a_distribution_has_the_fields_type() -> None:
    assert middle("alpha", Uniform(1, 3)) == 2.0
    assert middle("lr", LogUniform(1e-4, 1e-2)) == pytest.approx(1e-3)
    assert middle("memory_dim", LogUniform(100, 1000)) == 316
    assert middle("memory_dim", OneOf((64, 128, 256))) == 128


def test_every_layer_is_written_all() -> None:
    assert str(EVERY_LAYER) == "all"


SAMPLED = Stage(name="s", axes={}, sampling=Sampling(fields={"alpha": Uniform(0, 1)}, num_samples=3))


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (
            replace(SPACE, stages=FIRST),
            r"demo: stages is one Stage, not a tuple of them; write stages=\(Stage\(...\),\)",
        ),
        (replace(SPACE, stages=3), "stages=3: must be a tuple"),
        (replace(SPACE, stages=(FIRST, "second")), "must be a tuple"),
        (replace(SPACE, axes=["alpha"]), "axes=.*must be a dict"),
        (replace(SPACE, fixed={"alpha"}), "fixed=.*must be a dict"),
        (replace(SPACE, stages=(replace(FIRST, axes=("model",)),)), "stage first: axes=.*must be a dict"),
        (replace(SPACE, stages=(FIRST, replace(SECOND, take="layer"))), "stage second: take='layer': must be a Best"),
        (
            replace(SPACE, stages=(FIRST, replace(SECOND, take=Best(field="layer", stage="first", per="model")))),
            r'per is one str, not a tuple of them; write per=\("model",\)',
        ),
        (replace(SPACE, stages=(replace(SAMPLED, sampling=LogUniform(1, 2)),)), "must be a Sampling"),
        *(
            (replace(SPACE, stages=(replace(SAMPLED, sampling=replace(SAMPLED.sampling, **changed)),)), said)
            for changed, said in [
                ({"num_samples": 0}, "num_samples=0: must be a whole number of at least 1"),
                ({"grace_epochs": 0}, "grace_epochs=0"),
                ({"reduction": 1}, "reduction=1: must be a whole number of at least 2"),
                ({"mode": "least"}, "mode='least'"),
                ({"fields": {"alpha": (0, 1)}}, r"alpha=\(0, 1\): must be a Uniform"),
                ({"fields": {"alpha": OneOf(3)}}, r"write OneOf\(\(value,\)\)"),
                ({"fields": LogUniform(1, 2)}, "fields=.*must be a dict"),
            ]
        ),
    ],
)
def test_one_value_where_several_belong_is_said_in_one_line(space: Space, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        checked(space)
    assert "\n" not in str(caught.value)


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=4),
    st.lists(st.integers(0, 3), max_size=2),
    st.sampled_from([ALL, "none", "memory", "sample-llama", {"a": 1}, float("nan")]),
)  # fmt: skip
NAMES = st.sampled_from(["model", "layer", "depth", "alpha", "seed", "probes", "hook_layer", "eval_epochs", "x", 3, ""])


@given(axes=st.dictionaries(NAMES, ODD, max_size=3), fixed=st.dictionaries(NAMES, ODD, max_size=3), by=ODD, per=ODD)
@settings(max_examples=300, deadline=None)
def test_any_space_is_taken_or_refused_in_one_line(axes: Any, fixed: Any, by: Any, per: Any) -> None:
    first = Stage(name="first", axes={"model": ["sample-llama"], "layer": [0, 1]}, fixed=fixed)
    second = Stage(name="second", axes=axes, take=Best(field="layer", stage="first", per=per, by=by))
    for stages in ((first,), (first, second), (Stage(name="s", axes=axes, fixed=fixed),)):
        try:
            build_plan(checked(Space(name="s", title="", axes=axes, fixed=fixed, stages=stages)))
        except SweepError as error:
            assert str(error) and "\n" not in str(error)
