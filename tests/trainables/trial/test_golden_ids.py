"""Ids that records were written under: a change here makes every record ever written unfindable.

`golden_ids.json` was made by the first version. Never edit it: where ids must change, raise ID_VERSION; a field added
later changes none of them. Where a trial's numbers changed on purpose, `MATHS_VERSIONS` makes its id another one: what
that adds to an identity is left out here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainables.trial.canonical import unused_fields
from trainables.trial.identity import MATHS, MATHS_VERSIONS, identity, trial_id
from trainables.trial.making import make_spec
from trainables.trial.spec import FIELDS

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden_ids.json").read_text())


def stated(base: str, change: dict[str, Any]) -> dict[str, Any]:
    values = {**GOLDEN["bases"][base], **change}
    if "layer" in change:
        values.pop("depth", None)
    return identity(make_spec(values), data_key="hub@fever-v1.0")


@pytest.mark.parametrize("base", GOLDEN["ids"])
def test_ids_stay_what_they_are(base: str) -> None:
    identities = [(change, stated(base, change)) for change, _ in GOLDEN["ids"][base]]
    found = [[change, trial_id({n: v for n, v in stated.items() if n != MATHS})] for change, stated in identities]
    assert found == GOLDEN["ids"][base]


@pytest.mark.parametrize("base", GOLDEN["unused"])
def test_so_does_what_a_trial_has_no_use_for(base: str) -> None:
    found = unused_fields(stated(base, {}))
    assert sorted(name for name in found if name in GOLDEN["defaults"]) == GOLDEN["unused"][base]


@pytest.mark.parametrize("name", GOLDEN["defaults"])
def test_defaults_stay_what_they_are(name: str) -> None:
    """An id leaves defaults out: with another default, the id of a trial that was run would be that of another one."""
    default = FIELDS[name].default
    assert (list(default) if isinstance(default, tuple) else default) == GOLDEN["defaults"][name]


def test_mathematics_that_changed_makes_another_id_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    base = next(iter(GOLDEN["ids"]))
    plain, subjects = stated(base, {}), stated(base, {"page_order": "subjects"})
    assert MATHS not in plain and subjects[MATHS] == "subjects 2"
    assert trial_id(subjects) not in {known for _, known in GOLDEN["ids"][base]}
    monkeypatch.setitem(MATHS_VERSIONS, "all", 2)
    assert stated(base, {})[MATHS] == "all 2" and trial_id(stated(base, {})) != trial_id(plain)
    assert stated(base, {"page_order": "subjects"})[MATHS] == "all 2, subjects 2"
