"""`--set`, `--small` and `--select-by`: which axes and fixed values change, and which do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sweep.planning.expand import build_plan
from sweep.planning.overrides import apply_overrides, select_by_metric, small_form
from sweep.space import ALL, EVERY_LAYER, LARGEST, OTHERS, Best, LogUniform, Sampling, Space, Stage, checked, stage_axes
from trainables.errors import ConfigError

SPACE = Space(
    name="demo",
    title="",
    axes={"model": ["pythia-70m", "llama2-7b"], "depth": [0.25, 0.75], "alpha": [0, 1], "num_documents": [2, 10, 50]},
    fixed={"memory_dim": 256},
    stages=(
        Stage(name="first", axes={"model": ALL, "depth": [0.5, 1.0], "num_documents": LARGEST}, fixed={"alpha": 0}),
        Stage(
            name="second",
            axes={"model": ALL, "alpha": ALL, "num_documents": OTHERS},
            take=Best(field="layer", stage="first", per=("model",)),
        ),
    ),
    small={"model": "sample-llama", "alpha": [0, 2], "eval_epochs": (1, 2), "epochs": 3},
)


def axes_of(space: Space) -> list[dict[str, tuple[object, ...]]]:
    return [stage_axes(space, stage) for stage in space.stages]


def test_without_settings_parts_of_the_grid_are_filled_in() -> None:
    first, second = axes_of(apply_overrides(SPACE))
    assert first == {"model": ("pythia-70m", "llama2-7b"), "depth": (0.5, 1.0), "num_documents": (50,)}
    assert second["num_documents"] == (2, 10)


def test_an_axis_is_replaced_in_the_grid_and_wherever_stages_use_it() -> None:
    space = apply_overrides(SPACE, ["model=sample-neox", "num_documents=10,4"])
    first, second = axes_of(space)
    assert space.axes["num_documents"] == (10, 4)
    assert (first["num_documents"], second["num_documents"]) == ((10,), (4,))
    assert first["model"] == second["model"] == ("sample-neox",)


def test_an_axis_of_a_stages_own_is_replaced_too() -> None:
    space = apply_overrides(SPACE, ["depth=0.9"])
    assert space.axes["depth"] == axes_of(space)[0]["depth"] == (0.9,)


def test_layer_replaces_depth_but_a_layer_that_is_taken_is_still_taken() -> None:
    space = apply_overrides(SPACE, ["layer=3,5"])
    first, second = axes_of(space)
    assert "depth" not in space.axes and list(space.axes)[1] == "layer"
    assert "depth" not in first and first["layer"] == (3, 5)
    assert "layer" not in second and space.stages[1].take == SPACE.stages[1].take
    assert apply_overrides(SPACE, ["layer=all"]).axes["layer"] == (EVERY_LAYER,)


def test_what_makes_a_stage_what_it_is_stays() -> None:
    space = apply_overrides(SPACE, ["alpha=0.5,1"])
    assert dict(space.stages[0].fixed) == {"alpha": 0} and axes_of(space)[1]["alpha"] == (0.5, 1.0)


def test_one_value_of_another_field_is_fixed_and_several_make_an_axis() -> None:
    assert apply_overrides(SPACE, ["memory_dim=64"]).fixed == {"memory_dim": 64}
    space = apply_overrides(SPACE, ["seed=1,2"])
    assert space.axes["seed"] == (1, 2)
    assert [axes["seed"] for axes in axes_of(space)] == [(1, 2), (1, 2)]
    assert space.stages[1].take is not None and space.stages[1].take.per == ("model",), "the mean over seeds decides"
    more = apply_overrides(SPACE, ["memory_dim=64,128"]).stages[1].take
    assert more is not None and more.per == ("model", "memory_dim")
    assert apply_overrides(space, ["seed=3"]).axes["seed"] == (3,)
    assert "memory_dim" not in apply_overrides(SPACE, ["memory_dim=64,128"]).fixed


def test_a_sampled_field_that_is_set_is_no_longer_sampled() -> None:
    fields = {"alpha": LogUniform(0.1, 1), "lr": LogUniform(1e-4, 1e-2)}
    tuned = Space(
        name="t", title="", axes={"depth": [0.5]}, fixed={"depth": 0.5},
        stages=(Stage(name="tune", axes={}, sampling=Sampling(fields=fields, num_samples=3)),),
    )  # fmt: skip
    stage = apply_overrides(tuned, ["alpha=0.3", "num_samples=7"]).stages[0]
    assert stage.axes == {"alpha": (0.3,)} and stage.sampling is not None
    assert list(stage.sampling.fields) == ["lr"] and stage.sampling.num_samples == 7
    assert apply_overrides(tuned, ["alpha=0.3", "lr=0.1,0.2"]).stages[0].sampling is None


def test_values_may_hold_anything_but_commas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "a=b +ü c"
    odd.mkdir()
    monkeypatch.chdir(tmp_path)
    assert apply_overrides(SPACE, [f"model={odd.name},pythia-1b"]).axes["model"] == (str(odd), "pythia-1b")
    assert apply_overrides(SPACE, [f"data=sample,{odd.name}"]).fixed["data"] == f"sample,{odd}"
    assert apply_overrides(SPACE, data=f"hub,{odd}").fixed["data"] == f"hub,{odd}"
    for name in ("hub", "pythia-70m"):
        (tmp_path / name).mkdir()
    space = apply_overrides(SPACE, ["data=hub", "model=pythia-70m"])
    assert (space.fixed["data"], space.axes["model"]) == ("hub", ("pythia-70m",))


def test_a_value_with_commas_stands_in_double_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / 'a,b "c"'
    odd.mkdir()
    monkeypatch.chdir(tmp_path)
    space = apply_overrides(SPACE, ['model="a,b ""c""", pythia-1b'])
    assert space.axes["model"] == (str(odd), "pythia-1b")
    assert apply_overrides(SPACE, ['alpha="0.5",1']).axes["alpha"] == (0.5, 1.0)


def test_the_names_of_the_study_that_are_fields_are_taken() -> None:
    found = apply_overrides(SPACE, ["num_clusters=2", "mem_seed=3", "alpha=0.5"])
    assert found.fixed["num_clusters"] == 2 and found.fixed["mem_seed"] == 3 and found.axes["alpha"] == (0.5,)


def test_equal_values_count_once_and_later_settings_win() -> None:
    assert apply_overrides(SPACE, ["alpha=0,0.0,1,1.0"]).axes["alpha"] == (0.0, 1.0)
    assert apply_overrides(SPACE, ["epochs=3", "epochs=4"], epochs=2).fixed["epochs"] == 4
    assert apply_overrides(SPACE, [], seed=None, stage="x").fixed == {"memory_dim": 256, "stage": "x"}


def test_a_value_of_several_parts_is_one_value() -> None:
    space = apply_overrides(SPACE, ["probes=fever+counterfact", "eval_epochs="])
    assert space.fixed["probes"] == ("counterfact", "fever") and space.fixed["eval_epochs"] == ()


def test_the_small_form_is_a_space_of_another_name() -> None:
    space = small_form(SPACE)
    assert space.name == "demo-small" and space.axes["alpha"] == (0.0, 2.0) and space.axes["model"] == ("sample-llama",)
    assert space.fixed == {"memory_dim": 256, "eval_epochs": (1, 2), "epochs": 3}
    with pytest.raises(ConfigError, match="states no small form"):
        small_form(Space(name="x", title="", axes={}, stages=()))


def test_another_metric_may_decide_with_its_own_direction() -> None:
    take = select_by_metric(SPACE, "fever/accuracy").stages[1].take
    assert take is not None and (take.by, take.mode) == ("fever/accuracy", "max")
    leakage = select_by_metric(SPACE, "memory/leakage_simset1").stages[1].take
    assert leakage is not None and leakage.mode == "min"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("alhpa=1", "alhpa: unknown field, did you mean 'alpha'?"),
        ("alpha", "must be FIELD=VALUE"),
        ("=1", "must be FIELD=VALUE"),
        ("alpha=", "alpha=: a value is missing"),
        ("alpha=0,,1", "alpha=: a value is missing"),
        ("alpha=-1", "alpha=-1.0: must be at least 0"),
        ("allocation=simste1", "did you mean 'simset1'?"),
        ("num_samples=3", "has no sampled stage"),
        ("lr=nan", "lr=nan: must be a finite number"),
        ("alpha=inf", "alpha=inf: must be a finite number"),
        ("alpha=-Infinity", "alpha=-Infinity: must be a finite number"),
        ("lr=1e999", "lr=1e999: must be a finite number"),
        ("epochs=nan", "epochs=nan: must be a finite number"),
        ("epochs=inf", "epochs=inf: must be a finite number"),
        ("layer=inf", "layer=inf: must be a finite number"),
        ("lr=much", "lr='much': must be of type float"),
        ("hook_layer=3", "hook_layer: unknown field; the field is layer"),
        ("selected_docs=10", "the field is num_documents"),
        ("lm_size=7b", "the field is model"),
        ("memory_allocation=simset1", "the field is allocation"),
        ("simset=1", "the field is allocation (simset1, simset2 or simset3"),
        ("Hook-Layer=3", "the field is layer"),
        ("shots=1", "the field is num_shots"),
        ("memory_seed=1", "the field is mem_seed"),
        ("learning_rate=1", "the field is lr"),
        ('model="a,b', "the quotes do not match"),
        ('model="a"b', "the quotes do not match"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(SPACE, [setting])
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("memry/nll", "no such metric, did you mean 'memory/nll'? (there are: memory/nll, "),
        ("fever/acc", "did you mean 'fever/accuracy'?"),
        ("fever/", "no such metric"),
        ("accuracy", "no such metric"),
        ("counterfact/true_rate", "no such metric"),
        ("memory/leakage", "did you mean 'memory/leakage_"),
    ],
)
def test_a_metric_that_no_candidate_reports_is_refused_when_planned(metric: str, said: str) -> None:
    by_option = select_by_metric(SPACE, metric)
    first, second = SPACE.stages
    assert second.take is not None
    by_file = replace(SPACE, stages=(first, replace(second, take=replace(second.take, by=metric))))
    for space in (by_option, by_file):
        with pytest.raises(ConfigError) as caught:
            build_plan(apply_overrides(space, ["data=sample"]))
        assert said in str(caught.value) and "is chosen among" in str(caught.value) and "\n" not in str(caught.value)


def test_a_metric_is_known_once_its_probe_is_asked() -> None:
    space = apply_overrides(select_by_metric(SPACE, "counterfact/true_rate"), ["probes=counterfact", "data=sample"])
    assert build_plan(space).questions[0].best.by == "counterfact/true_rate"


def test_a_sampler_without_such_a_metric_is_refused() -> None:
    sampling = Sampling(fields={"lr": LogUniform(1e-4, 1e-2)}, num_samples=3, metric="train/nlll")
    space = Space(
        name="t", title="", axes={}, fixed={"depth": 0.5}, stages=(Stage(name="s", axes={}, sampling=sampling),)
    )
    with pytest.raises(ConfigError, match="stage s: sampled by 'train/nlll': no such metric, did you mean 'train/nll'"):
        build_plan(checked(space))


@given(st.text(max_size=30), st.text(max_size=30))
@example("", "~0")
@settings(max_examples=200, deadline=None)
def test_any_setting_is_taken_or_refused_in_one_line(name: str, text: str) -> None:
    for setting in (f"{name}={text}", f"alpha={text}", f"model={text}", f"layer={text}", f"probes={text}"):
        try:
            apply_overrides(SPACE, [setting])
        except ConfigError as error:
            assert str(error)
