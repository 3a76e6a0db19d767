"""Points of a search space: specs with their ids, made from the product of axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import product
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from sweep.space import EVERY_LAYER
from trainables.adapters.registry import ADAPTERS, adapter_plan
from trainables.data.sources import data_key, pin_sources, used_key
from trainables.errors import ConfigError
from trainables.lm.card import ModelCard, hub_id, model_card
from trainables.trial.asking import Asking, added_asking, own_askings
from trainables.trial.canonical import canonical, draws_texts, layer_index, uses_counterfact, uses_questions
from trainables.trial.fields import Part
from trainables.trial.identity import canonical_identity, training_id, trial_id
from trainables.trial.making import make_spec, vary
from trainables.trial.parts import fields_of, may_differ, pack_fields
from trainables.trial.spec import FIELDS, TrialSpec

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_ASKED = fields_of(Part.MODEL | Part.CORPUS | Part.PAGES | Part.SEGMENTS | Part.MEMORY)
Axes = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Point:
    """One trial to be.

    Attributes:
        id: its trial id.
        spec: canonical, with the label of its stage.
        card: its model.
        data_key: fingerprint of the data that it uses.
        added: what it is asked besides what its own fields say, such as `fever:num_shots=5`.
        all_data_key: fingerprint of all its data, also of what its own fields do not use.
        start: the trial whose weights it starts from, where it is one of the same plan.
        labels: where it comes from, if it was added while the sweep ran; its record will say so.
    """

    id: str
    spec: TrialSpec
    card: ModelCard
    data_key: str
    added: tuple[str, ...] = ()
    all_data_key: str = ""
    start: Point | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the id is a hash of, as plain JSON values."""
        return canonical_identity(self.spec, self.card, self.data_key)

    @cached_property
    def training(self) -> str:
        """The id of the training that it needs; trials that only ask differently share it."""
        return training_id(self.identity)

    @cached_property
    def own(self) -> tuple[Asking, ...]:
        """What its own fields ask: without an answer to it, it has no result."""
        return tuple(own_askings(self.identity))

    @cached_property
    def added_askings(self) -> tuple[Asking, ...]:
        """What it is asked besides; its own question among it is asked by this version of the probe."""
        found = (added_asking(text, self.identity, self.all_data_key or self.data_key) for text in self.added)
        return tuple({asking.id: asking for asking in found}.values())

    @property
    def trains(self) -> bool:
        """Whether anything is trained for it at all."""
        return ADAPTERS[self.spec.method].trains

    @property
    def askings(self) -> tuple[Asking, ...]:
        """All that it is asked, each once."""
        if not self.added:
            return self.own
        return tuple({asking.id: asking for asking in (*self.added_askings, *self.own)}.values())

    @cached_property
    def pack_key(self) -> tuple[Any, ...]:
        """What members of one pack share."""
        shared = _shared_fields(self.spec.method, draws_texts(self.spec))
        return self.card.key, self.data_key, shared(vars(self.spec)), self.added

    @cached_property
    def ask_key(self) -> tuple[Any, ...]:
        """What trainings share that can be asked in one pass, however they were trained."""
        return self.card.key, self.data_key, _asked_fields(self.spec.method)(vars(self.spec))


@cache
def _shared_fields(method: str, draws: bool) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    return itemgetter(*pack_fields(method, draws))


@cache
def _asked_fields(method: str) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    free = ADAPTERS[method].unequal
    names = (name for name in _ASKED if name != "seed" and not may_differ(name, free))
    return itemgetter(*names, "epochs", "micro_batch_tokens")


class PointMaker:
    """Makes points, looking up each model and each data set once.

    Args:
        commits: at which models of the Hub are taken, by `hub id@revision`; others where they stand now.
        added: what the trials of a stage are asked besides what their fields say, by the stage's name.
    """

    def __init__(self, commits: Mapping[str, str] = _NOTHING, added: Mapping[str, tuple[str, ...]] = _NOTHING) -> None:
        """Start without any model or data set."""
        self._commits, self._added = commits, added
        self._cards: dict[tuple[str, str], ModelCard] = {}
        self._data: dict[str, tuple[str, str]] = {}
        self._specs: dict[tuple[str, ...], TrialSpec] = {}

    def card(self, model: str, revision: str) -> ModelCard:
        """Return the shape of a model.

        Raises:
            ConfigError: no such model.
        """
        if (model, revision) not in self._cards:
            commit = self._commits.get(f"{hub_id(model)}@{revision}", "")
            card = self._cards[model, revision] = model_card(model, revision, commit)
            # a canonical spec names the commit, and what is made from one is at the same branch
            self._cards.setdefault((model, card.commit), card)
        return self._cards[model, revision]

    def point(self, spec: TrialSpec) -> Point:
        """Make a point of a spec.

        Raises:
            ConfigError: no such model, or a layer beyond it.
            DataError: data that cannot be found.
        """
        card = self.card(spec.model, spec.revision)
        if spec.data not in self._data:
            pinned = pin_sources(spec.data)
            self._data[spec.data] = pinned, data_key(pinned)
        pinned, key = self._data[spec.data]
        plain = canonical(spec, card)
        if pinned != spec.data:
            plain = vary(plain, {"data": pinned})
        used = used_key(key, uses_counterfact(plain), uses_questions(plain))
        stated = canonical_identity(plain, card, used)
        return Point(trial_id(stated), plain, card, used, self._added.get(spec.stage, ()), key)

    def recorded(self, record: Mapping[str, Any]) -> Point:
        """Make the point of a recorded trial, its model and data where they were when it was recorded.

        Raises:
            ConfigError: the model is gone, or what is there is another one.
            DataError: likewise, data.
        """
        stated, model, data = record["identity"], record["model"], record["data"]
        given = {"model": model["given"], "data": data["given"], "stage": record["stage"]}
        spec = make_spec(
            {name: value for name, value in stated.items() if name in FIELDS and name not in given} | given
        )
        point = self.point(spec)
        if point.card.key != model["key"]:
            raise ConfigError(f"model={model['given']}: is not what trial {record['id']} was trained on; restore it")
        if point.id != record["id"]:
            raise ConfigError(f"data={data['given']}: are not what trial {record['id']} was trained on; restore them")
        return point

    def expand(self, base: Mapping[str, Any], axes: Axes) -> list[Point]:
        """Make the points of a product of axes, equivalent ones once, in order.

        Args:
            base: values that all share.
            axes: values of each axis, in their fields' types.

        Raises:
            ConfigError: values at odds with each other or with the model.
        """
        points: dict[str, Point] = {}
        for values in self.combinations(base, axes):
            point = self.point(self.spec({**base, **values}))
            points.setdefault(point.id, point)
        return list(points.values())

    def block(self, values: Mapping[str, Any]) -> int | None:
        """Return the block that some values mean, by `layer` or by `depth`."""
        if values.get("depth") is None:
            return values.get("layer")
        return layer_index(values["depth"], len(self.layers(values)))

    def spec(self, values: Mapping[str, Any]) -> TrialSpec:
        """Make a spec of values in their fields' types; many that name the same fields take little time.

        Raises:
            ConfigError: values at odds with each other.
        """
        names = tuple(values)
        if names not in self._specs:
            self._specs[names] = make_spec(values)
        return vary(self._specs[names], values)

    def started(self, place: str, values: Mapping[str, Any], start: Point) -> Point:
        """Make the point of a trial that starts from another one's weights.

        Args:
            place: what asks for it, for messages.
            values: its fields, in their types.
            start: the other.

        Raises:
            ConfigError: values at odds with each other or with the model, or weights that do not fit.
        """
        point = self.point(self.spec({**values, "start_from": start.training}))
        if point.card.key != start.card.key:
            raise ConfigError(
                f"{place}: model={point.spec.model}: the weights to start from are of model={start.spec.model}"
            )
        try:
            adapter_plan(vars(point.spec)).check_start(adapter_plan(vars(start.spec)))
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None
        return replace(point, start=start)

    def count(self, base: Mapping[str, Any], axes: Axes) -> int:
        """Count the combinations of some axes, equivalent ones as often as they occur."""
        if EVERY_LAYER in axes.get("layer", ()):
            return sum(1 for _ in self.combinations(base, axes))
        total = 1
        for values in axes.values():
            total *= len(values)
        return total

    def layers(self, values: Mapping[str, Any]) -> range:
        """Return the blocks of the model that some values name."""
        spec = {"model": TrialSpec.model, "revision": TrialSpec.revision} | dict(values)
        return range(self.card(spec["model"], spec["revision"]).num_blocks)

    def combinations(self, base: Mapping[str, Any], axes: Axes) -> Iterator[dict[str, Any]]:
        """Yield every combination of some axes' values, every block of the model among them where all are meant."""
        for combination in product(*axes.values()):
            values = dict(zip(axes, combination, strict=True))
            if values.get("layer") is EVERY_LAYER:
                yield from ({**values, "layer": layer} for layer in self.layers({**base, **values}))
            else:
                yield values
