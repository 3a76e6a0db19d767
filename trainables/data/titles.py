"""The one form in which page names are compared."""

from __future__ import annotations

import unicodedata


def normal_title(title: str) -> str:
    """Return a page name in the one Unicode form (NFC) in which names are compared."""
    return unicodedata.normalize("NFC", title)
