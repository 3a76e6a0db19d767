"""A sweep's manifest, `plan.json`: its stages and the ids of their trials, as far as known."""

from __future__ import annotations

from collections.abc import Mapping

from sweep.records.storage_id import MANIFEST
from sweep.records.sweep_files import read_sweep_file
from sweep.records.sweep_storage import RecordHead, SweepStorage


def manifest_stages(storage: SweepStorage, name: str) -> list[tuple[str, list[str]]]:
    """Return a sweep's stages and the ids of their trials known so far, in the order of its manifest.

    None where there is no manifest, or a broken one.
    """
    manifest = read_sweep_file(storage, name, MANIFEST) or {}
    return [(str(stage["name"]), list(stage.get("ids") or [])) for stage in manifest.get("stages", [])]


def recorded_stages(name: str, index: Mapping[str, RecordHead]) -> dict[str, list[str]]:
    """Return the trials that a sweep ran itself, by the stage that ran them: what there is without a manifest."""
    found: dict[str, list[str]] = {}
    for head in index.values():
        if head.sweep == name:
            found.setdefault(head.record()["stage"], []).append(head.id)
    return found


def sweep_heads(storage: SweepStorage, name: str, index: Mapping[str, RecordHead]) -> list[RecordHead]:
    """Return the records of the trials that a sweep ran or that its manifest lists."""
    listed = sweep_stages(storage, name, index)
    return [head for head in index.values() if head.sweep == name or head.id in listed]


def sweep_stages(storage: SweepStorage, name: str, index: Mapping[str, RecordHead]) -> dict[str, list[str]]:
    """Return the stages that each trial of a sweep belongs to, in the manifest's order.

    Without a manifest, every trial that the sweep ran belongs to it, its stage unknown.
    """
    found: dict[str, list[str]] = {}
    for stage, trials in manifest_stages(storage, name):
        for trial in trials:
            found.setdefault(trial, []).append(stage)
    return found or {head.id: [] for head in index.values() if head.sweep == name}
