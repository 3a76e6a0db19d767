"""What the trials of a pack hold on their device, in bytes, from their specs alone.

Counted is what is there at a time. First the trunk, or once on a node the whole model against which parts are checked,
each alone (`trainables.lm.weight_budget`). Then, until the pack is over: the blocks above the trunk and the head; the
whole model too, where a probe asks it; each member's weights with gradients and moments; what one pass forward and
backward takes; and on a GPU the texts' hidden states, where they take less than a fifth of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sweep.planning.flops import NUMBER_BYTES, CostModel
from sweep.planning.points import Point
from trainables.adapters.registry import adapter_plan
from trainables.lm.pass_sizes import trunk_bytes
from trainables.probes.registry import probe_plans

STATES_SHARE = 0.2
"""Of a GPU's memory: larger hidden states stay with the host (`trainables.lm.batches.TextBatches`)."""
USED_SHARE = 0.85
"""Of a device's memory that may be planned for; the rest is for the libraries' own and for gaps (as
`trainables.lm.placement.MEMORY_SHARE`)."""


@dataclass(frozen=True)
class DeviceBytes:
    """What a pack holds on its device.

    Attributes:
        before: the trunk with a batch, or the whole model once on a node: each before the rest is there.
        weights: of the blocks above the trunk and of the head, or of all that runs in training.
        whole: of the whole model beside them, where a probe asks it.
        trained: the members' weights, gradients and moments.
        passing: what one pass forward and backward takes.
        states: the texts' hidden states.
    """

    before: float
    weights: float
    whole: float
    trained: float
    passing: float
    states: float

    @property
    def total(self) -> float:
        """The most that is there at a time."""
        return max(self.before, self.weights + self.whole + self.trained + self.passing + self.states)


class PackMemory:
    """The bytes of packs of trials of one kind, by their size.

    Args:
        point: one of the trials, the one with the largest memory.
        on_gpu: whether the device is a GPU.
        memory_bytes: of the device: decides whether hidden states are moved there; None for any.
    """

    def __init__(self, point: Point, on_gpu: bool = True, memory_bytes: float | None = None) -> None:
        """Work out all that does not depend on the size."""
        spec, card = point.spec, point.card
        self._card, self._on_gpu = card, on_gpu
        self._plan = plan = adapter_plan(vars(spec))
        self._number = number = NUMBER_BYTES[spec.dtype]
        self._step_tokens = spec.batch_size * spec.segment_tokens
        self._pass_tokens = max(spec.micro_batch_tokens, spec.segment_tokens) if plan.packs else self._step_tokens
        self._weights = plan.weight_bytes(card, number)
        model = CostModel({})
        texts, all_weights = model.texts(point), float(number * card.params)
        asked = [*probe_plans(vars(spec)), *(asking.plan(spec) for asking in point.added_askings)]
        is_asked = any(probe.reading(texts, spec.num_documents).whole for probe in asked)
        self._whole = all_weights if is_asked and self._weights < all_weights else 0.0
        layer = plan.trunk_layer(card)
        below = 0 if layer is None else number * (card.block_params * (layer + 1) + card.head_params)
        self._before = max(all_weights, below + trunk_bytes(card, number) if below else 0.0)
        states = model.trunk([point])[1] if on_gpu else 0.0
        room = STATES_SHARE * (memory_bytes or float("inf"))
        self._states = states if states < room else 0.0

    def of_pack(self, size: int) -> DeviceBytes:
        """Return what a pack of so many members holds."""
        tokens = min(self._pass_tokens, size * self._step_tokens) if self._plan.trains else 0
        passing = tokens * self._plan.token_bytes(self._card, self._number)
        passing += self._plan.head_pass_bytes(self._card, self._number, tokens, self._on_gpu)
        trained = size * self._plan.member_bytes(self._card, self._number)
        return DeviceBytes(self._before, self._weights, self._whole, trained, passing, self._states)
