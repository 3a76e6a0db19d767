"""The two sample language models: where they are; they are trained at first use. Imports no torch before that."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from trainables.data.sample.facts import SAMPLE_VERSION
from trainables.errors import ConfigError, nearest
from trainables.lm.sample.configs import SAMPLE_MODELS
from trainables.node.cache_dir import cache_dir


def ensure_sample_models(names: Sequence[str]) -> dict[str, Path]:
    """Return the folders of several sample models; those that are missing are trained side by side."""
    missing = [name for name in names if not (cache_dir() / f"{name}-v{SAMPLE_VERSION}").is_dir()]
    if len(missing) > 1:
        with multiprocessing.get_context("spawn").Pool(len(missing)) as pool:
            # one progress bar for all: they take about as long as each other
            made = [pool.apply_async(ensure_sample_model, (name, name == missing[0])) for name in missing]
            for result in made:
                result.get()
    return {name: ensure_sample_model(name) for name in names}


def ensure_sample_model(name: str, progress: bool = True) -> Path:
    """Return the folder of a sample model, training it into the cache at first use (about a minute).

    Safe to call from several processes: one trains (under a file lock, then by rename), the others wait.

    Args:
        name: `sample-llama` or `sample-neox`.
        progress: show a progress bar on stderr.

    Raises:
        ConfigError: another name.
    """
    from filelock import FileLock

    if name not in SAMPLE_MODELS:
        hint = nearest(name, SAMPLE_MODELS)
        raise ConfigError(f"model={name!r}: no such sample model{hint}; there are {', '.join(SAMPLE_MODELS)}")
    folder = cache_dir() / f"{name}-v{SAMPLE_VERSION}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            for abandoned in folder.parent.glob(f"{folder.name}.*.part"):
                shutil.rmtree(abandoned, ignore_errors=True)
            print(
                f"{name}: training a tiny model on a generated world, once; only for trying and testing",
                file=sys.stderr,
            )
            from trainables.lm.sample.train import make_sample_model

            half = folder.with_name(f"{folder.name}.{os.getpid()}.part")
            make_sample_model(name, half, progress=progress)
            half.rename(folder)
    return folder
