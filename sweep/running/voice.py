"""What a run tells people: lines while it goes on, notes for its results, and the command that they gave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sweep.cli.heartbeat import Heartbeat
from sweep.running.display import Display
from sweep.running.notify import CHOICE, END, FAILURE, Notifier
from trainables.node.addresses import shown


class Voice:
    """Tells what a person should know of one run.

    Args:
        name: of the sweep.
        beat: prints lines before and after the trials run.
        command: of the user's, run for the end, a new kind of failure and a choice; empty for none.
        folder: full path of the sweep's folder, which the command is told.

    Attributes:
        display: prints them meanwhile; None before and after.
        notes: all lines told so far.
    """

    def __init__(self, name: str, beat: Heartbeat, command: str, folder: str) -> None:
        """Begin without having said anything."""
        self.display: Display | None = None
        self.notes: list[str] = []
        self._name, self._beat = name, beat
        self._notifier = Notifier(command, name, folder, self.say)

    def say(self, line: str) -> None:
        """Print a line."""
        line = shown(line)
        self.notes.append(line)
        if self.display:
            self.display.say(line)
        else:
            self._beat.say(line)

    def say_all(self, lines: Iterable[str]) -> None:
        """Print lines."""
        for line in lines:
            self.say(line)

    def say_notes(self, notes: Iterable[str]) -> None:
        """Print lines that are told apart as notes."""
        for note in notes:
            self.say(f"note: {note}")

    def tell_choice(self, line: str) -> None:
        """Run the user's command for a choice that was made."""
        self._notifier.tell(CHOICE, f"{self._name}: {line}")

    def tell_failure(self, line: str) -> None:
        """Run the user's command for a new kind of failure."""
        self._notifier.tell(FAILURE, f"{self._name}: {line}")

    def tell_end(self, line: str, status: str) -> None:
        """Run the user's command for the end of the run."""
        self._notifier.tell(END, f"{self._name}: {line}", status=status)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Have the user's command run when the block ends with an error, and end with it however it does."""
        try:
            yield
        except BaseException as error:
            kind = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
            self.tell_end(shown(kind), "error")
            raise
        finally:
            self._notifier.close()
