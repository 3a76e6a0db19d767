"""Finished trials asked something else: their stored weights are loaded, packed and asked; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sweep.cli.heartbeat import Heartbeat
from sweep.planning.costs import estimate
from sweep.planning.due import Records
from sweep.planning.expand import baseline_stage
from sweep.planning.inputs import kept_commits
from sweep.planning.plan import Plan, StagePlan
from sweep.planning.points import Point, PointMaker
from sweep.planning.show import CostedPlan
from sweep.planning.stages import ResolvedSpace, ResolvedStage
from sweep.records.manifest import sweep_heads
from sweep.records.record_files import leave_damaged_out
from sweep.records.steering import Steering
from sweep.records.sweep_storage import RecordIndex, SweepStorage, split_location
from sweep.running.interrupts import Interrupts, handled_signals
from sweep.running.results import Results
from sweep.running.run_options import RunOptions
from sweep.running.sweep import SweepRun
from sweep.tracking.address import Tracking, resolve_tracking
from trainables.errors import ConfigError
from trainables.trial.asking import check_probes

STAGE = "evaluate"


@dataclass(frozen=True)
class AskRequest:
    """What is asked of the finished trials of a sweep.

    Attributes:
        probes: checked, as after `--probe`.
        baseline: whether the pretrained models are asked too, where the sweep has not got them.
        retry_failed: whether what failed to be asked is asked again.
    """

    probes: tuple[str, ...]
    baseline: bool = True
    retry_failed: bool = False


def ask_trials(
    location: str | Path,
    probes: Sequence[str],
    *,
    executor: Literal["ray", "local"] = "ray",
    baseline: bool = True,
    retry_failed: bool = False,
    device: str = "auto",
    pack_size: int | None = None,
    address: str | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    progress: bool = False,
    report: bool = False,
) -> list[Results]:
    """Ask the finished trials of a sweep, or of all sweeps of a storage, and return what is there then.

    Args:
        location: `STORAGE/NAME`, or `STORAGE` for all of its sweeps.
        probes: what is asked: `"fever:num_shots=5"`.
        executor: `ray`, or `local`: packs one after the other in this process.
        baseline: with the pretrained models to compare with.
        retry_failed: what failed to be asked is asked again.
        device: auto, cpu or cuda.
        pack_size: trials in a pack at most; None to choose.
        address: of the Ray cluster; None for RAY_ADDRESS or a Ray of its own.
        tracking_uri: MLflow's address; None for MLFLOW_TRACKING_URI, else a SQLite file in the storage.
        experiment: MLflow experiment.
        progress: print what the command would print on the way.
        report: write each sweep's report at the end; its sentences are in the results.

    Raises:
        ConfigError: no sweep there, a probe that there is not, or a mistake found before anything was started.
        DataError: data or a model file that is missing or broken.
    """
    options = RunOptions(
        executor=executor,
        retry_failed=retry_failed,
        device=device,
        pack_size=pack_size,
        address=address,
        tracking_uri=tracking_uri,
        experiment=experiment,
        report=report,
    )
    asked = AskRequest(check_probes(probes), baseline, retry_failed)
    storage, names = sweeps_at(location)
    return [evaluate_sweep(storage, name, asked, options, progress) for name in names]


def sweeps_at(location: str | Path) -> tuple[SweepStorage, list[str]]:
    """Return the storage at a place, and the sweep, or all of its sweeps, that it names.

    Raises:
        ConfigError: there is none.
    """
    storage, name = split_location(str(location))
    return storage, [name] if name else storage.sweeps()


def evaluate_sweep(storage: SweepStorage, name: str, asked: AskRequest, options: RunOptions, progress: bool) -> Results:
    """Ask the finished trials of one sweep; this process alone may work on it meanwhile.

    Raises:
        ConfigError: a mistake found before anything was started.
        DataError: data or a model file that is missing or broken.
    """
    tracking = resolve_tracking(storage, options.tracking_uri, options.experiment)  # refuses an address that is none
    storage.check_answers()
    with handled_signals() as interrupts, storage.lock(name, without=not options.lock):
        with Heartbeat(progress) as beat:
            return _Evaluation(asked, storage, name, options, tracking, beat, interrupts).run()


def evaluation_plan(storage: SweepStorage, name: str, asked: AskRequest) -> CostedPlan:
    """Say what would be asked and cost; starts nothing and writes nothing.

    Raises:
        ConfigError: as `ask_trials`.
        DataError: as `ask_trials`.
    """
    storage.check_answers()
    index = storage.index(set_aside=False)
    warnings = [*index.warnings, *leave_damaged_out(storage, index, sweep_heads(storage, name, index))]
    plan, notes = recorded_plan(storage, name, index, asked)
    return CostedPlan(name, plan, estimate(plan), {}, notes=notes, warnings=tuple(warnings))


def recorded_plan(storage: SweepStorage, name: str, index: RecordIndex, asked: AskRequest) -> tuple[Plan, list[str]]:
    """Plan what the finished trials of a sweep lack of what is asked.

    Returns:
        The plan, in which nothing is trained, and lines on the trials that cannot be asked.

    Raises:
        ConfigError: a trial's model or data are not there any more.
        DataError: likewise.
    """
    maker = PointMaker(kept_commits(storage, name), {STAGE: asked.probes})
    records = Records(index, storage, asked.retry_failed)
    heads = [head for head in sweep_heads(storage, name, index) if head.status == "done"]
    points = [replace(maker.recorded(head.record()), added=asked.probes) for head in heads]
    points.sort(key=lambda point: point.trains)  # pretrained ones first: what is asked by then can be compared
    seen = {point.id for point in points}
    plain = baseline_stage(points, maker, seen, ()) if asked.baseline else ResolvedStage("", {}, {}, given=())
    found = [_stage(ResolvedStage(STAGE, {}, {}, probes=asked.probes, given=tuple(points)), records)]
    found += [_stage(plain, records)] if plain.given else []
    stages, again = zip(*found, strict=True)
    space = ResolvedSpace(name, f"asking {', '.join(asked.probes)}", ResolvedStage("", {}, {}), ())
    plan = Plan(space, len(points), tuple(points), f"{len(points):,} finished trials", stages, maker, {})
    told = {why: sum(why == each for _, each in _flat(again)) for _, why in _flat(again)}
    notes = [f"{count:,} trials cannot be asked, they would have to be trained again: {w}" for w, count in told.items()]
    return plan, notes


def _flat(lists: Iterable[list[tuple[Point, str]]]) -> list[tuple[Point, str]]:
    return [entry for part in lists for entry in part]


def _stage(stage: ResolvedStage, records: Records) -> tuple[StagePlan, list[tuple[Point, str]]]:
    """Plan a stage of given trials; those that would be trained again are left out, with the reason."""
    points, dues = stage.given or (), {}
    again = []
    for point in points:
        due = records.due(point)
        if due is not None and due.again:
            again.append((point, due.again))
        elif due is not None:
            dues[point.id] = due
    out = {point.id for point, _ in again}
    kept = tuple(point for point in points if point.id not in out)
    failed = sum(records.has_failed(point) for point in kept if point.id not in dues)
    return (
        StagePlan(
            stage=replace(stage, given=kept),
            combinations=len(kept),
            points=kept,
            equivalent=0,
            done=len(kept) - len(dues) - failed,
            failed=failed,
            to_run=tuple(point for point in kept if point.id in dues and dues[point.id].trains),
            waits_for=None,
            questions=(),
            to_ask=tuple(point for point in kept if point.id in dues and not dues[point.id].trains),
            dues=dues,
        ),
        again,
    )


class _Evaluation(SweepRun):
    """One asking of one sweep's finished trials. The sweep's plan stays as it is, new pretrained models added."""

    amends = True

    def __init__(
        self,
        asked: AskRequest,
        storage: SweepStorage,
        name: str,
        options: RunOptions,
        tracking: Tracking,
        beat: Heartbeat,
        interrupts: Interrupts,
    ) -> None:
        self._asked = asked
        super().__init__(None, storage, name, options, tracking, beat, interrupts)

    def _planned(self, steering: Steering | None = None) -> Plan:
        plan, notes = recorded_plan(self._storage, self._name, self._index, self._asked)
        if not plan.grid:
            raise ConfigError(f"{self._storage.full(self._name)}: no finished trial to ask; run the sweep first")
        self.voice.say_notes(notes)
        return plan
