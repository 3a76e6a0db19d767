"""What decides a trial's result, and the ids that are hashes of it.

`identity` states everything that does, and `trial_id` hashes that statement; the same function gives the id of a spec
and of a finished record. `training_id` hashes that part of it which changes what is trained: trials that only ask
differently share one training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from trainables.adapters.registry import ADAPTERS
from trainables.data.general_text import general_text_key
from trainables.data.sources import data_key as key_of_data
from trainables.data.sources import used_key
from trainables.data.task_folder import task_folder_key
from trainables.lm.card import ModelCard, model_card
from trainables.trial.canonical import canonical, trains_on_counterfact, uses_counterfact, uses_questions, without_use
from trainables.trial.fields import Role
from trainables.trial.parts import IDENTITY_FIELDS
from trainables.trial.spec import FIELDS, TrialSpec

ID_VERSION = "1"
MATHS = "maths"
MATHS_VERSIONS: Mapping[str, int] = {"all": 1, "subjects": 2}
"""Raised by hand when the same trial gives other numbers than before, so that its id is another one.

`all`: of every trial; `subjects`: of those with `page_order=subjects` (2: the subjects' own pages, those included to
which no claim points). A version of 1 is left out, so that the ids of before stay. What only asks differently has a
version of its own, that of the probe, and keeps the id.
"""
STATED_FIELDS: tuple[str, ...] = tuple(name for name in IDENTITY_FIELDS if name != "depth")
"""What `identity` states: a depth is stated as the layer it stands for."""
_UNSTATED_FIELDS = tuple(name for name in FIELDS if name not in STATED_FIELDS)
_ELIDED: dict[str, Any] = {
    name: list(FIELDS[name].default) if FIELDS[name].base is tuple else FIELDS[name].default
    for name in IDENTITY_FIELDS
    if name not in ("model", "data")
}
_TUPLES = tuple(name for name in STATED_FIELDS if FIELDS[name].base is tuple)
TOLD_APART: tuple[str, ...] = (*STATED_FIELDS, MATHS)
"""By which two different trials differ in at least one."""
STATED_DEFAULTS: Mapping[str, Any] = _ELIDED
"""What a record from before a field was added would have stated for it."""
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def identity(spec: TrialSpec, card: ModelCard | None = None, data_key: str | None = None) -> dict[str, Any]:
    """State everything that decides the result, model and data by what they contain.

    Args:
        spec: any spec; it is made canonical.
        card: its model, where the caller has it at hand.
        data_key: its data's fingerprint, likewise.

    Returns:
        The `STATED_FIELDS`, as plain JSON values; and `maths`, the `MATHS_VERSIONS` that are not 1, if there are any.
    """
    card = card or model_card(spec.model, spec.revision)
    return canonical_identity(canonical(spec, card), card, data_key or key_of_data(spec.data))


def canonical_identity(plain: TrialSpec, card: ModelCard, data_key: str) -> dict[str, Any]:
    """Do the same for a spec that is canonical already."""
    stated = dict(vars(plain), model=card.key, data=used_key(data_key, uses_counterfact(plain), uses_questions(plain)))
    for name in _UNSTATED_FIELDS:
        del stated[name]
    parts = ("all", *(("subjects",) if plain.page_order == "subjects" else ()))
    maths = [f"{part} {MATHS_VERSIONS[part]}" for part in parts if MATHS_VERSIONS[part] > 1]
    if maths:
        stated[MATHS] = ", ".join(maths)
    if plain.general_text is not None:
        stated["general_text"] = general_text_key(plain.general_text)
    if plain.lm_eval_folder is not None:
        stated["lm_eval_folder"] = task_folder_key(plain.lm_eval_folder)
    for name in _TUPLES:
        stated[name] = list(stated[name])
    return stated


def trial_id(stated: Mapping[str, Any]) -> str:
    """Hash an identity, as `identity` states it or as a record holds it: 16 hex digits.

    Fields at their default are left out, so that a field added later changes no id.
    """
    kept = {name: value for name, value in stated.items() if name not in _ELIDED or value != _ELIDED[name]}
    return digest([ID_VERSION, kept])


def training_identity(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an identity that decides what is trained, and on what its memorisation error is measured.

    What only asks is at its default: the fields of probes, and those of prompts unless prompts are trained on. So a
    training has the id of the trial that asks what is asked by default, and records of every format tell theirs.

    Args:
        stated: an identity, as `identity` states it or as a record holds it.
    """
    of_texts = stated["content"] != "document"
    asks = _only_asked(stated["method"], of_texts)
    trains = stated["method"] in ADAPTERS and ADAPTERS[stated["method"]].trains
    data = used_key(stated["data"], trains_on_counterfact(stated), trains and of_texts)
    return {**stated, **{name: value for name, value in asks.items() if name in stated}, "data": data}


@cache
def _only_asked(method: str, of_texts: bool) -> Mapping[str, Any]:
    """Return the fields that change nothing that is trained, with their defaults."""
    asks = {name: _ELIDED[name] for name, field in FIELDS.items() if field.role is Role.PROBE}
    if method in ADAPTERS:
        asks |= {name: _ELIDED[name] for name in without_use(method, (), of_texts) if name in _ELIDED}
    return asks


def training_id(stated: Mapping[str, Any]) -> str:
    """Return the id of the training that a trial needs: 16 hex digits.

    Args:
        stated: the trial's identity.
    """
    return trial_id(training_identity(stated))


def digest(value: Any) -> str:
    """Hash a plain JSON value: 16 hex digits."""
    return hashlib.blake2b(_encode(value).encode(), digest_size=8).hexdigest()
