"""A space expanded: stages with their points, and what is done, left or asked of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from sweep.planning.choices import ChoiceQuestion
from sweep.planning.due import Due
from sweep.planning.leakage_sets import told_sets
from sweep.planning.points import Point, PointMaker
from sweep.planning.stages import ResolvedSpace, ResolvedStage
from trainables.trial.spec import TrialSpec


@dataclass(frozen=True)
class StagePlan:
    """One stage, as far as it is known.

    Attributes:
        stage: what it shares, varies, takes and samples.
        combinations: product of its axes, equivalents counted.
        points: its different points; with a stand-in value where a choice is still open, and one with
            middling values for every `copies` trials of a sampled stage.
        equivalent: how many are points of an earlier stage.
        done: how many of the others have a record that says they ended, diverged or were stopped.
        failed: how many have failed; they are run again on request only.
        to_run: those that are left to be trained, of `points`.
        to_ask: those whose weights are stored, or trained for another of the plan's trials, and that lack an answer.
        dues: what each of these lacks, by trial id.
        waits_for: the stage whose choice is still open, if any.
        questions: what it takes, one question for every group.
        blocked: trials that cannot start, since the weights that they start from will not come, by id, with the reason.
        wants: trainings of earlier stages that have to be run again for their weights, with the reason.
        products: what it is made of: its own axes and those that were added, each with the questions that it asks.
    """

    stage: ResolvedStage
    combinations: int
    points: tuple[Point, ...]
    equivalent: int
    done: int
    failed: int
    to_run: tuple[Point, ...]
    waits_for: str | None
    questions: tuple[ChoiceQuestion, ...]
    to_ask: tuple[Point, ...] = ()
    dues: Mapping[str, Due] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)
    wants: Mapping[str, str] = field(default_factory=dict)
    products: tuple[tuple[ResolvedStage, tuple[ChoiceQuestion, ...]], ...] = ()

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self.stage.name

    @property
    def copies(self) -> int:
        """Trials that each of `points` stands for."""
        return self.stage.copies

    @property
    def num_points(self) -> int:
        """Number of different trials."""
        return len(self.points) * self.copies

    @property
    def num_to_run(self) -> int:
        """Number of trials left to be trained (or, where nothing is trained, to be run)."""
        return self.num_points - self.equivalent - self.done - self.failed - self.num_to_ask - len(self.blocked)

    @property
    def num_to_ask(self) -> int:
        """Number of trials left of which nothing has to be trained."""
        return len(self.to_ask)

    @property
    def left(self) -> tuple[Point, ...]:
        """All that are left, of `points`."""
        return (*self.to_run, *self.to_ask)


@dataclass(frozen=True)
class Plan:
    """A space expanded.

    Attributes:
        space: as overridden, everything filled in.
        grid_points: product of the full grid's axes, as the notes count.
        grid: its different points.
        arithmetic: the product written out.
        stages: in order.
        maker: makes further points with the models and data looked up already.
        leakage_sets: names of the space's entry sets by number of documents, for plain memories (`leakage_sets`).
        wanted: trainings that are run again since others start from their weights, each with the reason.
    """

    space: ResolvedSpace
    grid_points: int
    grid: tuple[Point, ...]
    arithmetic: str
    stages: tuple[StagePlan, ...]
    maker: PointMaker
    leakage_sets: Mapping[int, tuple[str, ...]]
    wanted: Mapping[str, str] = field(default_factory=dict)

    def spec_to_run(self, point: Point) -> TrialSpec:
        """Return a point's trial as it is run: a plain memory knows the entry sets that it will be compared under."""
        return told_sets(point.spec, self.leakage_sets)

    @property
    def num_to_run(self) -> int:
        """Trials left to be trained in all stages."""
        return sum(stage.num_to_run for stage in self.stages)

    @property
    def num_to_ask(self) -> int:
        """Trials left in all stages that are only asked."""
        return sum(stage.num_to_ask for stage in self.stages)

    @property
    def num_left(self) -> int:
        """Trials left in all stages."""
        return self.num_to_run + self.num_to_ask

    @property
    def trained_again(self) -> dict[str, int]:
        """Why trials that have been trained would be trained again, and how many."""
        why = (stage.dues[p.id].again for stage in self.stages for p in stage.to_run if p.id in stage.dues)
        return dict(Counter(filter(None, why)))

    @property
    def blocked(self) -> dict[str, int]:
        """Why trials cannot start from the weights that they are to start from, and how many."""
        lines = (f"stage {stage.name}: {why}" for stage in self.stages for why in stage.blocked.values())
        return dict(Counter(lines))

    @property
    def shortages(self) -> list[str]:
        """Which sampled stages have fewer trials than are asked for, and why."""
        return [stage.stage.shortage for stage in self.stages if stage.stage.shortage]

    @property
    def questions(self) -> tuple[ChoiceQuestion, ...]:
        """All that is chosen between stages, each question once."""
        asked = (question for stage in self.stages for question in stage.questions)
        return tuple({question.key: question for question in asked}.values())

    @property
    def trials(self) -> set[str]:
        """The ids of all trials, the pretrained models that they are compared with left out."""
        return {point.id for stage in self.stages for point in stage.points if point.trains}

    def stage(self, name: str) -> StagePlan:
        """Return the plan of a stage; KeyError where there is none of this name."""
        return {stage.name: stage for stage in self.stages}[name]
