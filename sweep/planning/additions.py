"""Points that a sweep is given while it runs, as further products of its stages, or as a stage of clones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sweep.planning.overrides import apply_overrides
from sweep.planning.points import PointMaker
from sweep.planning.stages import ResolvedSpace, ResolvedStage, resolve
from sweep.records.steering import CLONE, Wish
from sweep.space import Space, stage_named
from trainables.errors import ConfigError
from trainables.trial.making import make_spec

CLONES = "clones"
"""Stage of the trials that were made after others: none of the space's own, so that no choice counts them."""


@dataclass(frozen=True)
class Addition:
    """Points that somebody added.

    Attributes:
        settings: `FIELD=V[,V...]`: the space with these overrides gives the points.
        stage: the only stage that gets some; empty for all grid stages.
        clones: all fields of each new trial; they come instead of `settings`.
        probes: of clones: what they are asked besides what their fields say.
        labels: what the records of the trials will say of it.
    """

    settings: tuple[str, ...] = ()
    stage: str = ""
    clones: tuple[Mapping[str, Any], ...] = ()
    probes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, wish: Wish) -> Addition:
        """Return what a wish adds."""
        if wish.command == CLONE:
            return cls(clones=wish.points, probes=wish.added, labels=wish.labels)
        return cls(wish.settings, wish.stage, labels=wish.labels)


def with_additions(
    resolved: ResolvedSpace, space: Space, until_stage: str | None, additions: Sequence[Addition], maker: PointMaker
) -> ResolvedSpace:
    """Return a space whose stages have what was added.

    Args:
        resolved: without it.
        space: of which it was made.
        until_stage: leave out the stages after this one.
        additions: in their order.
        maker: of points.

    Raises:
        ConfigError: values at odds with each other, the models or the data; no such stage, or a sampled one.
        DataError: data that cannot be found.
    """
    stages, clones = list(resolved.stages), []
    for addition in additions:
        if addition.clones:
            clones += [_clones(addition, clones_name(resolved), maker)]
            continue
        _check_stage(space, addition.stage)
        starting = [stage.name for stage in resolved.stages if stage.start is not None]
        if starting:
            raise ConfigError(
                f"stage {starting[0]}: starts from the weights of another stage, and such a space is given points by "
                "running it again with other values"
            )
        other = resolve(apply_overrides(space, addition.settings), until_stage)
        for number, part in enumerate(other.stages):
            old = resolved.stages[number]
            is_meant = addition.stage in ("", part.name) and not part.sampling
            is_other = (part.base, part.axes, part.source) != (old.base, old.axes, old.source)
            if is_meant and is_other:
                parts = (*stages[number].parts, replace(part, labels=addition.labels))
                stages[number] = replace(old, parts=parts)
    if clones:
        stages.append(replace(clones[0], parts=tuple(clones[1:])))
    return replace(resolved, stages=tuple(stages))


def clones_name(resolved: ResolvedSpace) -> str:
    """Return the name of the stage of clones: one that the space does not use itself."""
    return CLONES if CLONES not in {stage.name for stage in resolved.stages} else f"{CLONES} of trials"


def _check_stage(space: Space, name: str) -> None:
    if name and stage_named(space, name).sampling:
        raise ConfigError(
            f"stage {name}: its trials are sampled; to have more of them, run the sweep again with --set num_samples=…"
        )


def _clones(addition: Addition, stage: str, maker: PointMaker) -> ResolvedStage:
    points = [maker.point(make_spec({**fields, "stage": stage})) for fields in addition.clones]
    added = tuple(replace(point, added=addition.probes) for point in points)
    return ResolvedStage(stage, {}, {}, given=added, labels=addition.labels)
