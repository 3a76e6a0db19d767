"""What is checked of trials on the driver, before any of them starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from trainables.adapters.registry import adapter_plan
from trainables.errors import ConfigError
from trainables.lm.card import ModelCard, is_known_model
from trainables.probes.plan import ProbePlan
from trainables.probes.registry import probe_plans
from trainables.trial.spec import TrialSpec

SHORT_POSITIONS = 2048
"""A model that takes less is asked about every text before anything starts: a prompt of five shots may be too long."""


def check_trials(trials: Iterable[tuple[TrialSpec, ModelCard]], added: Iterable[ProbePlan] = ()) -> list[str]:
    """Refuse models and texts that would fail in every worker.

    Args:
        trials: those that are to run, with their models.
        added: what they are asked besides what their own fields say.

    Returns:
        Notes on what is odd.

    Raises:
        ConfigError: a value at odds with the model.
        DataError: a model's file that is missing or broken, by name.
    """
    trials = list(trials)
    notes: list[str] = []
    if not all(card.is_sample for _, card in trials):  # sample models are made, not read
        from trainables.lm.model_check import check_models

        notes = check_models(card for _, card in trials)
    for model in dict.fromkeys(spec.model for spec, _ in trials):
        if is_known_model(model) and Path(model).is_dir():
            notes.append(
                f"model={model} is the alias, not the folder of that name here; for the folder write ./{model}"
            )
    for spec, card in trials:
        plan = adapter_plan(vars(spec))
        if card.positions is not None and spec.segment_tokens + plan.added_tokens > card.positions:
            before = f" after the {plan.added_tokens} of a {plan.name}" if plan.added_tokens else ""
            raise ConfigError(
                f"segment_tokens={spec.segment_tokens}: {card.name} takes texts of at most "
                f"{card.positions - plan.added_tokens} tokens{before}; lower segment_tokens"
            )
        plan.check(card)
    own = (plan for spec, _ in trials for plan in probe_plans(vars(spec)))
    for probe in dict.fromkeys((*own, *added)):
        probe.check()
    _check_short([(s, card) for s, card in trials if card.positions is not None and card.positions < SHORT_POSITIONS])
    return notes


def _check_short(trials: Sequence[tuple[TrialSpec, ModelCard]]) -> None:
    """Make the texts of models that take short ones only, one trial for each different set of texts."""
    if not trials:
        return
    import torch

    from trainables.pack.process_cache import ProcessCache, texts_key

    cache = ProcessCache(torch.device("cpu"), None)
    for spec in {(card.key, texts_key(spec)): spec for spec, card in trials}.values():
        cache.texts(spec)
