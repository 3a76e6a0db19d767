"""Addresses (URIs) with secrets in them: showing one without, and keeping the secrets out of what travels.

A user name with a password or a key (`postgresql://user:pw@host`, `s3://KEY:SECRET@bucket`), a token, and options that
hold one (`?access_key=…`) are secrets. Everything that is printed, recorded or sent goes through `shown`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, quote, unquote, urlencode

HIDDEN = "…"
KEYS_VARIABLE = "MEMORY_SWEEP_STORAGE_KEYS"
"""Environment variable that holds the keys of this process's storages, so that their addresses need not."""

_TELLING_CHARS = 4
"""Parts of a password shorter than this occur in any text; alone they tell nothing."""
_TOKEN = re.compile(r"[^\s'\"<>`]*")
_NAMES = r"key|secret|token|passw|pwd|signature|credential|auth"
_OPTION = re.compile(rf"([?&;,][\w.%-]*(?:{_NAMES}|sig(?==))[\w.%-]*=)[^&;\s'\"<>`]*", re.IGNORECASE)
_ELSEWHERE = re.compile(
    r"([?&][\w.-]*(?:secret|token|password|access_key|accesskey)[\w.-]*=)[^&\s'\"<>`]*", re.IGNORECASE
)
_SECRET_OPTION = re.compile(rf"(?:{_NAMES})", re.IGNORECASE)


def shown(text: str) -> str:
    """Return a text, in which addresses may stand anywhere, without their passwords, keys and tokens.

    What could be a secret is left out: with a user name and a password, all that stands before the last `@`, since a
    password may have `@`, `/` and `?` in it.
    """
    first, *rest = text.split("://")
    return "://".join([_ELSEWHERE.sub(rf"\1{HIDDEN}", first), *map(_hide, rest)])


def hidden(text: str, address: str) -> str:
    """Return what a library says about an address, without its secrets: it may quote any part of a password.

    A client that takes an address apart at the wrong `@` or `/` says, for instance, that a host `rest-of-password@host`
    is not known.
    """
    _, _, rest = address.partition("://")
    user, place = split_user(rest)
    password = user.partition(":")[2] or user
    values = [password, *(value for name, value in parse_qsl(place.partition("?")[2]) if _SECRET_OPTION.search(name))]
    parts = [part for value in values for part in re.split(r"[:@/?#&=]", value) if len(part) >= _TELLING_CHARS]
    told = text
    for secret in sorted({*filter(None, values), *parts}, key=len, reverse=True):
        for spelling in (secret, unquote(secret), quote(secret, safe="")):
            told = told.replace(spelling, HIDDEN)
    return shown(told)


def _hide(piece: str) -> str:
    """Hide the secrets of what follows `://`, up to the next one."""
    found = _TOKEN.match(piece)
    token = found.group() if found else ""
    user, place = split_user(token)
    clean = _OPTION.sub(rf"\1{HIDDEN}", place)
    return (f"{HIDDEN}@" if user else "") + clean + _ELSEWHERE.sub(rf"\1{HIDDEN}", piece[len(token) :])


def split_user(rest: str) -> tuple[str, str]:
    """Split what follows `://` into `user:password` (or a token; empty if there is none) and the place."""
    first = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, place = rest.rpartition("@")
    return (user, place) if at and (":" in first or "@" in first) else ("", rest)


def without_secrets(address: str) -> tuple[str, dict[str, str]]:
    """Split the address of an object store into itself without secrets, and these as options of the store."""
    scheme, mark, rest = address.partition("://")
    user, place = split_user(rest)
    secrets: dict[str, str] = {}
    if user:
        name, _, password = user.partition(":")
        secrets = {"access_key_id": unquote(name), "secret_access_key": unquote(password)}
    base, asked, options = place.partition("?")
    kept = []
    for name, value in parse_qsl(options, keep_blank_values=True):
        if _SECRET_OPTION.search(name) or "@" in value:
            secrets[name] = value
        else:
            kept.append((name, value))
    return scheme + mark + base + (asked + urlencode(kept, safe=":/") if kept else ""), secrets


def keep_keys(place: str, secrets: dict[str, str]) -> None:
    """Keep the secrets of a store (`s3://BUCKET`) in this process's environment; those it starts have them too."""
    if secrets:
        os.environ[KEYS_VARIABLE] = json.dumps({**_kept(), place: secrets})


def keys_of(place: str) -> dict[str, str]:
    """Return the secrets that are kept of a store."""
    return dict(_kept().get(place, {}))


def secret_environment(names: Sequence[str] = ()) -> dict[str, str]:
    """Return the variables that hold secrets and that workers need: the keys of storages, and those named, if set."""
    return {name: os.environ[name] for name in (KEYS_VARIABLE, *names) if os.environ.get(name)}


def _kept() -> dict[str, dict[str, str]]:
    return dict(json.loads(os.environ.get(KEYS_VARIABLE) or "{}"))
