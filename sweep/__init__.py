"""How a search space is tried: plan, stages, execution, records, MLflow and report.

The names in `__all__` are the library's face, and stable: within a major version they keep their arguments, what they
return and what they raise; new arguments come with defaults. Everything else may change with any version, but files
written by one version are read by all later ones.

    from sweep import ALL, Space, Stage, run_sweep

    space = Space(name="mine", title="...", axes={"alpha": [0, 1.0]}, stages=(Stage(name="all", axes={"alpha": ALL}),))
    results = run_sweep(space, storage="outputs", executor="local")
    results.rows[["alpha", "memory/nll"]]

Names are looked up when they are first used, so importing this package imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweep.planning.plan_of import plan_sweep
    from sweep.planning.show import CostedPlan
    from sweep.records.frame import load_results
    from sweep.running.evaluate import ask_trials
    from sweep.running.results import Results
    from sweep.running.run_sweep import run_sweep
    from sweep.space import (
        ALL,
        EVERY_LAYER,
        LARGEST,
        OTHERS,
        Best,
        LogUniform,
        OneOf,
        Sampling,
        Space,
        Stage,
        Uniform,
    )

__version__ = "0.1.0"
__all__ = [
    "ALL",
    "Best",
    "CostedPlan",
    "EVERY_LAYER",
    "LARGEST",
    "LogUniform",
    "OTHERS",
    "OneOf",
    "Results",
    "Sampling",
    "Space",
    "Stage",
    "Uniform",
    "ask_trials",
    "load_results",
    "plan_sweep",
    "run_sweep",
]
_ELSEWHERE = {
    "CostedPlan": "sweep.planning.show",
    "Results": "sweep.running.results",
    "ask_trials": "sweep.running.evaluate",
    "load_results": "sweep.records.frame",
    "plan_sweep": "sweep.planning.plan_of",
    "run_sweep": "sweep.running.run_sweep",
}


def __getattr__(name: str) -> Any:
    """Import what a name of `__all__` stands for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_ELSEWHERE.get(name, "sweep.space")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the names that can be imported, looked up already or not."""
    return sorted({*globals(), *__all__})
