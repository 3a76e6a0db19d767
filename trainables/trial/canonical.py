"""What of a trial cannot matter: equivalent specs become one, and fields without a use take their defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from trainables.adapters.lora.targets import without_repetition
from trainables.adapters.memory.setting import SetSetting
from trainables.adapters.registry import ADAPTERS
from trainables.data.sources import uses_hub
from trainables.errors import ConfigError
from trainables.lm.card import ModelCard, model_card
from trainables.probes.registry import PROBES
from trainables.trial.fields import Part
from trainables.trial.making import twin
from trainables.trial.parts import IDENTITY_FIELDS
from trainables.trial.spec import FIELDS, TrialSpec

_KEPT = ("method", "probes", "seed")
"""Never without use: the first two say which parts a trial has, and ids have always held the seed."""


def layer_index(depth: float, num_blocks: int) -> int:
    """Block at a relative depth: `round(depth * blocks) - 1`, halves up, at least 0 (ours)."""
    return max(0, math.floor(depth * num_blocks + 0.5 + 1e-9) - 1)


def canonical(spec: TrialSpec, card: ModelCard | None = None) -> TrialSpec:
    """Return the equivalent spec without what cannot matter.

    A depth becomes a block index; without an entry set, or at alpha 0 in inductive mode, the allocation and
    all that shapes it is dropped; a pretrained trial keeps nothing of training; and so on. The model and the
    data stay as the user named them.

    Raises:
        ConfigError: the layer lies beyond the model.
    """
    card = card or model_card(spec.model, spec.revision)
    adapter = ADAPTERS[spec.method]
    acts = "alpha" not in adapter.uses() or spec.mode == "hard" or spec.alpha != 0
    sets = "allocation" in adapter.uses() and spec.allocation != "none" and acts
    new = dict(without_use(spec.method, spec.probes, spec.content != "document", sets))
    if not card.is_hub:
        new["revision"] = "main"
    elif card.commit:
        new["revision"] = card.commit  # every worker takes the commit that the driver saw, though the branch may move
    if not uses_hub(spec.data):
        new["allow_missing_pages"] = False
    if "layer" in adapter.uses():
        new["layer"], new["depth"] = _block(spec, card), None
    if sets:
        new |= _canonical_entry_sets(spec)
    if "lora_targets" in adapter.uses():
        new["lora_targets"] = without_repetition(spec.lora_targets)
    if "template_layer" in adapter.uses() and spec.template_layer == new["layer"]:
        new["template_layer"] = None
    if adapter.trains and spec.eval_epochs:
        new["eval_epochs"] = tuple(e for e in spec.eval_epochs if e != spec.epochs)
    if spec.num_shots == 0:
        new["notes_labels"] = False
    stated = vars(spec)
    changed = {name: value for name, value in new.items() if stated[name] != value}
    return twin(spec, changed) if changed else spec


def uses_counterfact(spec: TrialSpec) -> bool:
    """Say whether a trial needs CounterFact records: to ask them, to train on them, or to order its pages by them."""
    return "counterfact" in spec.probes or trains_on_counterfact(vars(spec))


def trains_on_counterfact(stated: Mapping[str, Any]) -> bool:
    """Say whether CounterFact records decide what is trained: its pages' order, or texts of theirs."""
    texts = stated.get("template_facts") and stated["content"] != "document"
    trains = texts and stated["method"] in ADAPTERS and ADAPTERS[stated["method"]].trains
    return stated.get("page_order") == "subjects" or bool(trains)


def draws_texts(spec: TrialSpec) -> bool:
    """Say whether the seed decides what is trained on: the examples of prompts that are."""
    return spec.content != "document" and spec.num_shots > 0


def uses_questions(spec: TrialSpec) -> bool:
    """Say whether a trial asks questions of the user's own, or trains on them."""
    return "choices" in spec.probes or (ADAPTERS[spec.method].trains and spec.content != "document")


def unused_fields(stated: Mapping[str, Any]) -> frozenset[str]:
    """Return the identity fields that a trial's method and probes have no use for; they are at their defaults.

    Args:
        stated: an identity, as `identity` states it or as a record holds it.
    """
    if stated["method"] not in ADAPTERS:
        return frozenset()
    return frozenset(without_use(stated["method"], (*stated["probes"], "fever")))  # whose fields always tell apart


@cache
def without_use(
    method: str, probes: tuple[str, ...], templates: bool = True, entry_sets: bool = True
) -> Mapping[str, Any]:
    """Return the fields that no part of a trial has a use for, with their defaults.

    Args:
        method: what is trained.
        probes: what is asked; those that are not known any more are passed over.
        templates: whether templates are trained on, if anything is.
        entry_sets: whether entries are allocated, to an effect.
    """
    adapter = ADAPTERS[method]
    own = {*adapter.uses(), *(("depth",) if "layer" in adapter.uses() else ())}
    asked = {name for probe in probes if probe in PROBES for name in PROBES[probe].uses()}
    present = {
        Part.MEMORY: own,
        Part.ENTRY_SETS: own if entry_sets else (),
        Part.SCHEDULE: FIELDS if adapter.trains else (),
        Part.TEMPLATES: FIELDS if adapter.trains and templates else (),
        Part.FEVER: asked,
        Part.COUNTERFACT: asked,
        Part.QUESTIONS: asked,
    }
    return {
        name: FIELDS[name].default
        for name in IDENTITY_FIELDS
        if name not in _KEPT
        and all(name not in present.get(part, FIELDS) for part in Part if part in FIELDS[name].parts)
    }


def _block(spec: TrialSpec, card: ModelCard) -> int:
    """Return the index of the block that the memory adds to."""
    layer = spec.layer if spec.depth is None else layer_index(spec.depth, card.num_blocks)
    assert layer is not None
    if layer >= card.num_blocks:
        raise ConfigError(
            f"layer={layer}: {spec.model} has {card.num_blocks} blocks, 0 to {card.num_blocks - 1}; choose one of them"
        )
    return layer


def _canonical_entry_sets(spec: TrialSpec) -> dict[str, Any]:
    """Return what of an allocation cannot matter, with what it is set to."""
    new: dict[str, Any] = dict(vars(SetSetting.of(vars(spec))))
    if spec.mode == "hard":
        new["alpha"] = 0.0
    return new
