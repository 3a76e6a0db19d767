"""The adapters there are: what a trial's `method` may be. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.adapters.allocate.plan import AllocatePlan
from trainables.adapters.docguidance.plan import DocGuidancePlan
from trainables.adapters.full_update.plan import FullUpdatePlan
from trainables.adapters.lora.plan import LoraPlan
from trainables.adapters.memory.plan import MemoryPlan
from trainables.adapters.plan import AdapterPlan
from trainables.adapters.prefix.plan import PrefixPlan
from trainables.adapters.pretrained.plan import PretrainedPlan
from trainables.adapters.prompt.plan import PromptPlan
from trainables.adapters.two_memories.plan import TwoMemoriesPlan
from trainables.registry import Registry

ADAPTERS: Registry[AdapterPlan] = Registry(
    "method",
    MemoryPlan,
    PretrainedPlan,
    FullUpdatePlan,
    AllocatePlan,
    LoraPlan,
    PromptPlan,
    PrefixPlan,
    DocGuidancePlan,
    TwoMemoriesPlan,
)


def adapter_plan(values: Mapping[str, Any]) -> AdapterPlan:
    """Return the adapter of a trial, as planning sees it.

    Args:
        values: all fields of a canonical trial (`vars(spec)`).

    Raises:
        ConfigError: there is no such method.
    """
    plan: AdapterPlan = ADAPTERS[values["method"]].from_fields(values)
    return plan
