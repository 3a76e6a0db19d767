"""Load a search space from its file, or by its name, in the form that is asked for.

A space file behaves as under `python FILE`: it may import modules that lie beside it, whatever the working folder, may
print, and may define dataclasses and classes that are pickled.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from sweep.planning.overrides import apply_overrides, select_by_metric, small_form
from sweep.space import Space, checked
from trainables.errors import ConfigError, SweepError, nearest
from trainables.node.cache_dir import user_path
from trainables.trial.asking import check_probes

SHIPPED = "search_spaces"
"""Package whose spaces can be named without a path."""
_MARK = "__beside_a_search_space__"


def asked_space(
    space: Space | str | Path,
    *,
    settings: Sequence[str] = (),
    small: bool = False,
    select_by: str | None = None,
    data: str | Sequence[str] | None = None,
    seed: int | None = None,
    probes: Sequence[str] = (),
    baseline: bool = True,
) -> Space:
    """Return a space as the user asks for it: loaded, small or not, with other values.

    Args:
        space: a `Space`, the path of its file, or the name of a shipped one.
        settings: as after `--set`: `"FIELD=V[,V...]"`.
        small: its small form, on the sample world.
        select_by: metric that decides between stages.
        data: folders, `sample` or `hub`.
        seed: of all trials.
        probes: what all trials are asked besides, as after `--probe`.
        baseline: with the pretrained models to compare with.

    Raises:
        ConfigError: a file that cannot be used, or a setting that cannot be made.
    """
    found = checked(space) if isinstance(space, Space) else load_space(space)
    if small:
        found = small_form(found)
    sources = data if data is None or isinstance(data, str) else ",".join(data)
    found = apply_overrides(found, settings, data=sources or None, seed=seed)
    found = replace(
        found, probes=check_probes((*found.probes, *probes)), baseline=baseline and found.baseline is not False
    )
    return select_by_metric(found, select_by) if select_by else found


def load_space(path: str | Path) -> Space:
    """Run a search-space module and return its `space`, checked.

    Args:
        path: a Python file, or the bare name of a shipped space.

    Raises:
        ConfigError: no such file, a file that does not run (with its line), or no usable `space` in it.
    """
    file = _file(path)
    space = getattr(_run(file), "space", None)
    if not isinstance(space, Space):
        raise ConfigError(f"{path}: has no `space` of type sweep.space.Space")
    try:
        return checked(space)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def shipped_spaces() -> dict[str, Path]:
    """Return the files of the spaces that ship with the package, by name."""
    found = importlib.util.find_spec(SHIPPED)
    folders = list(found.submodule_search_locations or ()) if found else []
    files = (file for folder in folders for file in sorted(Path(folder).glob("*.py")))
    return {file.stem: file for file in files if not file.stem.startswith("_")}


def _file(path: str | Path) -> Path:
    file = user_path(path)
    if file.is_file():
        return file
    is_name = file.name == str(path) and not file.suffix
    shipped = shipped_spaces() if is_name else {}
    if str(path) in shipped:
        return shipped[str(path)]
    if file.is_dir():
        raise ConfigError(f"{path}: a folder, not a file; give a search space")
    known = [str(found) for found in sorted(file.parent.glob("*.py")) if not found.stem.startswith("_")]
    what = f"no such file, and none of the shipped spaces {', '.join(shipped)}" if shipped else "no such file"
    raise ConfigError(f"{path}: {what}; give a search space{nearest(str(file), [*known, *shipped])}")


def _run(file: Path) -> ModuleType:
    # Two files of one name are two modules; each stays known by its own, for what is pickled looks it up there.
    place = hashlib.blake2b(str(file.resolve()).encode(), digest_size=4).hexdigest()
    spec = importlib.util.spec_from_file_location(f"search_space_{file.stem}_{place}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file}: not a Python file; a search space ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    try:
        with _first_on_the_path(file.resolve().parent), _output_to_stderr():
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[module.__name__]
        if isinstance(error, (Exception, SystemExit)):
            raise ConfigError(_told(error, file, spec.origin)) from None
        raise
    return module


def _told(error: BaseException, file: Path, origin: str | None) -> str:
    """Return what is wrong with a space file, in one line."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    if isinstance(error, SweepError):
        return f"{file}: {error}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == origin]
    where = f"{file}:{lines[-1]}" if lines else str(file)
    return " ".join(f"{where}: {type(error).__name__}: {error}".split())


@contextmanager
def _first_on_the_path(folder: Path) -> Iterator[None]:
    """Let modules beside a space file be imported while it runs, as `python FILE` does.

    Such modules carry a mark; those of an earlier space file are forgotten where this folder has one of their name, so
    that each file gets what lies beside it.
    """
    beside = {entry.name.removesuffix(".py") for entry in folder.iterdir()}
    marked = [name for name, module in sys.modules.items() if name.split(".")[0] in beside and hasattr(module, _MARK)]
    for name in marked:
        del sys.modules[name]
    before = set(sys.modules)
    is_ours = not any(Path(entry or os.curdir).resolve() == folder for entry in sys.path)
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        for name in set(sys.modules) - before if is_ours else ():
            module = sys.modules[name]
            origins = [*getattr(module, "__path__", ()), getattr(module, "__file__", None) or ""]
            if name.split(".")[0] in beside and any(folder in Path(origin).parents for origin in origins):
                setattr(module, _MARK, True)


@contextmanager
def _output_to_stderr() -> Iterator[None]:
    """Keep what a space file prints, itself or by a process it starts, out of the output: that may be JSON."""
    with ExitStack() as stack:
        with suppress(OSError):  # where there is no such stream, there is nothing to keep clean
            sys.stdout.flush()
            kept = os.dup(1)
            stack.callback(os.close, kept)
            os.dup2(2, 1)
            stack.callback(os.dup2, kept, 1)
        stack.enter_context(redirect_stdout(sys.stderr))
        if sys.__stdout__ is not None:
            stack.callback(sys.__stdout__.flush)
        yield
