"""Ids that records were written under: a change here makes every record ever written unfindable.

`golden_ids.json` was made by the first version. Never edit it: where ids must change, raise ID_VERSION; a field added
later changes none of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainables.trial.spec import FIELDS, identity, make_spec, trial_id, unused_fields

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden_ids.json").read_text())


def stated(base: str, change: dict[str, Any]) -> dict[str, Any]:
    values = {**GOLDEN["bases"][base], **change}
    if "layer" in change:
        values.pop("depth", None)
    return identity(make_spec(values), data_key="hub@fever-v1.0")


@pytest.mark.parametrize("base", GOLDEN["ids"])
def test_ids_stay_what_they_are(base: str) -> None:
    found = [[change, trial_id(stated(base, change))] for change, _ in GOLDEN["ids"][base]]
    assert found == GOLDEN["ids"][base]


@pytest.mark.parametrize("base", GOLDEN["unused"])
def test_so_does_what_a_trial_has_no_use_for(base: str) -> None:
    assert sorted(unused_fields(stated(base, {}))) == GOLDEN["unused"][base]


@pytest.mark.parametrize("name", GOLDEN["defaults"])
def test_defaults_stay_what_they_are(name: str) -> None:
    """An id leaves defaults out: with another default, the id of a trial that was run would be that of another one."""
    default = FIELDS[name].default
    assert (list(default) if isinstance(default, tuple) else default) == GOLDEN["defaults"][name]
