"""The Hugging Face Hub, asked politely: one line of error instead of five warnings, patience within limits.

`huggingface_hub` retries on its own, as long as a server asks for. Here a hook on its client turns busy answers into
`Busy`, which `try_online` counts and says; and one quick question decides beforehand whether there is a network at all.
"""

from __future__ import annotations

import logging as standard_logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from trainables.data.online import BUSY_STATUSES, Unreachable, busy_answer, reason_of, require_online, try_online
from trainables.errors import ConfigError

T = TypeVar("T")
_FOLDER = "name a local folder"


class NoSuchRevision(ConfigError):
    """A repository has no such branch, tag or commit."""


class GatedRepository(ConfigError):
    """A repository does not open before a licence is accepted."""


@dataclass(frozen=True)
class RepoFile:
    """A file of a repository.

    Attributes:
        path: in the repository.
        size: bytes.
        content_id: names its content: a SHA-256 for large files, git's id for small ones.
    """

    path: str
    size: int
    content_id: str


def hub_address() -> str:
    """Return the Hub's address: `HF_ENDPOINT`, else huggingface.co."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def is_offline() -> bool:
    """Say whether the libraries have been told to stay offline (`HF_HUB_OFFLINE`)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def ask_hub(what: str, repo: str, question: Callable[[], T]) -> T:
    """Put a question to the Hub.

    Args:
        what: wants it, as messages begin (`model='pythia-70m'`).
        repo: asked about.
        question: calls `huggingface_hub`.

    Raises:
        Unreachable: no network.
        NoSuchRevision: the repository has no such branch, tag or commit.
        GatedRepository: its licence has not been accepted.
        ConfigError: no such repository, no access, or the Hub stays busy.
    """
    if is_offline():
        raise Unreachable(f"{what}: {repo} is not in the cache, and HF_HUB_OFFLINE is set; unset it, or {_FOLDER}")
    _reach(hub_address(), what)
    with _one_line(what, repo), _listening():
        return try_online(f"{what}: {repo}", question)


@cache
def _reach(address: str, what: str) -> None:
    """Find out once per process; a failure is not remembered."""
    require_online(address, what, f"connect this machine, or {_FOLDER}")


def commit_of(what: str, repo: str, revision: str, repo_type: str) -> str:
    """Return the commit that a branch, tag or commit of a repository names at present.

    Raises:
        ConfigError: as `ask_hub`.
    """
    from huggingface_hub import HfApi

    info: Any = ask_hub(what, repo, lambda: HfApi().repo_info(repo, repo_type=repo_type, revision=revision))
    return str(info.sha)


def files_of(what: str, repo: str, commit: str, repo_type: str) -> list[RepoFile]:
    """Return all files of a repository at a commit.

    Raises:
        ConfigError: as `ask_hub`.
    """
    from huggingface_hub import HfApi

    def list_them() -> list[RepoFile]:
        entries: Any = HfApi().list_repo_tree(repo, recursive=True, revision=commit, repo_type=repo_type)
        return [
            RepoFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
            for entry in entries
            if hasattr(entry, "blob_id")
        ]

    return ask_hub(what, repo, list_them)


@contextmanager
def _listening() -> Iterator[None]:
    """Let busy answers end the library's call for the time of a `with` block, and keep the library quiet."""
    import huggingface_hub
    from huggingface_hub.utils import logging

    def hear(response: Any) -> None:
        if response.status_code in BUSY_STATUSES:
            raise busy_answer(response.status_code, response.headers.get("Retry-After"))

    verbosity = logging.get_verbosity()
    logging.set_verbosity(standard_logging.ERROR)
    hooks = huggingface_hub.get_session().event_hooks
    huggingface_hub.get_session().event_hooks = {**hooks, "response": [*hooks.get("response", []), hear]}
    try:
        yield
    finally:
        huggingface_hub.get_session().event_hooks = hooks
        logging.set_verbosity(verbosity)


@contextmanager
def _one_line(what: str, repo: str) -> Iterator[None]:
    """Turn what `huggingface_hub` raises into one line that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise GatedRepository(f"{what}: {gated_message(repo)}") from None
    except errors.RepositoryNotFoundError:
        raise ConfigError(
            f"{what}: the Hub has no repository {repo}, or not for this account; check the name, and log in with "
            "`hf auth login` if it is private"
        ) from None
    except errors.RevisionNotFoundError:
        raise NoSuchRevision(f"{what}: {repo} has no such revision; see {hub_address()}/{repo}") from None
    except (errors.EntryNotFoundError, errors.HfHubHTTPError, OSError) as error:
        raise ConfigError(
            f"{what}: {repo} could not be downloaded from the Hub ({reason_of(error)}); try again, or {_FOLDER}"
        ) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2"):
            raise
        raise ConfigError(
            f"{what}: {repo} could not be downloaded from the Hub ({reason_of(error)}); try again, or {_FOLDER}"
        ) from None


def gated_message(repo: str) -> str:
    """Say what opens a gated repository."""
    token = "" if has_token() else " (this machine has no token)"
    return (
        f"{repo} is gated and does not open for this machine{token}; accept its licence at {hub_address()}/{repo} and "
        "run `hf auth login`, or name an open copy: --set model=OWNER/NAME"
    )


def has_token() -> bool:
    """Say whether this machine has a token for the Hub."""
    from huggingface_hub import get_token

    return bool(os.environ.get("HF_TOKEN") or get_token())
