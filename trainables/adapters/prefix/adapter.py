"""A tuned prefix as an adapter: peft's prefix tuning, one member at a time."""

from __future__ import annotations

from trainables.adapters.prefix.model import PrefixedModel
from trainables.adapters.prompt.adapter import PromptAdapter


class PrefixAdapter(PromptAdapter):
    """Keys and values before every text in every block; the model's weights stay as they are.

    Raises:
        ConfigError: the prefix leaves too few positions for a text, or the model takes none.
    """

    model_type = PrefixedModel
    what = "keys and values of a prefix"
