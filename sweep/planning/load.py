"""Load a search space from its file."""

from __future__ import annotations

import importlib.util
import traceback
from pathlib import Path

from sweep.space import Space, checked
from trainables.errors import ConfigError, SweepError, nearest


def load_space(path: str | Path) -> Space:
    """Run a search-space module and return its `space`, checked.

    Args:
        path: a Python file.

    Raises:
        ConfigError: no such file, a file that does not run (with its line), or no usable `space` in it.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        known = [str(found) for found in sorted(file.parent.glob("*.py")) if not found.stem.startswith("_")]
        what = "a folder, not a file" if file.is_dir() else "no such file"
        raise ConfigError(f"{path}: {what}; give a search space{nearest(str(file), known)}")
    space = getattr(_run(file), "space", None)
    if not isinstance(space, Space):
        raise ConfigError(f"{path}: has no `space` of type sweep.space.Space")
    try:
        return checked(space)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _run(file: Path) -> object:
    spec = importlib.util.spec_from_file_location(f"search_space_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file}: not a Python file; a search space ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(f"{error.filename}:{error.lineno}: {error.msg}") from None
    except SweepError as error:
        raise ConfigError(f"{file}: {error}") from None
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == spec.origin]
        where = f"{file}:{lines[-1]}" if lines else str(file)
        raise ConfigError(f"{where}: {type(error).__name__}: {error}") from None
    return module
