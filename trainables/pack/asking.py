"""Asking a run's members: FEVER claims and CounterFact prompts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from trainables.data.corpus import Corpus, subject_of
from trainables.data.counterfact import CounterfactRecord, load_counterfact
from trainables.data.documents import Selection
from trainables.lm.reference import WholeModel
from trainables.pack.metric_log import Scoreboard
from trainables.probes.counterfact import CounterfactProbe
from trainables.probes.fever import FeverQuestions, Respond
from trainables.probes.metrics import fever_metrics
from trainables.probes.sampling import WholeModelSampler
from trainables.trial.spec import TrialSpec


def ask_fever(board: Scoreboard, epoch: int, questions: FeverQuestions, respond: Respond) -> None:
    """Ask all claims of all members and note metrics and answers."""
    for k, answers in enumerate(questions.answer(respond)):
        for name, value in fever_metrics(answers).items():
            board.note(k, f"fever/{name}", epoch, value)
        board.files[k]["answers"] = answers


def select_documents(corpus: Corpus, spec: TrialSpec) -> Selection:
    """Return a trial's documents: the first of the ranking, or those about CounterFact's subjects before others.

    Raises:
        ConfigError: there are fewer documents.
        DataError: no CounterFact records where their subjects are to come first.
    """
    subjects = {r.subject for r in load_counterfact(spec.data)} if spec.page_order == "subjects" else ()
    return corpus.select(spec.num_documents, subjects)


def counterfact_records(spec: TrialSpec, titles: set[str]) -> list[CounterfactRecord]:
    """Return the records a trial asks: those about a document first, in file order, `counterfact_records` of them.

    Args:
        spec: of the trial.
        titles: of the documents.
    """
    subjects = {subject_of(title) for title in titles}
    known = sorted(load_counterfact(spec.data), key=lambda record: record.subject not in subjects)
    return known[: spec.counterfact_records]


def ask_counterfact(
    board: Scoreboard,
    epoch: int,
    probe: CounterfactProbe,
    whole: WholeModel,
    attach: Callable[[int], AbstractContextManager[None]] | None,
    device: torch.device,
) -> None:
    """Sample answers of every member and note rates and samples.

    The whole model is used with the member's memory attached: sampled text has no cached hidden states. No mask acts
    here, also in hard mode, for a prompt belongs to no document (ours).

    Args:
        board: where to note.
        epoch: epochs done.
        probe: the prompts.
        whole: the whole model.
        attach: member -> context in which its memory is attached to the model; None for the model as it is.
        device: where the model is.
    """
    sampler = WholeModelSampler(whole, device)
    for k, task in enumerate(board.tasks):
        with attach(k) if attach else nullcontext():
            found = probe.run(sampler, task.spec.seed)
        for name, value in found.metrics.items():
            board.note(k, f"counterfact/{name}", epoch, value)
        board.files[k]["samples"] = found.samples
