"""What is checked of trials before any of them starts, on the driver, and of their texts again where they run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.errors import ConfigError
from trainables.lm.card import ModelCard, is_known_model
from trainables.probes.answers import MAX_ANSWER_TOKENS
from trainables.trial.spec import TrialSpec

if TYPE_CHECKING:
    from trainables.pack.process_cache import StudyTexts

SHORT_POSITIONS = 2048
"""A model that takes less is asked about every text before anything starts: a prompt of five shots may be too long."""


def check_trials(trials: Iterable[tuple[TrialSpec, ModelCard]], address: str | None) -> None:
    """Refuse what would fail in every worker: devices, models and texts; print notes on what is odd.

    Args:
        trials: those that are to run, with their models.
        address: of the Ray cluster; None for RAY_ADDRESS or a Ray of our own, on this machine.

    Raises:
        ConfigError: a value at odds with the machine or the model.
        DataError: a model's file that is missing or broken, by name.
    """
    from trainables.lm.check import check_local_device, check_models

    trials = list(trials)
    if not address and not os.environ.get("RAY_ADDRESS"):
        for device in {spec.device for spec, _ in trials}:
            check_local_device(device)
    notes = check_models(card for _, card in trials)
    for model in {spec.model for spec, _ in trials}:
        if is_known_model(model) and Path(model).is_dir():
            notes.append(
                f"model={model} is the alias, not the folder of that name here; for the folder write ./{model}"
            )
    for note in notes:
        print(f"note: {note}", flush=True)
    for spec, card in trials:
        if card.positions is not None and spec.segment_tokens > card.positions:
            raise ConfigError(
                f"segment_tokens={spec.segment_tokens}: {card.name} takes texts of at most {card.positions} tokens; "
                "lower segment_tokens"
            )
    short = [(spec, card) for spec, card in trials if card.positions is not None and card.positions < SHORT_POSITIONS]
    _check_short(short)


def _check_short(trials: Sequence[tuple[TrialSpec, ModelCard]]) -> None:
    """Make the texts of models that take short ones only, one trial for each different set of texts."""
    if not trials:
        return
    import torch

    from trainables.pack.process_cache import Workbench, text_key

    bench = Workbench(torch.device("cpu"), None)
    for spec in {text_key(spec, card): spec for spec, card in trials}.values():
        bench.texts(spec)


def check_texts(spec: TrialSpec, card: ModelCard, texts: StudyTexts) -> None:
    """Refuse texts, prompts and answers that are longer than the model takes.

    Raises:
        ConfigError: the longest of a kind is too long; what to do.
    """
    kinds = {
        "a text that is trained on": (
            max((len(text.tree) for text in [*texts.segments, *texts.train]), default=0),
            "lower segment_tokens or num_shots",
        ),
        "a FEVER prompt with its answer": (
            max((len(asked.prompt) for asked in texts.questions.questions), default=0) + MAX_ANSWER_TOKENS - 1
            if texts.questions
            else 0,
            f"lower num_shots, which is {spec.num_shots}",
        ),
        "a CounterFact prompt with its answer": (
            texts.counterfact.longest_prompt + spec.answer_tokens - 1 if texts.counterfact else 0,
            "lower answer_tokens, or leave CounterFact out",
        ),
    }
    for name, (tokens, remedy) in kinds.items():
        if card.positions is not None and tokens > card.positions:
            raise ConfigError(f"{name}: {tokens} tokens, {card.name} takes at most {card.positions}; {remedy}")
