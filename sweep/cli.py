"""What the doors (`python -m sweep.<door>`) share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

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
