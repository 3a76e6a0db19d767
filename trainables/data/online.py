"""What every download shares: is there a network, how long is a busy server waited for, how a failure is told."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

import requests
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from trainables.errors import ConfigError

T = TypeVar("T")

RETRY_FOR_S = 120.0
"""A busy server or a broken connection is waited for so long in all, per download."""
LONGEST_PAUSE_S = 30.0
NO_NETWORK_AFTER_S = 8.0
"""Name resolution included, which no timeout of a library covers."""
BUSY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class Unreachable(ConfigError):
    """A server cannot be reached at all: there may be no network. In a trial, that is no fault of the trial."""

    kind = "io"


class Busy(Exception):
    """A failure that may pass: a server that asks to wait, or a connection that broke.

    Attributes:
        retry_after_s: what the server asks for; 0 where it does not say.
        progressed: whether the attempt brought the download forward, so that its time was not lost.
    """

    def __init__(self, reason: str, retry_after_s: float = 0.0, progressed: bool = False) -> None:
        """Keep the reason, as it is shown."""
        super().__init__(reason)
        self.retry_after_s, self.progressed = retry_after_s, progressed


def say(line: str) -> None:
    """Print a line for the person who waits."""
    print(line, file=sys.stderr, flush=True)


def busy_answer(status: int, retry_after: str | None) -> Busy:
    """Return the failure that stands for a busy server's answer; dates in Retry-After are left out."""
    seconds = float(retry_after) if retry_after and retry_after.strip().isdigit() else 0.0
    return Busy(f"the server answers {status}", seconds)


def try_online(what: str, attempt: Callable[[], T]) -> T:
    """Call `attempt` until it raises no `Busy`, with growing pauses, and say each time what is waited for.

    Args:
        what: is being downloaded, as messages begin.
        attempt: one try; what it raises besides `Busy` passes through.

    Raises:
        ConfigError: waiting took `RETRY_FOR_S` in all, or would.
    """
    lost_s = 0.0

    def measured() -> T:
        nonlocal lost_s
        start = time.monotonic()
        try:
            return attempt()
        except Busy as error:
            lost_s += 0.0 if error.progressed else time.monotonic() - start
            raise

    def pause(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        grown = min(2.0 ** (state.attempt_number - 1), LONGEST_PAUSE_S) * random.uniform(0.75, 1.0)
        return max(grown, error.retry_after_s) if isinstance(error, Busy) else grown

    def used_up(state: RetryCallState) -> bool:
        return state.idle_for + state.upcoming_sleep + lost_s > RETRY_FOR_S

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        left = RETRY_FOR_S - state.idle_for - lost_s
        say(f"{what}: {error}; trying again in {state.upcoming_sleep:.0f} s (for {left:.0f} s at most)")

    retrying = Retrying(
        retry=retry_if_exception_type(Busy), wait=pause, stop=used_up, before_sleep=tell, sleep=_sleep, reraise=True
    )
    try:
        return retrying(measured)
    except Busy as error:
        asked = f" and asks to wait {error.retry_after_s:.0f} s" if error.retry_after_s > RETRY_FOR_S else ""
        raise ConfigError(
            f"{what}: {error}{asked}; given up after retries of at most {RETRY_FOR_S:.0f} s in all; try again later"
        ) from None


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


def require_online(address: str, what: str, remedy: str) -> None:
    """Find out within `NO_NETWORK_AFTER_S` whether a server can be reached, through the proxy if one is set.

    Any answer counts, also a refusal; so does a server that takes its time once it has accepted the connection.

    Raises:
        Unreachable: it cannot be reached.
    """
    found: list[str] = []

    def ask() -> None:
        try:
            requests.head(address, timeout=(5.0, 2.0), allow_redirects=False)
        except requests.ReadTimeout:
            found.append("")
        except (requests.RequestException, ValueError) as error:
            found.append(reason_of(error))
        else:
            found.append("")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(NO_NETWORK_AFTER_S)
    reason = found[0] if found else f"no answer within {NO_NETWORK_AFTER_S:.0f} s"
    if reason:
        raise Unreachable(f"{what}: {urlsplit(address).netloc} cannot be reached ({reason}); {remedy}")


def reason_of(error: BaseException) -> str:
    """Return what lies at the bottom of a library's error, in one short line."""
    seen = error
    while True:
        inner = getattr(seen, "reason", None) or seen.__cause__ or next(iter(seen.args), None)
        if not isinstance(inner, BaseException) or inner is seen:
            break
        seen = inner
    text = getattr(seen, "strerror", None) or str(seen) or type(seen).__name__
    return " ".join(str(text).rpartition(">: ")[2].split())[:160]
