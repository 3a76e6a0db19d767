"""The probes there are: what a trial's `probes` may name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.probes.choices.plan import ChoicesPlan
from trainables.probes.counterfact.plan import CounterfactPlan
from trainables.probes.fever.plan import FeverPlan
from trainables.probes.forgetting.plan import ForgettingPlan
from trainables.probes.lm_eval.plan import LmEvalPlan
from trainables.probes.plan import ProbePlan
from trainables.probes.recall.plan import RecallPlan
from trainables.registry import Registry

PROBES: Registry[ProbePlan] = Registry(
    "probes", FeverPlan, CounterfactPlan, RecallPlan, ForgettingPlan, ChoicesPlan, LmEvalPlan
)


def probe_plans(values: Mapping[str, Any]) -> list[ProbePlan]:
    """Return the probes of a trial, in the registry's order.

    Args:
        values: all fields of a canonical trial (`vars(spec)`).

    Raises:
        ConfigError: there is no such probe.
    """
    for name in values["probes"]:
        PROBES[name]
    return [PROBES[name].from_fields(values) for name in PROBES if name in values["probes"]]
