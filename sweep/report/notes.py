"""The numbers that the study's notes print, as data, and when a trial of ours is the same point.

Note 000 evaluated 99 pages (3,045 rows), note 001 449. A trial is set beside a note only when its corpus has
that many pages after truncation, on the same model alias, shots and variant.
"""

from __future__ import annotations

from dataclasses import dataclass

from sweep.report.study import Trial

PAGES_000 = 99
PAGES_001 = 449
BLOCK_SHARE = (0.7, 0.8)
"""Note 000 puts the memory at 70 to 80 % of the depth."""

# model: accuracy, then macro F1, of 0, 1, 2, 3, 4, 5 shots; note 000, "Full Results", "Pretrained Models".
FEW_SHOT: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "llama2-13b": (
        (0.013, 0.460, 0.410, 0.417, 0.472, 0.476),
        (0.018, 0.319, 0.229, 0.238, 0.268, 0.272),
    ),
    "llama2-7b": (
        (0.018, 0.435, 0.354, 0.368, 0.367, 0.364),
        (0.024, 0.241, 0.214, 0.220, 0.219, 0.220),
    ),
    "llama2_chat-13b": (
        (0.010, 0.556, 0.389, 0.496, 0.552, 0.578),
        (0.012, 0.381, 0.209, 0.259, 0.284, 0.291),
    ),
    "llama2_chat-7b": (
        (0.392, 0.636, 0.519, 0.463, 0.408, 0.393),
        (0.196, 0.457, 0.402, 0.373, 0.341, 0.337),
    ),
    "pythia-12b": (
        (0.000, 0.366, 0.118, 0.119, 0.113, 0.083),
        (0.000, 0.197, 0.124, 0.117, 0.115, 0.093),
    ),
    "pythia-6.9b": (
        (0.021, 0.163, 0.280, 0.175, 0.106, 0.206),
        (0.028, 0.118, 0.247, 0.164, 0.106, 0.167),
    ),
    "pythia-2.8b": (
        (0.006, 0.026, 0.097, 0.056, 0.108, 0.132),
        (0.008, 0.025, 0.077, 0.066, 0.087, 0.102),
    ),
    "pythia-1.4b": (
        (0.059, 0.009, 0.139, 0.177, 0.275, 0.176),
        (0.067, 0.008, 0.102, 0.133, 0.178, 0.176),
    ),
    "pythia-1b": (
        (0.000, 0.000, 0.001, 0.002, 0.011, 0.013),
        (0.000, 0.000, 0.001, 0.002, 0.011, 0.014),
    ),
    "pythia-410m": (
        (0.000, 0.010, 0.000, 0.000, 0.000, 0.000),
        (0.000, 0.009, 0.000, 0.000, 0.000, 0.000),
    ),
    "pythia-160m": (
        (0.000, 0.000, 0.000, 0.000, 0.000, 0.000),
        (0.000, 0.000, 0.000, 0.000, 0.000, 0.000),
    ),
    "pythia-70m": (
        (0.000, 0.000, 0.000, 0.000, 0.000, 0.000),
        (0.000, 0.000, 0.000, 0.000, 0.000, 0.000),
    ),
}

# model: accuracy after memorising document, template, both; note 000, 1-shot, by weight decay.
CONTENT: dict[float, dict[str, tuple[float, float, float]]] = {
    0.05: {
        "llama2-13b": (0.476, 0.465, 0.462),
        "llama2-7b": (0.439, 0.445, 0.438),
        "llama2_chat-13b": (0.561, 0.562, 0.558),
        "llama2_chat-7b": (0.650, 0.647, 0.646),
        "pythia-12b": (0.366, 0.366, 0.366),
        "pythia-6.9b": (0.163, 0.163, 0.163),
        "pythia-2.8b": (0.026, 0.026, 0.026),
        "pythia-1.4b": (0.009, 0.009, 0.009),
        "pythia-1b": (0.000, 0.000, 0.000),
        "pythia-410m": (0.010, 0.010, 0.010),
        "pythia-160m": (0.000, 0.000, 0.000),
        "pythia-70m": (0.000, 0.000, 0.000),
    },
    0.01: {
        "llama2-13b": (0.488, 0.483, 0.472),
        "llama2_chat-13b": (0.557, 0.549, 0.561),
        "llama2_chat-7b": (0.639, 0.650, 0.642),
    },
}
CONTENTS = ("document", "template", "document+template")

# (model, content): accuracy with all weights trained, no memory module; note 000, 1-shot.
FULL_UPDATE: dict[tuple[str, str], float] = {
    ("pythia-410m", "template"): 0.000,
    ("pythia-410m", "document+template"): 0.024,
    ("pythia-70m", "template"): 0.000,
    ("pythia-70m", "document+template"): 0.000,
}

# (allocation, granularity, LayerNorm and gate): accuracy of llama2_chat-7b at block 24; note 001, 1-shot.
# Note 001's simset modules lack LayerNorm and gate, its unstructured memory has them.
STRUCTURE_MODEL, STRUCTURE_LAYER, STRUCTURE_PRETRAINED = "llama2_chat-7b", 24, 0.644
STRUCTURE: dict[tuple[str, str, bool], float] = {
    ("none", "dim", True): 0.652,
    ("simset1", "dim", False): 0.640,
    ("simset1", "token", False): 0.641,
    ("simset2", "dim", False): 0.640,
    ("simset2", "token", False): 0.653,
}


@dataclass(frozen=True)
class NoteValue:
    """What a note prints for a point: accuracy, macro F1 where given, and which note."""

    accuracy: float
    f1_macro: float | None
    note: str


def note_value(trial: Trial) -> NoteValue | None:
    """Return what a note prints for the trial's point, or None where no note has it at this scale."""
    pages = trial.counts.get("n_trunc")
    if pages == PAGES_000:
        return _note_000(trial)
    return _note_001(trial) if pages == PAGES_001 else None


def _note_000(trial: Trial) -> NoteValue | None:
    method, shots = trial.get("method"), int(trial.get("num_shots"))
    if method == "pretrained":
        rows = FEW_SHOT.get(trial.model)
        return NoteValue(rows[0][shots], rows[1][shots], "000") if rows else None
    if shots != 1:
        return None
    if method == "full_update":
        value = FULL_UPDATE.get((trial.model, str(trial.get("content"))))
        return None if value is None else NoteValue(value, None, "000")
    if method != "memory":
        return None
    row = CONTENT.get(float(trial.get("weight_decay")), {}).get(trial.model)
    if row is None or trial.get("allocation") != "none" or not _at_the_notes_depth(trial):
        return None
    return NoteValue(row[CONTENTS.index(str(trial.get("content")))], None, "000")


def _note_001(trial: Trial) -> NoteValue | None:
    if trial.model != STRUCTURE_MODEL or trial.get("num_shots") != 1:
        return None
    if trial.get("method") == "pretrained":
        return NoteValue(STRUCTURE_PRETRAINED, None, "001")
    hard = trial.get("mode") == "hard" or trial.get("allocation") == "none"
    if trial.get("method") != "memory" or trial.get("layer") != STRUCTURE_LAYER or not hard:
        return None
    if trial.get("content") != "document":
        return None
    key = (str(trial.get("allocation")), str(trial.get("granularity")), bool(trial.get("norm_and_gate")))
    value = STRUCTURE.get(key)
    return None if value is None else NoteValue(value, None, "001")


def _at_the_notes_depth(trial: Trial) -> bool:
    if not trial.num_blocks or trial.get("layer") is None:
        return False
    share = (int(trial.get("layer")) + 1) / trial.num_blocks
    return BLOCK_SHARE[0] <= share <= BLOCK_SHARE[1]
