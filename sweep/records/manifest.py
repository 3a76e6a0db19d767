"""A sweep's manifest, `plan.json`: its stages and the ids of their trials, as far as known."""

from __future__ import annotations

from collections.abc import Mapping

from sweep.records.store import MANIFEST, RecordHead, Store


def manifest_stages(store: Store, name: str) -> list[tuple[str, list[str]]]:
    """Return a sweep's stages and the ids of their trials known so far, in the order of its manifest."""
    manifest = store.read_json(f"{name}/{MANIFEST}") or {}
    return [(str(stage["name"]), list(stage.get("ids") or [])) for stage in manifest.get("stages", [])]


def sweep_stages(store: Store, name: str, index: Mapping[str, RecordHead]) -> dict[str, list[str]]:
    """Return the stages that each trial of a sweep belongs to, in the manifest's order.

    Without a manifest, every trial that the sweep ran belongs to it, its stage unknown.
    """
    found: dict[str, list[str]] = {}
    for stage, trials in manifest_stages(store, name):
        for trial in trials:
            found.setdefault(trial, []).append(stage)
    return found or {head.id: [] for head in index.values() if head.sweep == name}
