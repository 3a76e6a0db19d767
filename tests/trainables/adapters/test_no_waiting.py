"""While an epoch runs the host asks the device for nothing: it would wait, and a GPU would stand idle meanwhile."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from trainables.adapters.adapter import Adapter
from trainables.adapters.registry import ADAPTERS
from trainables.adapters.stacked import StackedAdapter
from trainables.trial.spec import TrialSpec

READS = {"tolist", "item", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "__contains__"}
SENDS = {"tensor", "as_tensor", "to", "cuda"}
WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique_dim", "_unique2", "bincount"}
"""Operations that need a number of the device before they can go on; or the size of whose result is one."""


class Asked(TorchFunctionMode):
    """Counts calls that read numbers of a device, or bring some there while the host waits."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        caller = sys._getframe(1)
        ours = "/trainables/" in caller.f_code.co_filename and "/tests/" not in caller.f_code.co_filename
        to_a_device = "device" in kwargs or any(isinstance(each, torch.device) for each in args)
        if name in READS or (ours and name in SENDS and to_a_device and not kwargs.get("non_blocking")):
            self.calls[f"{name} in {caller.f_code.co_name}"] += 1
        return func(*args, **kwargs)


class Waits(TorchDispatchMode):
    """Counts operations that wait, those of other libraries too."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name.removeprefix("aten::"), kwargs or {}
        indices = args[1] if name.startswith(("index", "_index_put")) and isinstance(args[1], (list, tuple)) else []
        by_flags = any(each is not None and each.dtype == torch.bool for each in indices)
        of_unknown_size = name == "repeat_interleave" and kwargs.get("output_size") is None
        if name in WAITS or by_flags or of_unknown_size:
            self.calls[name] += 1
        return func(*args, **kwargs)


CASES: dict[str, dict[str, Any]] = {
    "memory": {"layer": 1},
    "memory by document": {"layer": 1, "allocation": "partitioned", "alpha": 0.5},
    "memory by token": {"layer": 1, "allocation": "simset2", "granularity": "token", "alpha": 0.5},
    "memory hard": {"layer": 1, "allocation": "random", "mode": "hard"},
    "memory of other seeds and sizes": {"layer": 1, "allocation": "partitioned", "alpha": 0.5},
    "lora": {"layer": 1, "rank": 4},
    "docguidance": {"layer": 1, "guidance_alpha": 0.5},
    "two_memories": {"layer": 1, "template_layer": 2, "content": "document+template"},
}


def test_every_adapter_that_packs_by_stacks_takes_part() -> None:
    stacked = {name for name in ADAPTERS if ADAPTERS[name].trains and issubclass(ADAPTERS[name].load(), StackedAdapter)}
    assert stacked == {name.split()[0] for name in CASES}


@pytest.mark.parametrize("at_once", [False, True], ids=["text by text", "as on a gpu"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.thorough(only=("two_memories",))
def test_an_epoch_is_read_once_however_many_steps_it_has(
    case: str,
    at_once: bool,
    small_trial: Callable[..., TrialSpec],
    build: Callable[..., Adapter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if at_once:
        monkeypatch.setattr("trainables.lm.attention.AT_ONCE", ("cpu",))
    reads = []
    for batch_size in (1, 4):
        spec = small_trial(method=case.split()[0], **CASES[case], batch_size=batch_size)
        others = {"seed": 1, "memory_dim": 48} if "other" in case else {}
        adapter = build(spec, small_trial(**{**vars(spec), "lr": 2e-3, **others}))
        adapter.train_epoch(0)
        with Waits() as waits, Asked() as asked:
            adapter.train_epoch(1)
        assert not waits.calls, "an operation waits"
        reads.append(asked.calls)
    few, many = reads[1], reads[0]
    assert few == many, "reads grow with the steps"
    assert set(few) <= {"tolist in run_epoch", "tolist in means"} and few.total() == 2


def test_a_read_would_be_noticed() -> None:
    values = torch.ones(3)
    with Waits() as waits, Asked() as asked:
        values.tolist()
        float(values[0])
        values[values > 0]
        bool(values.all())
        torch.repeat_interleave(values, torch.tensor([1, 2, 3]))
    assert asked.calls.total() == 3 and waits.calls.keys() == {"_local_scalar_dense", "index", "repeat_interleave"}
