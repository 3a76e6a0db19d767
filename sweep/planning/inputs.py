"""The data and models that a plan needs: said beforehand, checked before anything starts, downloaded before trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sweep.planning.plan import Plan
from sweep.planning.points import Point
from sweep.records.names import moved_branches
from sweep.records.sweep_files import COMMITS, read_sweep_file, write_sweep_file
from sweep.records.sweep_storage import RecordIndex, SweepStorage
from trainables.data.hub import is_hub
from trainables.data.hub_client import gated_message, has_token, is_offline
from trainables.data.obtain import is_ready
from trainables.data.official import data_cache, data_set
from trainables.data.sources import OFFICIAL_NAMES
from trainables.errors import ConfigError, DataError
from trainables.lm.card import ModelCard
from trainables.lm.hub_commit import hub_commit
from trainables.trial.canonical import uses_counterfact


def points_to_run(plan: Plan) -> list[Point]:
    """Return the trials that are left, one of each point."""
    return list({point.id: point for stage in plan.stages for point in stage.left}.values())


def models_to_run(plan: Plan) -> list[ModelCard]:
    """Return the models of the trials that are left, each once."""
    return list({point.card.key: point.card for point in points_to_run(plan)}.values())


def data_to_read(plan: Plan) -> list[tuple[str, bool]]:
    """Return the sources of the trials that are left, each with whether missing pages are allowed."""
    return list(dict.fromkeys((p.spec.data, p.spec.allow_missing_pages) for p in points_to_run(plan)))


def input_notes(plan: Plan) -> list[str]:
    """Say what a plan would download and which models are gated, without asking any server."""
    notes = []
    names = dict.fromkeys(name for data, _ in data_to_read(plan) for name in data.split(","))
    for name in names:
        if name in OFFICIAL_NAMES and not _has(name):
            gigabytes = data_set(name).bytes / 1e9
            notes.append(f"data {name}: {gigabytes:.2f} GB to download, once per node, into {data_cache()}")
    for card in models_to_run(plan):
        if card.is_hub and not _is_downloaded(card):
            told = f"about {2 * card.params / 1e9:.2g} GB to download, once per node"
            notes.append(f"model {card.name}: {gated_note(card) if card.is_gated else told}")
    return notes


def gated_note(card: ModelCard) -> str:
    """Say what a gated model needs, as far as this machine knows without asking."""
    if has_token():
        return f"{card.source} is gated; whether this machine's token opens it is checked when the sweep starts"
    return gated_message(card.source)


def kept_commits(storage: SweepStorage, name: str) -> dict[str, str]:
    """Return the commits of a sweep's hub models when it began, by `hub id@revision`; it stays there."""
    return dict((read_sweep_file(storage, name, COMMITS) or {}).get("models", {}))


def moved_notes(plan: Plan, commits: Mapping[str, str], index: RecordIndex) -> list[str]:
    """Say which models' branches have moved: since the sweep began, or since other sweeps recorded trials on them.

    Args:
        plan: of the sweep.
        commits: at which it began.
        index: all records of the storage.
    """
    notes, others = [], []
    for card in {point.card.key: point.card for stage in plan.stages for point in stage.points}.values():
        if not card.is_hub or commits.get(_branch(card)) != card.commit:
            others.append(card)
            continue
        now = hub_commit(card.source, card.revision)
        if now and now != card.commit:
            notes.append(
                f"{card.source}: {card.revision} has moved to {now[:12]}; this sweep stays at {card.commit[:12]} "
                f"(for the new weights: --set revision={now})"
            )
    return notes + moved_branches(others, index)


def check_hub_models(plan: Plan) -> dict[str, str]:
    """Make sure that every hub model of a plan exists and opens for this machine; nothing large is downloaded.

    Returns:
        The commits, by `hub id@revision`, of those that had none when they were planned: the Hub was slow or busy.

    Raises:
        ConfigError: a model that does not exist, is gated, or cannot be looked up.
        DataError: a repository without weights or tokenizer.
    """
    from trainables.lm.download import find_model

    found = {_branch(card): (card.commit, find_model(card).commit) for card in models_to_run(plan) if card.is_hub}
    return {branch: commit for branch, (planned, commit) in found.items() if not planned}


def keep_commits(plan: Plan, storage: SweepStorage, name: str) -> list[str]:
    """Write down the commits of a sweep's models and hub data.

    Moved data are other data: their trials have other ids, so unlike models they do not stay where they were by
    themselves.

    Returns:
        Notes on hub data that have moved since.
    """
    notes = []
    models = {
        _branch(card): card.commit for card in models_to_run(plan) if card.is_hub and card.revision != card.commit
    }
    kept = read_sweep_file(storage, name, COMMITS) or {}
    data = dict(kept.get("data", {}))
    for source in {part for sources, _ in data_to_read(plan) for part in sources.split(",") if is_hub(part)}:
        repo = source.partition("@")[0]
        before = data.setdefault(repo, source)
        if before != source:
            told = "has moved since this sweep began; trials on it have other ids"
            notes.append(f"{repo} {told} (to stay: --data {before})")
            data[repo] = source
    now = {"models": {**kept.get("models", {}), **models}, "data": data}
    if any(now.values()) and now != kept:
        write_sweep_file(storage, name, COMMITS, now)
    return notes


def _branch(card: ModelCard) -> str:
    return f"{card.source}@{card.revision}"


def download_models(cards: Iterable[ModelCard]) -> None:
    """Download models onto this machine.

    Raises:
        ConfigError: the Hub cannot be reached or refuses.
        DataError: a repository without weights or tokenizer.
    """
    from trainables.lm.download import download_model

    for card in cards:
        download_model(card)


def check_points(points: Sequence[Point]) -> list[str]:
    """Refuse what would fail in every worker: models, texts and all that the trials are asked; return notes.

    Raises:
        ConfigError: a value at odds with the model, or with what is asked.
        DataError: a model's file, or one of a question's, that is missing or broken.
    """
    from trainables.pack.trial_check import check_trials

    added = (asking.plan(point.spec) for point in points for asking in point.added_askings)
    return check_trials(((point.spec, point.card) for point in points), added)


def check_added(before: Plan, after: Plan, download: bool = True) -> list[str]:
    """Check the trials that one plan of a sweep has more than another, as those of a new sweep are.

    Args:
        before: without them.
        after: with them.
        download: also download data that are missing here; else these are left for whoever runs the trials to check.

    Returns:
        Notes on what is odd.

    Raises:
        ConfigError: a value at odds with its model, too few documents, a model that is not there.
        DataError: data or a model file that is missing or broken.
    """
    known = {point.id for stage in before.stages for point in stage.points}
    new = [point for point in points_to_run(after) if point.id not in known]
    models = {point.card.key for stage in before.stages for point in stage.points}
    for card in {point.card.key: point.card for point in new if point.card.is_hub}.values():
        if card.key not in models:
            from trainables.lm.download import find_model

            find_model(card)
    notes = check_points(new)
    names = {name for point in new for name in point.spec.data.split(",")}
    is_here = all(_has(name) for name in names if name in OFFICIAL_NAMES) and not any(map(is_hub, names))
    return notes + (read_data(new) if download or is_here else [])


_PLANNED_BYTES = 16 * 2**20
"""Files up to which a plan reads its data as a run does, once for each number of documents: 5 MB take 0.1 s (ours)."""


def data_notes(plan: Plan) -> list[str]:
    """Say what a run would say of its data, and what it would refuse, as far as they are here and read in no time.

    Of trials that differ in their number of documents the first refusal counts: more documents are refused alike.
    """
    notes: dict[str, None] = {}
    points = points_to_run(plan)
    for source in data_to_read(plan):
        if not _is_read_at_once(source[0]):
            continue
        some = [point for point in points if (point.spec.data, point.spec.allow_missing_pages) == source]
        try:
            for count in sorted({point.spec.num_documents for point in some}):
                notes |= dict.fromkeys(read_data(point for point in some if point.spec.num_documents == count))
        except (ConfigError, DataError) as error:
            notes[f"WARNING: a run refuses this: {error}"] = None
    return list(notes)


def _is_read_at_once(data: str) -> bool:
    """Say whether all files of some sources are on this machine and few enough for a plan."""
    from trainables.data.sources import resolve_sources

    names = data.split(",")
    if any(is_hub(name) or (name in OFFICIAL_NAMES and not _has(name)) for name in names):
        return False
    files = [path for source in resolve_sources(data) for path in source.files]
    return sum(path.stat().st_size for path in files) <= _PLANNED_BYTES


_ASKED_OF = {"fever": ("claims", "claim to ask"), "choices": ("questions", "question to ask")}
"""Probes that ask what documents bring along: which part of a `Document`, and in words."""


def read_data(points: Iterable[Point]) -> list[str]:
    """Read the data of trials, downloading what is missing, so that a mistake in them is said before anything starts.

    Returns:
        Notes on what is not complete.

    Raises:
        ConfigError: sources at odds with each other, too few documents, or a server that cannot be reached.
        DataError: data that are missing or broken.
    """
    from trainables.data.corpus import load_corpus, with_subject_pages
    from trainables.data.counterfact import facts_to_ask, facts_to_train, load_counterfact
    from trainables.data.pages import coverage
    from trainables.data.sources import resolve_sources

    notes: dict[str, None] = {}
    asked: dict[tuple[Any, ...], None] = {}
    for point in points:
        spec = point.spec
        wanted = (a.settings["counterfact_records"] for a in point.askings if a.probe == "counterfact")
        num_records = max(wanted, default=0)
        texts = (spec.data, spec.detokenize, spec.allow_missing_pages)
        with_records = uses_counterfact(spec) or num_records > 0
        probes = tuple(probe for probe in _ASKED_OF if any(asking.probe == probe for asking in point.askings))
        key = (*texts, spec.num_documents, with_records, spec.page_order, num_records, spec.template_facts, probes)
        asked[key] = None
    has_text: dict[tuple[str, bool], dict[str, bool]] = {}
    corpora = {key[:3]: load_corpus(*key[:3]) for key in asked}
    for key in asked:
        data, detokenize, allow_missing_pages, num_documents, with_records, page_order, num_records, facts, probes = key
        corpus = corpora[key[:3]]
        records = load_counterfact(data) if with_records else []
        subjects = [record.subject for record in records] if page_order == "subjects" else []
        if subjects:
            corpus = with_subject_pages(corpus, data, subjects, detokenize, allow_missing_pages)
        documents = corpus.first(num_documents, subjects)
        pages = has_text.setdefault((data, allow_missing_pages), {})
        pages |= {page.title: bool(page.text.strip()) for page in documents}
        titles = [document.title for document in documents]
        for probe in probes:
            kind, what = _ASKED_OF[probe]
            if not any(getattr(document, kind) for document in documents):
                notes[
                    f"probe {probe}: {data} has no {what} about the {len(documents):,} documents; nothing is asked"
                ] = None
        if facts and with_records:
            facts_to_train(records, titles, facts)
        left = facts_to_ask(records, titles, facts) if num_records else []
        if len(left) < num_records:
            apart = f" besides {facts:,} to be trained on" if facts else ""
            notes[f"counterfact_records={num_records:,}: {data} has {len(left):,}{apart}; those are asked"] = None
    for (data, allow_missing_pages), pages in has_text.items():
        missing = {title for title, there in pages.items() if not there}
        if missing:
            sources = resolve_sources(data, allow_missing_pages)
            notes[f"{data}: {coverage(sources, pages.keys(), len(pages) - len(missing), missing)}"] = None
    return list(notes)


def _has(name: str) -> bool:
    try:
        return is_ready(name)
    except DataError:
        return False


def _is_downloaded(card: ModelCard) -> bool:
    from huggingface_hub import try_to_load_from_cache

    at = card.commit or card.revision
    return is_offline() or isinstance(try_to_load_from_cache(card.source, "config.json", revision=at), str)
