"""What is asked of a training: a probe with its settings, as a value with an id of its own.

An asking is no part of a training: the same weights may be asked any number of questions, at any time, each of them
once. Its id is a hash of the probe, its version, its settings and the data; its label tells it from the other askings
of a trial, and stands before the slash in the names of its metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from typing import Any

from trainables.data.general_text import general_text_key
from trainables.data.sources import used_key
from trainables.data.task_folder import task_folder_key
from trainables.errors import ConfigError, nearest
from trainables.node.cache_dir import user_path
from trainables.probes.plan import ProbePlan
from trainables.probes.registry import PROBES
from trainables.trial.fields import Role
from trainables.trial.identity import STATED_DEFAULTS, digest
from trainables.trial.making import coerce
from trainables.trial.spec import FIELDS, TrialSpec

ASKING_IDS = "asking 1"
"""Raised when the same question gets another id."""
ASKINGS = "probes"
"""Folder of a training's askings, beside its record."""
FILES: Mapping[str, Callable[[str], str]] = {"general_text": general_text_key, "lm_eval_folder": task_folder_key}
"""Settings that name a file or folder, each with what names its content: that is what is asked."""
ANSWERS = "answers.parquet"
"""File of an asking's answers, beside its record."""


@dataclass(frozen=True)
class Asking:
    """One probe with its settings.

    Attributes:
        probe: its name in the registry.
        version: of the probe.
        label: the probe's name, or with what it has other than the trial's own fields say: `fever:num_shots=5`.
        settings: those fields of a trial that the probe uses and that decide what is asked, data left out.
        data: fingerprint of the data that it is asked on.
        epochs: after which epochs it is asked, besides the end.
        given: files that settings name by their content, as the user named them, where the trial names others.
    """

    probe: str
    version: int
    label: str
    settings: Mapping[str, Any]
    data: str
    epochs: tuple[int, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """Hash of what is asked: 16 hex digits; settings at their defaults left out, so that a new one changes none."""
        kept = {name: value for name, value in self.settings.items() if value != STATED_DEFAULTS.get(name)}
        return digest([ASKING_IDS, self.probe, self.version, kept, self.data])

    @property
    def folder(self) -> str:
        """Where its record and answers lie, beside the training's record."""
        return f"{ASKINGS}/{self.id}"

    def plan(self, spec: TrialSpec) -> ProbePlan:
        """Return the probe as it is made in a worker, for a trial that it is asked of."""
        values = {name: coerce(name, value) for name, value in self.settings.items() if name not in FILES or not value}
        plan: ProbePlan = PROBES[self.probe].from_fields({**vars(spec), **values, **self.given})
        return plan

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as it travels to a worker."""
        return {**asdict(self), "epochs": list(self.epochs)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Asking:
        """Read what `to_dict` gave."""
        return cls(**{**plain, "epochs": tuple(plain["epochs"])})


def own_askings(stated: Mapping[str, Any]) -> list[Asking]:
    """Return what a trial's own fields ask, in the registry's order; probes that are not known any more left out.

    Args:
        stated: its identity.
    """
    epochs = tuple(stated.get("eval_epochs") or ())
    return [_asking(name, stated, {}, stated["data"], epochs) for name in PROBES if name in stated["probes"]]


def added_asking(text: str, stated: Mapping[str, Any], data_key: str) -> Asking:
    """Return what a text such as `fever:num_shots=5` asks of a trial; what it leaves open is the trial's own.

    Args:
        text: checked by `check_probe`.
        stated: the trial's identity.
        data_key: fingerprint of all its data.
    """
    name, settings = parse_probe(text)
    return _asking(name, stated, settings, data_key, tuple(stated.get("eval_epochs") or ()))


def parse_probe(text: str) -> tuple[str, dict[str, Any]]:
    """Read `NAME[:key=value,...]`: a probe and those of its settings that are not to be the trial's own.

    Where a probe has a setting that says what it is above all, its value may stand alone: `lm_eval:arc_easy`.

    Raises:
        ConfigError: no such probe, no such setting, or a value that it cannot have.
    """
    name, _, rest = text.partition(":")
    known = _settings_of(PROBES[name.strip()])
    settings: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals and PROBES[name.strip()].main_setting:
            key, value = PROBES[name.strip()].main_setting, key
        elif not equals:
            raise ConfigError(f"probe {text!r}: {part!r} is no setting; write NAME:key=value,key=value")
        if key not in known:
            raise ConfigError(f"probe {text!r}: {name} has no setting {key!r}{nearest(key, known)} ({_told(known)})")
        if key in settings:
            raise ConfigError(f"probe {text!r}: {key} is stated twice")
        settings[key] = plain_value(coerce(key, value))
    return name.strip(), settings


def check_probes(texts: Iterable[str]) -> tuple[str, ...]:
    """Return some probes' texts, each in one spelling and once.

    Raises:
        ConfigError: as `parse_probe`.
    """
    return tuple(dict.fromkeys(spelled(*parse_probe(text)) for text in texts))


def spelled(probe: str, settings: Mapping[str, Any]) -> str:
    """Write a probe with some settings, as `parse_probe` reads it."""
    told = ",".join(f"{name}={_spelled(value)}" for name, value in sorted(settings.items()))
    return f"{probe}:{told}" if told else probe


def label_of(probe: str, settings: Mapping[str, Any], stated: Mapping[str, Any]) -> str:
    """Return the label of an asking within a trial: what it has other than the trial's own fields say.

    Args:
        probe: its name.
        settings: of the asking.
        stated: the trial's identity.
    """
    other = {n: v for n, v in settings.items() if v != stated.get(n, STATED_DEFAULTS.get(n))}
    return spelled(probe, other)


def plain_value(value: Any) -> Any:
    """Return a field's value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


@cache
def _settings_of(plan: type[ProbePlan]) -> Sequence[str]:
    """Return the fields that decide what a probe asks; the data are those of the trial."""
    return [name for name in plan.uses() if name != "data" and FIELDS[name].role & (Role.TRAINING | Role.PROBE)]


def _asking(
    name: str, stated: Mapping[str, Any], other: Mapping[str, Any], data_key: str, epochs: tuple[int, ...]
) -> Asking:
    plan = PROBES[name]
    given = {each: str(user_path(value).resolve()) for each, value in other.items() if each in FILES and value}
    keyed = {each: FILES[each](path) for each, path in given.items()}
    settings = {each: stated.get(each, STATED_DEFAULTS.get(each)) for each in _settings_of(plan)}
    settings |= {**other, **keyed}
    label = label_of(name, settings, stated) if other else name
    return Asking(
        name, plan.version, label, settings, used_key(data_key, name == "counterfact", name == "choices"), epochs, given
    )


def _spelled(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "+".join(map(str, value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _told(known: Sequence[str]) -> str:
    return f"there are: {', '.join(known)}" if known else "it has none"
