"""Which commit a branch of the Hugging Face hub stands at: what a hub model is, as its name moves."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

TIMEOUT_S = 3.0
"""How long the hub is waited for. Once it has not answered, this process asks it no more."""


@lru_cache(maxsize=256)
def hub_commit(source: str, revision: str) -> str:
    """Return the commit that a revision of a hub model means now, or an empty string where that is not known.

    The hub is asked; where it cannot be reached, what was last downloaded counts.

    Args:
        source: hub id.
        revision: branch, tag or commit.
    """
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    return _asked(source, revision) or _downloaded(source, revision)


class _Hub:
    reachable = True


def _asked(source: str, revision: str) -> str:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE or not _Hub.reachable:
        return ""
    try:
        return HfApi().model_info(source, revision=revision, timeout=TIMEOUT_S, expand=["sha"]).sha or ""
    except HfHubHTTPError:
        return ""  # gated, renamed or gone: the download says which
    except Exception:  # whatever the HTTP client raises where there is no network
        _Hub.reachable = False
        return ""


def _downloaded(source: str, revision: str) -> str:
    from huggingface_hub import constants

    reference = Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}" / "refs" / revision
    try:
        return reference.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
