"""A sweep's state as a person sees it: some lines that fit any width, or one line where there is no terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweep.running.state import PackState, SweepState

PACKS_SHOWN = 4
TROUBLE_SHOWN = 3
STEERING_SHOWN = 3
BAR_WIDTH = 20
NAME_WIDTH = 18


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days {hours % 24} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def left(state: SweepState) -> str:
    """Return how long the rest takes, as people round; empty where it cannot be told."""
    if state.left_s is None:
        return ""
    seconds = state.left_s
    unit = 5 if seconds < 60 else 60 if seconds < 3600 else 600
    return f"about {duration(max(unit, round(seconds / unit) * unit))} left"


def outcomes(state: SweepState) -> str:
    """Return what became of trials otherwise than done, with the counts."""
    return ", ".join(f"{count} {name}" for name, count in state.ended.items() if name != "done" and count)


def _going_on(state: SweepState) -> list[str]:
    """Return what is going on, where no pack tells it, and how long the rest takes."""
    if state.paused_by:
        return [f"paused by {state.paused_by}"]
    rest = left(state)
    is_told = state.packs or (rest and state.phase == "running")
    return [told for told in ("" if is_told else state.phase, rest) if told]


def one_line(state: SweepState, note: str = "") -> str:
    """Return the state as one line, for a pipe or a log."""
    total = sum(stage.epochs for stage in state.stages)
    done = sum(stage.epochs_done for stage in state.stages)
    parts = [f"{sum(state.ended.values())}/{state.trials} trials"]
    if total:
        parts.append(f"{100 * done / total:.0f} % of {total:,.0f} trial-epochs")
    if state.running:
        parts.append(f"{state.running} running")
    parts += [duration(state.updated - state.started), *_going_on(state), outcomes(state)]
    if state.best:
        parts.append(f"best {state.best}")
    return "; ".join([", ".join(part for part in parts if part), *([note] if note else [])])


def view(state: SweepState, note: str = "") -> RenderableType:
    """Return the state as some lines: a bar for each stage, what runs, the best so far, what failed."""
    head = Text.assemble((state.name, "bold"), "  ", duration(state.updated - state.started), no_wrap=True)
    head.overflow = "ellipsis"
    for told in _going_on(state):
        head.append(f", {told}")
    return Group(head, _stages(state), _lines(state, note))


def _stages(state: SweepState) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    names = max((len(stage.name) for stage in state.stages), default=0)
    table.add_column(no_wrap=True, width=min(names, NAME_WIDTH), overflow="ellipsis")
    table.add_column(width=BAR_WIDTH)
    table.add_column(justify="right", no_wrap=True, width=5)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for stage in state.stages:
        share = min(1.0, stage.epochs_done / stage.epochs) if stage.epochs else 1.0
        ended = sum(stage.ended.values())
        waits = stage.waits_for and not ended
        note = f"{ended}/{stage.trials}" + (f", waits for {stage.waits_for}" if waits else " trials")
        bar = ProgressBar(total=1.0, completed=share, width=BAR_WIDTH)
        table.add_row(stage.name, bar, f"{100 * share:.0f} %", note)
    return table


def _lines(state: SweepState, note: str) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(no_wrap=True, style="dim", width=len("running"))
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    packs = sorted(state.packs, key=lambda pack: pack.since)
    for number, pack in enumerate(packs[:PACKS_SHOWN]):
        table.add_row("running" if number == 0 else "", _pack(pack, state.updated))
    if len(packs) > PACKS_SHOWN:
        rest = packs[PACKS_SHOWN:]
        places = len({pack.where for pack in packs if pack.where})
        table.add_row("", f"and {len(rest)} more packs, on {places} devices")
    if state.best:
        table.add_row("best", state.best)
    if outcomes(state):
        table.add_row("ended", outcomes(state))
    for number, line in enumerate(state.trouble[:TROUBLE_SHOWN]):
        table.add_row("failed" if number == 0 else "", line)
    for number, line in enumerate(state.steering[-STEERING_SHOWN:]):
        table.add_row("asked" if number == 0 else "", line)
    if note:
        table.add_row("note", note)
    return table


def _pack(pack: PackState, now: float) -> str:
    trials = f"{pack.label} x{pack.trials}"
    if pack.epoch < 0:
        return f"{trials}  starting and loading, {duration(now - pack.since)}"
    loss = "" if pack.loss is None else f"  NLL {pack.loss:.3f}"
    return f"{trials}  epoch {pack.epoch}/{pack.epochs}{loss}  on {pack.where}"
