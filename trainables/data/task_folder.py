"""A folder of lm-evaluation-harness's task files (YAML), known by its content."""

from __future__ import annotations

from pathlib import Path

from trainables.data.fingerprint import fingerprint_files
from trainables.errors import DataError
from trainables.node.cache_dir import user_path


def task_folder(path: str) -> Path:
    """Return the folder.

    Raises:
        DataError: it is none, or holds no task file.
    """
    folder = user_path(path)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder (lm_eval_folder={path!r}); name a folder of YAML task files")
    if not any(folder.rglob("*.yaml")):
        raise DataError(f"{folder}: holds no *.yaml (lm_eval_folder={path!r}); name a folder of YAML task files")
    return folder


def task_folder_key(path: str) -> str:
    """Return what names a folder by the content of all its files: part of a trial's identity.

    Raises:
        DataError: it is none, or cannot be read.
    """
    files = (file for file in task_folder(path).rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return f"tasks@{fingerprint_files(files)[:16]}"
