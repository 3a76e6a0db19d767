"""A trial's id: the same for the same trial however it is spelled, another for any other trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.adapters.registry import ADAPTERS
from trainables.errors import ConfigError
from trainables.lm.card import model_card
from trainables.trial.canonical import canonical, layer_index
from trainables.trial.fields import Part
from trainables.trial.identity import identity, training_id, trial_id
from trainables.trial.making import coerce, make_spec, vary
from trainables.trial.parts import IDENTITY_FIELDS
from trainables.trial.spec import FIELDS, TrialSpec

# A trial in which every identity field matters.
RICH: dict[str, Any] = {
    "model": "llama2-7b",
    "data": "hub",
    "content": "document+template",
    "num_documents": 50,
    "num_clusters": 20,
    "layer": 23,
    "memory_dim": 1024,
    "allocation": "simset2",
    "entries_per_group": 7,
    "alpha": 0.4,
    "eval_epochs": (5, 10),
    "probes": ("fever", "counterfact", "recall", "forgetting", "choices", "lm_eval"),
    "lm_eval_tasks": ("arc_easy",),
}
OTHERS: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["llama2-13b", "pythia-6.9b", "pythia-1.4b"]),
    "revision": st.sampled_from(["v2", "step1000"]),
    "dtype": st.just("bfloat16"),
    "data": st.just("sample"),
    "allow_missing_pages": st.just(True),
    "detokenize": st.just(True),
    "page_order": st.just("subjects"),
    "method": st.sampled_from(["pretrained", "full_update"]),
    "content": st.sampled_from(["document", "template"]),
    "template_loss": st.just("answer"),
    "num_documents": st.integers(20, 2000),
    "num_clusters": st.none() | st.integers(1, 49),
    "grouping": st.just("lsh"),
    "epoch_order": st.just("shards"),
    "segment_tokens": st.integers(2, 4096),
    "max_segments": st.integers(1, 100),
    "layer": st.integers(0, 23),
    "memory_dim": st.integers(1, 20000),
    "norm_and_gate": st.just(False),
    "memory_precision": st.just("bfloat16"),
    "mode": st.just("hard"),
    "allocation": st.sampled_from(["none", "random", "partitioned", "simset1", "simset3"]),
    "granularity": st.just("token"),
    "entries_per_group": st.none() | st.integers(1, 100),
    "mem_seed": st.integers(0, 10**6),
    "alpha": st.floats(0, 100),
    "epochs": st.integers(10, 1000),
    "batch_size": st.integers(1, 64),
    "lr": st.floats(1e-6, 1),
    "weight_decay": st.floats(0, 1),
    "warmup_steps": st.integers(0, 1000),
    "grad_clip": st.floats(0.01, 1000),
    "seed": st.integers(0, 10**6),
    "num_shots": st.integers(0, 5),
    "notes_labels": st.just(True),
    "claims_per_page": st.none() | st.integers(1, 100),
    "eval_epochs": st.sets(st.integers(0, 24), max_size=4).map(tuple),
    "probes": st.sampled_from([(), ("fever",), ("counterfact",)]),
    "counterfact_records": st.integers(1, 1000),
    "num_answers": st.integers(1, 20),
    "answer_tokens": st.integers(1, 20),
    "temperature": st.floats(0.1, 10),
    "recall_documents": st.integers(1, 1000),
    "recall_title": st.just(False),
    "recall_words": st.integers(1, 100),
    "recall_tokens": st.integers(1, 1000),
    "lm_eval_tasks": st.just(("piqa", "arc_easy")),
    "lm_eval_folder": st.sampled_from([None, str(Path(__file__).parents[2] / "data" / "lm_eval")]),
    "lm_eval_limit": st.none() | st.integers(1, 1000),
    "lm_eval_shots": st.none() | st.integers(0, 10),
    "choices_by": st.just("likelihood"),
    "questions_per_document": st.none() | st.integers(1, 100),
    "heldout_documents": st.integers(1, 1000),
    "heldout_claims": st.integers(1, 1000),
    "general_text": st.sampled_from([None, __file__]),
    "rank": st.integers(1, 512),
    "lora_alpha": st.floats(0.1, 100),
    "template_layer": st.integers(0, 22),
    "start_from": st.from_regex("[0-9a-f]{16}", fullmatch=True),
    "key_dim": st.integers(1, 100),
    "activation": st.sampled_from(["relu", "gelu"]),
    "negatives": st.sampled_from(["zero", "random", "perturbed"]),
    "guidance_target": st.floats(0, 10),
    "guidance_alpha": st.floats(0, 10),
    "virtual_tokens": st.integers(1, 500),
    "template_facts": st.integers(1, 500),
    "lora_targets": st.sampled_from(["attention", "mlp", "q_proj", "q_proj+v_proj"]),
}


def stated(spec: TrialSpec) -> dict[str, Any]:
    """The identity, the hub's key given, since no hub is asked here."""
    return identity(spec, data_key="hub@fever-v1.0" if spec.data == "hub" else None)


def id_of(**values: Any) -> str:
    return trial_id(stated(make_spec(values)))


@given(st.permutations(list(RICH)), st.sets(st.sampled_from(IDENTITY_FIELDS)))
def test_order_and_spelled_out_defaults_do_not_matter(order: list[str], spelled: set[str]) -> None:
    defaults = {name: getattr(TrialSpec, name) for name in spelled if name not in RICH}
    assert id_of(**defaults, **{name: RICH[name] for name in order}) == id_of(**RICH)


@given(st.data())
def test_any_other_value_of_an_identity_field_gives_another_id(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(OTHERS)))
    value = data.draw(OTHERS[name])
    base = RICH | method_with(name)
    if coerce(name, value) != coerce(name, base[name] if name in base else getattr(TrialSpec, name)):
        assert id_of(**{**base, name: value}) != id_of(**base)


def method_with(name: str) -> dict[str, Any]:
    """Where a memory has no use for a field, the first method that has."""
    if not FIELDS[name].parts & Part.MEMORY or name in ("method", "seed", *ADAPTERS["memory"].uses()):
        return {}
    return {"method": next(method for method in ADAPTERS if name in ADAPTERS[method].uses())}


def test_counterfact_data_are_part_of_a_training_that_reads_them() -> None:
    def trained(records: str, **values: Any) -> str:
        spec = make_spec({"model": "pythia-70m", "data": "fever,counterfact", "layer": 1, **values})
        return training_id(identity(spec, data_key=f"fever@1,counterfact@{records}"))

    on_facts = {"content": "document+template", "template_facts": 5}
    assert trained("a", **on_facts) != trained("b", **on_facts)
    for other in ({"content": "template"}, {"template_facts": 5}, {"template_facts": 5, "probes": "counterfact"}):
        assert trained("a", **other) == trained("b", **other), "only asked, or not at all"
    assert trained("a", template_facts=5) == trained("a"), "pages alone are trained on"


def test_the_property_above_covers_every_identity_field() -> None:
    assert set(OTHERS) == set(IDENTITY_FIELDS) - {"depth"}


@given(st.sampled_from([n for n in FIELDS if n not in IDENTITY_FIELDS]))
def test_resources_and_labels_do_not_matter(name: str) -> None:
    other: dict[str, Any] = {
        "micro_batch_tokens": 1, "checkpoint_every_s": 1, "keep_memory": False, "stage": "x",
        "leakage_sets": ("random_g2",), "keep_epochs": False,
    }  # fmt: skip
    assert id_of(**RICH, **{name: other[name]}) == id_of(**RICH)


@given(st.sampled_from(["llama2-7b", "llama2-13b", "pythia-70m", "sample-neox"]), st.floats(0.001, 1))
def test_a_depth_is_its_layer(model: str, depth: float) -> None:
    layer = layer_index(coerce("depth", depth), model_card(model).num_blocks)
    values = {name: value for name, value in RICH.items() if name not in ("layer", "model")}
    assert id_of(model=model, depth=depth, **values) == id_of(model=model, layer=layer, **values)


@pytest.mark.parametrize(
    ("depth", "blocks", "layer"),
    [(0.75, 32, 23), (1.0, 32, 31), (0.1, 32, 2), (0.15, 32, 4), (0.01, 32, 0), (0.5, 5, 2), (0.3, 5, 1)],
)
def test_depth_rounds_halves_up_and_stays_in_the_model(depth: float, blocks: int, layer: int) -> None:
    assert layer_index(depth, blocks) == layer


@given(
    st.sampled_from(["none", "random", "partitioned", "simset1", "simset2", "simset3"]),
    st.sampled_from(["dim", "token"]),
    st.integers(0, 9),
    st.none() | st.integers(1, 50),
)
def test_at_alpha_0_the_entry_sets_do_not_matter(
    allocation: str, granularity: str, mem_seed: int, clusters: int | None
) -> None:
    sets = {"allocation": allocation, "granularity": granularity, "mem_seed": mem_seed, "num_clusters": clusters}
    assert id_of(**{**RICH, **sets, "alpha": 0}) == id_of(**{**RICH, "alpha": 0.0})
    if allocation != "none":
        assert id_of(**{**RICH, **sets, "alpha": 0, "mode": "hard"}) != id_of(**{**RICH, "alpha": 0})


@given(
    st.sampled_from([n for n in OTHERS if n not in ("probes", "eval_epochs", "lora_targets", "lm_eval_tasks")]),
    st.data(),
)
def test_the_spelling_of_a_value_does_not_matter(name: str, data: st.DataObject) -> None:
    value = coerce(name, data.draw(OTHERS[name]))
    assert coerce(name, str(value) if value is not None else "none") == value
    if isinstance(value, int) and not isinstance(value, bool):
        assert coerce(name, float(value)) == value
        assert type(coerce(name, float(value))) is int


def test_several_values_of_one_field_are_a_set() -> None:
    assert coerce("probes", "fever+counterfact") == coerce("probes", ["fever", "counterfact"])
    assert coerce("eval_epochs", "10+5+5") == (5, 10) == coerce("eval_epochs", (10, 5))
    assert coerce("eval_epochs", "") == () and coerce("eval_epochs", 3) == (3,)


@given(st.data())
def test_canonical_is_stable_and_the_id_survives_json(data: st.DataObject) -> None:
    names = data.draw(
        st.sets(st.sampled_from(sorted(set(OTHERS) - {"num_clusters", "memory_dim", "epochs"})), max_size=6)
    )
    spec = make_spec({**RICH, **{name: data.draw(OTHERS[name]) for name in sorted(names)}})
    plain = canonical(spec)
    assert canonical(plain) == plain
    told = stated(spec)
    assert trial_id(stated(plain)) == trial_id(told) == trial_id(json.loads(json.dumps(told)))


def test_vary_gives_the_spec_that_making_it_anew_gives() -> None:
    spec = make_spec(RICH)
    assert vary(spec, {"alpha": 2.0, "layer": 3}) == make_spec({**RICH, "alpha": 2, "layer": 3})
    assert hash(vary(spec, {"seed": 1})) == hash(make_spec({**RICH, "seed": 1}))
    with pytest.raises(ConfigError, match="num_clusters"):
        vary(spec, {"num_documents": 10})


def test_what_cannot_matter_is_dropped() -> None:
    pretrained = id_of(model="pythia-70m", method="pretrained", data="hub")
    assert id_of(model="pythia-70m", method="pretrained", data="hub", epochs=3, lr=1, depth=0.5) == pretrained
    assert id_of(**{**RICH, "eval_epochs": (5, 10, 25)}) == id_of(**RICH)
    assert id_of(**{**RICH, "data": "sample", "allow_missing_pages": True}) == id_of(**{**RICH, "data": "sample"})
    assert id_of(**{**RICH, "num_clusters": 50}) == id_of(**{**RICH, "num_clusters": None})
    assert id_of(model="sample-llama", revision="other", layer=1) == id_of(model="sample-llama", layer=1)
    disjoint = {**RICH, "allocation": "partitioned", "entries_per_group": None}
    assert id_of(**{**disjoint, "mem_seed": 5, "granularity": "token"}) == id_of(**disjoint)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alhpa": 1}, "alhpa: unknown field, did you mean 'alpha'?"),
        ({"alpha": -1}, "alpha=-1.0: must be at least 0"),
        ({"alpha": "much"}, "alpha='much': must be of type float"),
        ({"alpha": float("nan")}, "alpha=nan: must be a finite number"),
        ({"allocation": "simset"}, "did you mean 'simset"),
        ({"epochs": 2.5}, "epochs=2.5: must be of type int"),
        ({"epochs": True}, "epochs=True: must be of type int"),
        ({"depth": 0}, "depth=0.0: must be above 0"),
        ({"depth": 1.5}, "depth=1.5: must be at most 1"),
        ({"seed": None}, "seed=None: a value is needed"),
        ({"start_from": "document"}, "start_from='document': must be the id of a training, 16 hex digits"),
        ({"layer": 2, "depth": 0.5}, "exactly one"),
        ({"layer": None}, "exactly one"),
        ({"num_clusters": 11}, "num_clusters=11: must not exceed num_documents=10"),
        ({"allocation": "partitioned", "memory_dim": 9, "alpha": 1}, "partitioned needs at least one entry for each"),
        ({"eval_epochs": (30,)}, "eval_epochs"),
        ({"probes": ("fevre",)}, "did you mean 'fever'?"),
        ({"probes": 3}, "probes='3': must be one of fever, counterfact"),
        ({"eval_epochs": ("last",)}, "must be of type ints joined by +"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_spec({"layer": 2, **values} if "depth" not in values or "layer" in values else values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_layer_beyond_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="layer=32: llama2-7b has 32 blocks, 0 to 31"):
        canonical(make_spec({**RICH, "layer": 32}))


def test_counterfact_records_count_only_where_they_are_asked() -> None:
    def key_of(**values: Any) -> str:
        return str(identity(make_spec({"layer": 1, **values}), data_key="fever@1,counterfact@2")["data"])

    assert key_of() == "fever@1"
    assert key_of(probes=("fever", "counterfact")) == key_of(page_order="subjects") == "fever@1,counterfact@2"
