"""What is known of a probe before anything is loaded: identity, metrics, answers' schema, cost. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.registry import PluginPlan

if TYPE_CHECKING:
    from trainables.probes.probe import Probe


@dataclass(frozen=True)
class TextSizes:
    """Sizes of a data set's texts.

    Attributes:
        document_tokens: mean length of a page.
        claims: validation claims of a page.
        train_claims: training claims of a page.
        claim_tokens: one claim with its `Claim:` and `A: (x)`.
        header_tokens: the template's first two lines.
    """

    document_tokens: float
    claims: float
    train_claims: float = 10
    claim_tokens: float = 22
    header_tokens: float = 40


@dataclass(frozen=True)
class Reading:
    """What a model reads to be asked once, in tokens.

    Attributes:
        above_trunk: of texts whose hidden states below the adapter can be kept, shared beginnings once.
        heads: positions among them at which the head is applied.
        whole: through all blocks and the head, since their texts are not known beforehand.
    """

    above_trunk: float = 0.0
    heads: float = 0.0
    whole: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ProbePlan(PluginPlan, ABC):
    """A probe with its settings: what is asked.

    To add a probe: one file with a subclass of this and one of `trainables.probes.probe.Probe` (two files, where the
    second's imports would slow planning down), the plan's name in `trainables.probes.registry`, and its settings in
    the list of `tests/trainables/probes/test_conformance.py`.

    Attributes:
        name: as in the trial field `probes`, and the part of its metrics' names before the slash.
        main_setting: the setting whose value may stand alone behind the probe's name; empty for none.
        version: raised whenever the same settings ask something else than before.
        metrics: name -> lowest and highest possible value.
        answers: column of one answer -> its type, as Arrow names them, or `list<TYPE>`.
    """

    main_setting: ClassVar[str] = ""
    version: ClassVar[int] = 1
    metrics: ClassVar[Mapping[str, tuple[float, float]]]
    answers: ClassVar[Mapping[str, str]]

    def identity(self) -> dict[str, Any]:
        """Return what decides the question: equal identities ask the same of the same documents."""
        return {"probe": self.name, "version": self.version, **asdict(self)}

    @abstractmethod
    def reading(self, sizes: TextSizes, num_documents: int) -> Reading:
        """Return what one member reads when it is asked once.

        Args:
            sizes: of the data's texts.
            num_documents: documents of the trial.
        """

    def check(self) -> None:
        """Refuse, on the driver and before anything starts, what would fail in every worker; may load libraries.

        Raises:
            ConfigError: settings at odds with what is installed.
            DataError: files that are missing or broken.
        """

    @classmethod
    @abstractmethod
    def load(cls) -> type[Probe[Any]]:
        """Import and return the probe itself, in a worker."""
