"""What the doors (`python -m sweep.<door>`) share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainables.data.official import CACHE_VARIABLE
from trainables.errors import ConfigError, DataError

EXIT_USER_ERROR = 2


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn the user's mistakes into one line on stderr and exit status 2; any other error passes through."""
    try:
        yield
    except (ConfigError, DataError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr, flush=True)
        raise SystemExit(EXIT_USER_ERROR) from None


def use_data_cache(folder: str | None) -> None:
    """Keep downloaded data in a folder of the user's choice, here and in every process that this one starts."""
    if folder:
        os.environ[CACHE_VARIABLE] = str(Path(folder).expanduser().resolve())
