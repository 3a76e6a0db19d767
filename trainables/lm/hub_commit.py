"""Which commit a branch of the Hugging Face Hub stands at: what a hub model is, as its name moves.

The one place where a revision becomes a commit: planning, checks, downloads and workers take the commit from here, by
way of the model's card and the trial's `revision`.
"""

from __future__ import annotations

import logging
import re
import threading
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from trainables.data.hub_client import hub_address, is_offline
from trainables.data.online import say

logger = logging.getLogger(__name__)

ANSWER_WITHIN_S = 3.0
"""How long planning waits for the Hub, name resolution included; after that this process asks it no more."""
_silent: set[str] = set()


@lru_cache(maxsize=256)
def hub_commit(source: str, revision: str) -> str:
    """Return the commit that a revision of a hub model means now, or an empty string where that is not known.

    The Hub is asked; where it does not answer, which is said, what was last downloaded counts.

    Args:
        source: hub id.
        revision: branch, tag or commit.
    """
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    return _asked(source, revision) or _downloaded(source, revision)


def _asked(source: str, revision: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    address = hub_address()
    if is_offline() or address in _silent:
        return ""
    found: list[str] = []

    def ask() -> None:
        try:
            info = HfApi().model_info(source, revision=revision, timeout=ANSWER_WITHIN_S, expand=["sha"])
            found.append(info.sha or "")
        except HfHubHTTPError:
            found.append("")  # gated, renamed, gone or busy: the check before a sweep starts says which
        except Exception as error:  # whatever the HTTP client raises where there is no network
            logger.info("%s: %s", address, error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN_S)
    if found:
        return found[0]
    _silent.add(address)
    say(f"note: no answer from {urlsplit(address).netloc}: models of the Hub are planned as they were last downloaded")
    return ""


def _downloaded(source: str, revision: str) -> str:
    from huggingface_hub import constants

    reference = Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}" / "refs" / revision
    try:
        return reference.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
