"""Which recorded trial another one is measured against.

*baseline*: the pretrained model under the same data and prompt settings. *plain memory*: the same memory
trained without structure (no allocation, alpha 0). Both are looked up among the trials of the report.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sweep.records.study_questions import ERROR
from sweep.report.answers import Answers
from sweep.report.study import Trial
from trainables.trial.fields import Part
from trainables.trial.identity import MATHS, TOLD_APART
from trainables.trial.parts import REPEATED, fields_of

CLAIMS_FIELDS = (*fields_of(Part.PAGES), "claims_per_page")
"""Which claims are asked; a baseline that was asked others may still have answered them."""
PROMPT_FIELDS = tuple(
    name
    for name in fields_of(Part.MODEL | Part.CORPUS | Part.FEVER)
    if name not in (*CLAIMS_FIELDS, "probes")  # a baseline may be asked more than the trial
)
"""What gives a claim the same prompt, and the model that answers it its weights."""


DOCUMENTS = "num_documents"


def mixed_versions(pairs: Iterable[tuple[Trial, Trial]], probe: str) -> tuple[str, ...]:
    """Return a line on those comparisons whose two sides were asked by different versions of a probe; none, no line.

    Args:
        pairs: trials with what they are compared with.
        probe: its name.
    """
    found = [(t.probe_versions.get(probe), o.probe_versions.get(probe)) for t, o in pairs]
    mixed = [versions for versions in found if versions[0] != versions[1]]
    if not mixed:
        return ()
    told = ", ".join(f"{own} with {other}" for own, other in sorted(set(mixed), key=str))
    return (
        f"{len(mixed):,} of {len(found):,} comparisons mix versions of the probe {probe} ({told}): a few of their "
        "questions differ. To compare like with like, ask the older side anew (python -m sweep.evaluate STORAGE/NAME "
        f"--probe {probe}).",
    )


def mixed_code(pairs: Iterable[tuple[Trial, Trial]]) -> tuple[str, ...]:
    """Return a line on those comparisons whose two sides were recorded by different versions of the code, if any."""
    found = [trial.code != other.code for trial, other in pairs]
    if not any(found):
        return ()
    return (f"{sum(found):,} of {len(found):,} comparisons are between trials of different versions of the code.",)


def is_baseline(trial: Trial) -> bool:
    """Whether the trial evaluates the pretrained model as it comes."""
    return bool(trial.get("method") == "pretrained")


def is_plain(trial: Trial) -> bool:
    """Whether the trial trains a memory without structure."""
    return bool(trial.get("method") == "memory" and trial.get("allocation") in (None, "none"))


def is_structured(trial: Trial) -> bool:
    """Whether the trial trains a memory whose entries are allocated to groups of documents."""
    return bool(trial.get("method") == "memory") and not is_plain(trial)


class References:
    """Looks up the baseline and the plain memory of a trial."""

    def __init__(self, trials: Iterable[Trial], answers: dict[str, Answers] | None = None) -> None:
        """Index the finished trials.

        Args:
            trials: all trials of the report.
            answers: their predictions; with them a baseline that asked more claims can stand in, because the
                prompt of a claim depends on its page, the shots and the seed only.
        """
        self._answers = answers or {}
        self._baselines: dict[str, list[Trial]] = {}
        self._plain: dict[str, Trial] = {}
        for trial in trials:
            if trial.status != "done":
                continue
            if is_baseline(trial) and "fever" in trial.get("probes"):
                self._baselines.setdefault(_key(trial, PROMPT_FIELDS), []).append(trial)
            elif is_plain(trial):
                self._plain.setdefault(_plain_key(trial), trial)

    def baseline(self, trial: Trial) -> Trial | None:
        """Return the pretrained trial with the same prompts that answered all of the trial's claims."""
        if is_baseline(trial):
            return None
        candidates = self._baselines.get(_key(trial, PROMPT_FIELDS), ())

        def preference(other: Trial) -> tuple[bool, bool, int]:
            return (
                bool(mixed_versions([(trial, other)], "fever")),
                not _same_claims(trial, other),
                other.point[DOCUMENTS],
            )

        ranked = sorted(candidates, key=preference)
        for other in ranked:
            if _same_claims(trial, other) or self._covers(other, trial):
                return other
        return None

    @property
    def has_baselines(self) -> bool:
        """Whether any pretrained model was asked FEVER claims."""
        return bool(self._baselines)

    def plain(self, trial: Trial) -> Trial | None:
        """Return the trial that differs only in having no structure; None for a plain trial itself."""
        return self._plain.get(_plain_key(trial)) if is_structured(trial) else None

    def _covers(self, other: Trial, trial: Trial) -> bool:
        asked, offered = self._answers.get(trial.id), self._answers.get(other.id)
        return asked is not None and offered is not None and offered.on(asked.questions) is not None


def _same_claims(first: Trial, second: Trial) -> bool:
    return all(first.get(name) == second.get(name) for name in CLAIMS_FIELDS)


def _plain_key(trial: Trial) -> str:
    sets = fields_of(Part.ENTRY_SETS)
    return _key(trial, [name for name in TOLD_APART if name not in sets])


def _key(trial: Trial, names: Sequence[str]) -> str:
    values: list[Any] = [trial.point.get(name) for name in dict.fromkeys((*names, MATHS))]
    return json.dumps(values, default=str)


def plain_by_layer(trials: Sequence[Trial]) -> dict[str, dict[int, list[Trial]]]:
    """Return model -> layer -> trials of plain document memories, at each model's most documents.

    Where other fields vary too, the most frequent combination is taken, so that lines differ by layer alone.
    """
    found: dict[str, dict[int, list[Trial]]] = {}
    for model in dict.fromkeys(t.model for t in trials):
        own = [t for t in trials if t.model == model and is_plain(t) and t.get("content") == "document"]
        own = [t for t in own if t.metric(ERROR.metric) is not None]
        groups: dict[str, list[Trial]] = {}
        for t in own:
            rest = {n: v for n, v in t.point.items() if n not in ("layer", *REPEATED)}
            groups.setdefault(repr(sorted(rest.items(), key=str)), []).append(t)
        best = max(
            groups.values(),
            key=lambda g: (len({t.get("layer") for t in g}), g[0].get("num_documents")),
            default=[],
        )
        layers: dict[int, list[Trial]] = {}
        for t in sorted(best, key=lambda t: t.get("layer")):
            layers.setdefault(t.get("layer"), []).append(t)
        if len(layers) > 1:
            found[model] = layers
    return found
