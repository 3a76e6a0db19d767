"""Fields declare what they do: to texts, to trained weights, within a pack, and to what a process keeps.

Every test goes through all fields, two values each, and compares what really comes out with what is declared; a role
or a part left out or added without reason fails here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainables.adapters.memory.adapter import MemoryAdapter
from trainables.adapters.split import SplitAdapter
from trainables.data.corpus import load_corpus
from trainables.lm.token_tree import TokenTree
from trainables.pack.process_cache import ProcessCache
from trainables.pack.run import PackRun
from trainables.trial.fields import Part, Role
from trainables.trial.making import vary
from trainables.trial.parts import fields_of
from trainables.trial.spec import FIELDS, TrialSpec
from trainables.trial.task import TrialTask

CPU = torch.device("cpu")
ON_PAGES = Part.CORPUS | Part.PAGES
BUILT_ON = {
    Part.CORPUS: Part.CORPUS,
    Part.PAGES: ON_PAGES,
    Part.SEGMENTS: ON_PAGES | Part.SEGMENTS,
    Part.TEMPLATES: ON_PAGES | Part.TEMPLATES,
    Part.FEVER: ON_PAGES | Part.FEVER,
    Part.COUNTERFACT: ON_PAGES | Part.COUNTERFACT,
    Part.QUESTIONS: ON_PAGES | Part.QUESTIONS,
}
HUB_ONLY = ("revision", "allow_missing_pages")
"""Fields that mean something for models or data of the hub only, which no test here asks."""
TEXT_FIELDS = [name for name in FIELDS if not FIELDS[name].parts & Part.MODEL and name not in HUB_ONLY]
"""All but those of the model: another tokenizer makes other tokens of the same texts."""
STARTED = "start_from"
"""Means the weights of another training, which a run is handed: test_starts.py."""
Weights = dict[str, Tensor]


@pytest.fixture(autouse=True)
def few_documents_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups come from near pairs, and an epoch has several shards, however few documents there are."""
    monkeypatch.setattr("trainables.adapters.memory.grouping.ALL_PAIRS", 1)
    monkeypatch.setattr("trainables.lm.batches.SHARD_TEXTS", 4)


@pytest.fixture(scope="module")
def trial(trial_with_other) -> Callable[..., TrialSpec]:
    return trial_with_other


@pytest.fixture(scope="module")
def cache() -> ProcessCache:
    return ProcessCache(CPU, 10**9)


@pytest.fixture(scope="module")
def contents_of(trial, cache) -> Callable[..., dict[Part, Any]]:
    """What the trial with another value of a field is made of, or the one without."""
    return functools.cache(lambda name=None: contents(cache, trial(name)))


@pytest.fixture(scope="module")
def weights_of(trial, cache) -> Callable[..., Weights]:
    """The weights of the trial with another value of a field, or of the one without, trained alone."""
    found = functools.cache(lambda spec: trained(cache, spec)[0])
    return lambda name=None, like=None: found(trial(name, like=like) if like else trial(name))


# What texts and questions are made of.


class FakeModel:
    """Stands for a model in sampling; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def next_logits(self, sequences: list[list[int]]) -> Tensor:
        self.asked += sequences
        return torch.stack([torch.sin(torch.arange(600.0) * (sum(sequence) % 97 + 1)) for sequence in sequences])


def tokens(tree: TokenTree) -> tuple[int, ...]:
    return tuple(tree.tokens)


OTHER_PROBES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda probe: probe.beginnings, "recall"),
    (lambda probe: (probe.passages, probe.questions.prompts), "forgetting"),
    (lambda probe: (probe.asked, list(map(tokens, probe.prompts))), "choices"),
    (lambda probe: probe.plan, "lm_eval"),
]
"""What else is asked, as plain values."""


def contents(cache: ProcessCache, spec: TrialSpec) -> dict[Part, Any]:
    """What each part of a trial that is made of texts holds, as plain values."""
    texts, model = cache.texts(spec), FakeModel()
    segments = [(tokens(text.tree), text.document, 1) for text in texts.segments]
    trained = [(tokens(text.tree), text.document, text.first_target) for text in texts.train]
    fever, probe = texts.probes.get("fever"), texts.probes.get("counterfact")
    return {
        Part.CORPUS: load_corpus(spec.data, spec.detokenize),
        Part.PAGES: texts.documents,
        Part.SEGMENTS: segments,
        Part.TEMPLATES: (spec.content, [text for text in trained if text not in segments]),
        Part.FEVER: fever
        and ([(q.document, q.claim, q.prompt) for q in fever.questions.prompts], list(map(tokens, fever.prompts))),
        Part.COUNTERFACT: probe and (probe.ask_one(model), model.asked),
        Part.QUESTIONS: {name: asked(texts.probes[name]) for asked, name in OTHER_PROBES if name in texts.probes},
    }


@pytest.mark.parametrize("name", TEXT_FIELDS)
def test_a_field_names_just_the_parts_made_of_texts_that_read_it(contents_of, name):
    before, after = contents_of(), contents_of(name)
    for part, below in BUILT_ON.items():
        if before[part] != after[part]:
            assert name in fields_of(below), f"{part} depends on it"
        elif FIELDS[name].parts & part and name != "probes":
            raise AssertionError(f"{part} does not depend on it")


def test_probes_say_what_is_asked(contents_of):
    asked = contents_of("probes")
    assert asked[Part.FEVER] and not asked[Part.COUNTERFACT] and contents_of()[Part.COUNTERFACT]


@pytest.mark.parametrize("name", TEXT_FIELDS)
def test_a_probe_field_changes_what_is_asked_and_no_other_field_does(trial, contents_of, name):
    parts = (Part.SEGMENTS, Part.FEVER, Part.COUNTERFACT, Part.QUESTIONS)
    before, after = contents_of(), contents_of(name)
    changes = any(before[part] != after[part] for part in parts) or trial(name).eval_epochs != trial().eval_epochs
    assert changes == bool(FIELDS[name].role & Role.PROBE)


# What training is made of.


def trained(cache: ProcessCache, *specs: TrialSpec) -> list[Weights]:
    """Train trials as one pack and return each one's weights."""
    run = PackRun([TrialTask(str(k), spec, "", "") for k, spec in enumerate(specs)], cache, (), [None] * len(specs))
    for epoch in range(specs[0].epochs):
        run.adapter.train_epoch(epoch)
    assert all(run.adapter.active)
    return [dict(run.adapter.state(k).weights) for k in range(len(specs))]


def distance(one: Weights, other: Weights) -> float:
    if {name: value.shape for name, value in one.items()} != {name: value.shape for name, value in other.items()}:
        return float("inf")
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


SAME = 1e-5
"""Largest difference that another order of sums makes; other training differs by 1e-4 and more."""


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in (*HUB_ONLY, "method", STARTED)])
def test_a_training_field_changes_the_trained_weights_and_no_other_field_does(weights_of, name):
    """Another method trains another thing."""
    far = distance(weights_of(like=name), weights_of(name))
    assert (far > SAME) == bool(FIELDS[name].role & Role.TRAINING), far


MAY_DIFFER = [name for name in FIELDS if FIELDS[name].may_differ and name not in ("seed", STARTED)]


def test_members_that_differ_in_what_they_may_are_trained_as_alone(trial, cache, weights_of):
    """A pack for each method that has such fields: as it is, and with another value of one of them each."""
    by_method: dict[str, list[str]] = {}
    for name in MAY_DIFFER:
        by_method.setdefault(trial(like=name).method, []).append(name)
    for names in by_method.values():
        packed = trained(cache, trial(like=names[0]), *map(trial, names))
        alone = [weights_of(like=names[0]), *map(weights_of, names)]
        far = dict(zip(["", *names], map(distance, packed, alone), strict=True))
        assert max(far.values()) < SAME, far


def test_members_of_other_seeds_are_trained_as_alone(trial, cache):
    """They are trained on documents: the examples in prompts are others."""
    specs = [vary(spec, {"content": "document"}) for spec in (trial(), trial("seed"))]
    alone = [trained(cache, spec)[0] for spec in specs]
    assert max(map(distance, trained(cache, *specs), alone)) < SAME < distance(*alone)


def test_a_field_has_a_role_and_only_training_and_probe_go_together():
    together = Role.TRAINING | Role.PROBE
    for field in FIELDS.values():
        assert field.role in (Role.TRAINING, Role.PROBE, together, Role.RESOURCE, Role.LABEL), field.name
        assert field.meaning and (field.parts or not field.role & together), field.name


# What a process keeps.


def _texts(cache: ProcessCache, spec: TrialSpec) -> Any:
    texts = cache.texts(spec)
    found = contents(cache, spec)
    return [found[part] for part in BUILT_ON if part is not Part.CORPUS], texts.counts


def _upper(cache: ProcessCache, spec: TrialSpec) -> Any:
    upper = cache.parts(spec).upper(spec.layer or 0)
    hidden = torch.sin(torch.arange(96.0)).reshape(1, 3, 32).to(upper.head_weight.dtype)
    return upper(hidden), upper.head_weight


def _whole(cache: ProcessCache, spec: TrialSpec) -> Any:
    return cache.parts(spec).whole_model()(torch.arange(5)[None])


def _hidden(cache: ProcessCache, spec: TrialSpec) -> Any:
    return cache.parts(spec).hidden_states().get([TokenTree.chain([1, 2, 3])], spec.layer or 0)


def _tokenizer(cache: ProcessCache, spec: TrialSpec) -> Any:
    return cache.tokenizer(spec)("Mira Talven is a painter in Orsk.")["input_ids"]


def _of_adapter(cache: ProcessCache, spec: TrialSpec) -> dict[str, Any]:
    """The hidden states that a trial's adapter trains on, and its entry set."""
    adapter = PackRun([TrialTask("0", spec, "", "")], cache, (), [None]).adapter
    states = entry_set = None
    if isinstance(adapter, SplitAdapter):
        whole = [
            (batch.hidden, batch.labels, batch.targets, batch.positions, tuple(batch.documents))
            for texts in (adapter.states[adapter.layer].train, adapter.segments(adapter.layer))
            for batch in texts.steps(np.arange(len(texts)), 100)
        ]
        states = whole, round(adapter.nll_before, 4)
    if isinstance(adapter, MemoryAdapter) and adapter.sets[0] is not None:
        found, trees = adapter.sets[0], [TokenTree.chain([5, 6, 7])]
        entry_set = found.groups, found.allocation.table.tolist(), found.mask([0], trees, CPU)
    return {"states": states, "entry_set": entry_set}


KEPT: dict[str, Callable[[ProcessCache, TrialSpec], Any]] = {
    "texts": _texts, "upper": _upper, "whole": _whole, "hidden": _hidden, "tokenizer": _tokenizer,
}  # fmt: skip


def kept(cache: ProcessCache, spec: TrialSpec) -> dict[str, Any]:
    """All that a process may keep for a trial."""
    return {kind: look(cache, spec) for kind, look in KEPT.items()} | _of_adapter(cache, spec)


MATTERS = {
    "texts": ("model", "data", "num_shots", "seed", "claims_per_page", "probes", "temperature", "content"),
    "upper": ("model", "dtype", "layer"),
    "whole": ("model", "dtype"),
    "hidden": ("model", "dtype", "layer"),
    "tokenizer": ("model",),
    "states": ("model", "dtype", "layer", "num_documents", "num_shots"),
    "entry_set": (
        "memory_dim",
        "mem_seed",
        "granularity",
        "num_clusters",
        "grouping",
        "allocation",
        "entries_per_group",
        "data",
    ),
}


THAT_MATTER = tuple({name for names in MATTERS.values() for name in names})
"""The other fields should change nothing of it: that they name none of its parts is tested without a model."""


def plain(value: Any) -> Any:
    """Nested values with tensors as something that can be compared."""
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.detach().float().flatten().tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


@pytest.mark.parametrize("name", [name for name in FIELDS if name != STARTED])
@pytest.mark.thorough(but=THAT_MATTER)
def test_a_process_never_hands_a_trial_what_it_keeps_for_another(trial, cache, name):
    fresh, spec = ProcessCache(CPU, 10**9), trial(name)
    kept(cache, trial())
    found, wanted = kept(cache, spec), kept(fresh, spec)
    for kind in found:
        assert plain(found[kind]) == plain(wanted[kind]), kind


@pytest.mark.parametrize("kind", MATTERS)
def test_the_test_above_would_notice(trial, cache, kind):
    look = KEPT.get(kind) or (lambda *given: _of_adapter(*given)[kind])
    needed = plain(look(cache, trial()))
    for name in MATTERS[kind]:
        assert plain(look(cache, trial(name))) != needed, name


def test_what_does_not_depend_on_a_field_is_kept(trial, cache):
    texts, upper = cache.texts(trial()), cache.parts(trial()).upper(1)
    for name in ("alpha", "lr", "epochs", "norm_and_gate", "mem_seed", "keep_memory", "stage"):
        assert cache.texts(trial(name)) is texts and cache.parts(trial(name)).upper(1) is upper
