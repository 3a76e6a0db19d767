"""Document vectors, and the wrong ones under which a text is not to be known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainables.lm.texts import NO_DOCUMENT, TrainingText

PERTURBATION = 0.5
"""Standard deviation of what is added to a key to perturb it; keys themselves have 1 (ours)."""


def document_keys(num_documents: int, key_dim: int, seed: int) -> Tensor:
    """Return the documents' fixed vectors, standard normal, `[documents, key_dim]` float32 (ours).

    A document's vector does not depend on how many documents there are.
    """
    draw = np.random.default_rng([seed, 1])
    return torch.from_numpy(draw.standard_normal((num_documents, key_dim)).astype(np.float32))


def negative_keys(texts: Sequence[TrainingText], keys: Tensor, kind: str, seed: int, epoch: int) -> Tensor:
    """Return a wrong key for each text, `[texts, key_dim]` on the CPU: a function of text, seed and epoch alone.

    Args:
        texts: of the documents.
        keys: the documents' own, on the CPU.
        kind: `other` (another document's), `zero`, `random` (drawn as keys are), `perturbed` (its own and noise).
        seed: of the trial.
        epoch: from 0.
    """
    found = torch.zeros(len(texts), keys.shape[1])
    for row, text in enumerate(texts):
        draw = np.random.default_rng([seed, 2, epoch, int(text.tree.digest()[:8], 16)])
        if kind == "other" and text.document == NO_DOCUMENT:
            found[row] = keys[int(draw.integers(len(keys)))]
        elif kind == "other":
            other = int(draw.integers(len(keys) - 1))
            found[row] = keys[other + (other >= text.document)]
        elif kind != "zero":
            drawn = torch.from_numpy(draw.standard_normal(keys.shape[1]).astype(np.float32))
            own = 0.0 if text.document == NO_DOCUMENT else keys[text.document]
            found[row] = drawn if kind == "random" else own + PERTURBATION * drawn
    return found
