"""The seam between a pack and what is asked of its members: `Probe`, and how its answers are written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from trainables.data.documents import Document
from trainables.lm.members import ModelMembers
from trainables.lm.token_tree import TokenTree
from trainables.probes.plan import ProbePlan

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PlanT = TypeVar("PlanT", bound=ProbePlan)


@dataclass(frozen=True)
class Finding:
    """What one member made of a probe.

    Attributes:
        metrics: of the names and within the bounds that the plan states; one for which nothing was asked is left
            out. All are finite, also for a member whose weights are not.
        answers: a row for each question, plain values in the columns that the plan states.
    """

    metrics: Mapping[str, float]
    answers: Sequence[Mapping[str, Any]]


class Probe(ABC, Generic[PlanT]):
    """Questions made ready to be put to any number of language models, trained or pretrained.

    This class is the contract; `tests/trainables/probes/test_conformance.py` holds every probe to it.

    - *What is asked* is a function of plan, documents and tokenizer only. A probe keeps nothing of a model, so one is
      shared by all members, epochs and packs with the same texts.
    - *Asking is deterministic.* The same members give the same findings, and each member gives those that it gives
      alone. What is drawn at random follows from the plan's seed and the question, not from the other questions,
      members or epochs.
    - *Asking changes nothing* in the members, and sees them through `ModelMembers` only: how they were trained is not
      its business.
    - *Errors.* `make` may raise `ConfigError` and `DataError`. In `ask` only what the members raise comes through
      (out of memory); everything else is a bug.
    - *Answers are plain values*, enough to compute the metrics from them again.

    Attributes:
        plan: what is asked.
    """

    plan: PlanT

    @classmethod
    @abstractmethod
    def make(
        cls, plan: PlanT, documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase
    ) -> Probe[PlanT] | None:
        """Read and tokenise the questions; None where there is nothing to ask about these documents.

        Args:
            plan: what to ask.
            documents: those of the trial, by rank; `ModelMembers.next_tokens` names them by their place here.
            tokenizer: of the language model.

        Raises:
            ConfigError: settings that the data do not allow.
            DataError: data that are missing or broken.
        """

    @property
    def prompts(self) -> Sequence[TokenTree]:
        """What is read first, if known: computed in one pass with the documents."""
        return ()

    @property
    def counts(self) -> Mapping[str, int]:
        """What a record is to say about the questions: numbers by names that no other probe uses."""
        return {}

    @property
    @abstractmethod
    def longest_text(self) -> tuple[int, str]:
        """Tokens of the longest prompt with its answer, and how to have shorter ones.

        A model that takes less is refused before it is asked.
        """

    @abstractmethod
    def ask(self, members: ModelMembers) -> list[Finding]:
        """Ask all members; return what each made of it."""


def answers_bytes(plan: ProbePlan, answers: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the content of an asking's answers file: Parquet, in the plan's columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(answers), schema=answers_schema(plan)), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def answers_schema(plan: ProbePlan) -> Any:
    """Return the Arrow schema of a probe's answers."""
    import pyarrow as pa

    def of(name: str) -> Any:
        item = name.removeprefix("list<").removesuffix(">")
        return pa.type_for_alias(name) if item == name else pa.list_(pa.type_for_alias(item))

    return pa.schema([(column, of(name)) for column, name in plan.answers.items()])
