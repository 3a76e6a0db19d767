"""What a node needs before its first trial: data and models, downloaded once and not within a trial's time."""

from __future__ import annotations

from collections.abc import Iterable

from trainables.data.sources import resolve_sources
from trainables.errors import SweepError
from trainables.lm.card import ModelCard
from trainables.lm.download import download_model


def prepare_node(data: Iterable[tuple[str, bool]], cards: Iterable[ModelCard]) -> str:
    """Make data and hub models ready on the machine that this runs on.

    Args:
        data: sources, each with whether missing pages are allowed.
        cards: models; those of folders and sample models are left out.

    Returns:
        What is wrong, in one line; empty where all is ready.
    """
    try:
        for sources, allow_missing_pages in data:
            resolve_sources(sources, allow_missing_pages)
        for card in cards:
            if card.is_hub:
                download_model(card)
    except SweepError as error:
        return str(error)
    return ""
