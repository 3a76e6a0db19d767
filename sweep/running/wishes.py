"""What people ask of a sweep while it runs (`memory-sweep ctl`), heard and done by its driver."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from sweep.planning.plan import Plan
from sweep.records.lease import LockLost
from sweep.records.record import timestamp
from sweep.records.steering import (
    ADD,
    CLONE,
    FINISH_EARLY,
    PAUSE,
    RESUME,
    STOP,
    Steering,
    Wish,
    remove_wish,
    waiting_wishes,
    write_steering,
)
from sweep.running.ledger import Ledger
from trainables.errors import ConfigError, DataError

HEAR_EVERY_S = 1.0
"""Seconds between two looks for wishes in a folder: nothing next to an epoch (ours)."""
HEAR_EVERY_REMOTE_S = 5.0
"""The same in an object store, where each look is a request that costs: a fortieth of a cent an hour (ours)."""
WITHOUT_PLAN = (PAUSE, RESUME, FINISH_EARLY)
"""What an asking of finished trials hears too; the rest waits for the next run of the sweep."""


class Wishes:
    """Hears wishes and has the ledger do them.

    Args:
        ledger: of the sweep; it starts with what was asked before.
        say: prints a line for the user.
        more_points: plans the sweep with the steering given and checks what is new; it raises ConfigError or DataError
            where that cannot be. None where the run has no plan that points could be added to.
    """

    def __init__(
        self,
        ledger: Ledger,
        say: Callable[[str], None],
        more_points: Callable[[Steering], Plan] | None,
    ) -> None:
        """Keep the parts, and say what holds from before."""
        self._ledger, self._say, self._more_points = ledger, say, more_points
        self._every_s = HEAR_EVERY_S if ledger.storage.is_local else HEAR_EVERY_REMOTE_S
        self._heard = 0.0
        self._trouble = ""
        self._say_what_holds()

    def _say_what_holds(self) -> None:
        steering, name = self._ledger.steering, self._ledger.name
        go_on = f"memory-sweep ctl {self._ledger.storage.full(name)} resume"
        if steering.paused:
            self._say(f"paused by {steering.paused.by}, {steering.paused.at[:16]}; to go on, in another shell: {go_on}")
        if steering.finishing:
            self._say(f"finishing early, as {steering.finishing.by} asked before the last run was cut off")

    def hear(self, at_once: bool = False) -> bool:
        """Look for wishes if it is time to, and do them; say whether there was one.

        Args:
            at_once: look now.
        """
        now = time.monotonic()
        if not at_once and now - self._heard < self._every_s:
            return False
        self._heard = now
        ledger = self._ledger
        try:
            found = waiting_wishes(ledger.storage, ledger.name)
        except OSError as error:  # what matters is read elsewhere, and fails there if the storage does
            self._trouble = self._trouble or self._told(f"note: what is asked of this sweep cannot be read: {error}")
            return False
        self._trouble = ""
        taken = {wish.id for wish in ledger.steering.wishes}
        done = False
        for wish in found:
            if wish.id not in taken:
                if self._more_points is None and wish.command not in WITHOUT_PLAN:
                    continue
                self._take_in(wish)
                done = True
            remove_wish(ledger.storage, ledger.name, wish)
        return done

    def end(self) -> None:
        """Write down that a run that was to finish early has ended."""
        wish = self._ledger.steering.finishing
        if wish is not None:
            self._ledger.steering = self._ledger.steering.having(replace(wish, over=True))
            write_steering(self._ledger.storage, self._ledger.name, self._ledger.steering)

    def _take_in(self, wish: Wish) -> None:
        """Do a wish and write down what came of it; done twice, after a crash in between, it comes to the same."""
        wish = replace(wish, taken_at=timestamp())
        if not wish.refused:
            try:
                wish = self._done(wish)
            except ConfigError as error:
                if isinstance(error, OSError):  # the storage
                    raise
                wish = replace(wish, refused=True, outcome=" ".join(str(error).split()))
        steering = self._ledger.steering.having(wish)
        write_steering(self._ledger.storage, self._ledger.name, steering)
        self._ledger.steer(steering)
        if wish.command == RESUME and wish.trial and not wish.refused:
            self._ledger.backlog.take_up(wish.trial)
        self._say(f"{wish.by} asked: {wish.asked}: {'refused, ' * wish.refused}{wish.outcome}")

    def _done(self, wish: Wish) -> Wish:
        ledger, trial = self._ledger, wish.trial
        packs = f"{ledger.running_trials} trials under way"
        if wish.command == PAUSE:
            return replace(wish, outcome=f"{packs} keep a checkpoint after their epoch, nothing starts until resume")
        if wish.command == FINISH_EARLY:
            under_way = () if ledger.steering.paused else ledger.under_way
            told = f"{packs} are finished, no other starts; the same command later goes on"
            return replace(wish, under_way=under_way, outcome=told)
        if wish.command == RESUME and not trial:
            return replace(wish, outcome="goes on")
        if wish.command in (STOP, RESUME):
            return self._of_a_trial(wish)
        return self._added(wish)

    def _of_a_trial(self, wish: Wish) -> Wish:
        ledger, trial = self._ledger, wish.trial
        state = ledger.state_of(trial)
        if wish.command == RESUME:
            if state == "stopped":
                return replace(wish, outcome="goes on from its checkpoint where one was kept, else anew")
            if state in ("", "waiting") and trial in ledger.steering.stopped:
                return replace(wish, outcome="is no longer stopped")
            raise ConfigError(f"it is not stopped ({state or 'unknown here'})")
        if state in ("done", "diverged", "failed"):
            raise ConfigError(f"it has a result already ({state})")
        if ledger.is_asked_only(trial):
            raise ConfigError("nothing is trained for it, and asking ends by itself")
        told = {
            "running": "ends after its epoch; its curves so far are kept, and a checkpoint",
            "waiting": "will not begin",
            "stopped": "had been stopped",
        }
        return replace(wish, outcome=told.get(state, "will not begin, should this sweep come to it"))

    def _added(self, wish: Wish) -> Wish:
        """Plan a wish's points and have the ledger go on with them."""
        assert self._more_points is not None and wish.command in (ADD, CLONE)
        before = self._ledger.plan.trials
        try:
            plan = self._more_points(self._ledger.steering.having(wish))
        except LockLost:
            raise
        except Exception as error:  # whatever is wrong with what somebody asks must not end the sweep
            is_told = isinstance(error, (ConfigError, DataError))
            raise ConfigError(str(error) if is_told else f"{type(error).__name__}: {error}") from error
        new = plan.trials - before
        if not new:
            raise ConfigError("all its points are in the sweep already")
        wish = replace(wish, outcome=f"{len(new)} trials more")
        self._ledger.adopt(plan)
        return wish

    def _told(self, line: str) -> str:
        self._say(line)
        return line
