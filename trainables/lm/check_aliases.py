"""Look every model with a short name up on the Hub: whether its repository and files are as assumed."""

from __future__ import annotations

from collections.abc import Iterator

from trainables.data.assumptions import DataCheck
from trainables.data.hub_client import GatedRepository
from trainables.data.online import Unreachable
from trainables.errors import SweepError
from trainables.lm.aliases import MODELS
from trainables.lm.card import model_card
from trainables.lm.download import find_model


def check_aliases() -> Iterator[DataCheck]:
    """Find each alias's repository and weights; a gated one that does not open for this machine is as assumed.

    Raises:
        Unreachable: there is no network.
    """
    for alias in MODELS:
        card = model_card(alias)
        what = f"model {alias}: {card.source}"
        try:
            files = find_model(card)
        except Unreachable:
            raise
        except GatedRepository as error:
            yield DataCheck(what, str(error), True if card.is_gated else False)
        except SweepError as error:
            yield DataCheck(what, str(error), False)
        else:
            kind = f"{files.weights[0]} ({len(files.weights)} files)" if len(files.weights) > 1 else files.weights[0]
            yield DataCheck(what, f"{kind}, {files.bytes / 1e9:.1f} GB, at {files.commit[:12]}", True)
