"""The one form in which page names are written and compared: FEVER's own spelling.

    Alan Bates (actor), Alan%20Bates_(actor), Alan_Bates_-LRB-actor-RRB-   ->   Alan_Bates_-LRB-actor-RRB-

Dumps of Wikipedia spell the same name in several ways. Whatever has its name from FEVER itself keeps it unchanged.
"""

from __future__ import annotations

import html
import re
import unicodedata
from urllib.parse import unquote_to_bytes

_SIGNS = str.maketrans(
    {"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-", ":": "-COLON-"}
)
_ADDRESS = re.compile(r"https?://[\w-]+(?:\.m)?\.wikipedia\.org/wiki/")
_ENTITY = re.compile(r"&(?:#\d{1,6}|#[xX][0-9a-fA-F]{1,6}|amp|quot|apos|lt|gt|nbsp|ndash|mdash);")
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2})+")
_GAPS = re.compile(r"[\s_]+")
_ODD = re.compile(r"[^!-~]|[&%()\[\]{}:]|__|\A[_a-z]|_\Z")
"""What a name in FEVER's spelling has none of, accents aside."""


def normal_title(title: str) -> str:
    """Return a page name in FEVER's spelling: NFC, `_` for spaces, `-LRB-` for brackets, `-COLON-` for colons.

    Percent-encoding, HTML entities and the address of Wikipedia before a name are undone, and the first letter is a
    capital one, as Wikipedia has it.
    """
    if not _ODD.search(title):
        return title
    title = _ADDRESS.sub("", title, count=1) if title.startswith("http") else title
    title = _PERCENT.sub(_decoded, _ENTITY.sub(lambda found: html.unescape(found[0]), title))
    title = _GAPS.sub("_", unicodedata.normalize("NFC", title)).strip("_").translate(_SIGNS)
    first = title[:1].upper()
    return first + title[1:] if len(first) == 1 else title


def _decoded(found: re.Match[str]) -> str:
    """Undo percent-encoding where it is one: a name may hold a plain `%`."""
    try:
        return unquote_to_bytes(found[0]).decode()
    except UnicodeDecodeError:
        return found[0]
