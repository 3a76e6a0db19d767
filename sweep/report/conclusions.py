"""What a sweep's statistics come to, in sentences: the report's first page, the end of a run and MLflow say the same.

Nothing is measured here. A difference counts as real where its comparison says so (`comparisons`): a 95 % interval
without 0, and p below 0.05 after Holm's correction over all trials of the sweep that were compared so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from sweep.report.answers import Answers
from sweep.report.comparisons.fever import MIN_PAGES, Comparison, compare_all, spread
from sweep.report.evidence import Difference, Evidence, differences_from_pretrained, of_fever
from sweep.report.naming import ACCURACY, NLL, SEEDS, variant
from sweep.report.references import References, is_baseline, is_structured, plain_by_layer
from sweep.report.study import Trial
from sweep.report.table import cell_text, interval_text, number
from trainables.trial.identity import TOLD_APART

HELPS, LAYER, STRUCTURE, COST, SURE = "helps", "layer", "structure", "cost", "sure"
FORGETTING = "forgetting"


@dataclass(frozen=True)
class Conclusion:
    """The answer to one question.

    Attributes:
        key: one of the names above; its figure has the same.
        question: in words.
        sentences: the answer, the most important first.
    """

    key: str
    question: str
    sentences: tuple[str, ...]


def conclude(evidence: Evidence) -> tuple[Conclusion, ...]:
    """Return the answers to the questions that a sweep allows, the main one first; it is always among them."""
    found = (_helps(evidence), _layer(evidence), _structure(evidence), _cost(evidence), _sure(evidence))
    return tuple(conclusion for conclusion in found if conclusion and conclusion.sentences)


def _helps(evidence: Evidence) -> Conclusion:
    question = "Does memorising help?"
    what, found = differences_from_pretrained(evidence)
    if not found:
        return Conclusion(
            HELPS, question, (f"No trial could be compared with the pretrained model: {_why(evidence)}.",)
        )
    better, worse, count = _verdicts(found)
    measured = f"{what}, against the pretrained model"
    if better and not worse:
        lead = f"Yes, {_share(better, count)} better ({measured})" + (", none worse" if better < count else "")
    elif worse and not better:
        lead = f"No, {_share(worse, count)} worse ({measured})" + (", none better" if worse < count else "")
    elif better:
        lead = f"It depends: of {count:,} trials {better:,} better and {worse:,} worse ({measured})"
    else:
        lead = f"No difference was found: {_none(count)} better or worse ({measured})"
    sentences = [f"{lead}.", _extreme(found, lowest=bool(worse and not better))]
    models = list(dict.fromkeys(d.trial.model for d in found))
    if len(models) > 1 and (better or worse):
        told = []
        for model in models:
            up, down, own = _verdicts([d for d in found if d.trial.model == model])
            told.append(f"{model}: {up:,} better, {down:,} worse of {own:,}")
        sentences.append(f"By model: {'; '.join(told)}.")
    return Conclusion(HELPS, question, tuple(sentences))


def _verdicts(found: Sequence[Difference]) -> tuple[int, int, int]:
    return sum(d.verdict > 0 for d in found), sum(d.verdict < 0 for d in found), len(found)


def _share(part: int, whole: int) -> str:
    if whole == 1:
        return "the one trial compared is"
    if part == whole:
        return f"all {whole:,} trials are"
    return f"in {part:,} of {whole:,} trials: {'it is' if part == 1 else 'they are'}"


def _none(count: int) -> str:
    return "the one trial compared is neither" if count == 1 else f"none of {count:,} trials is"


def _extreme(found: Sequence[Difference], lowest: bool) -> str:
    """Print the largest gain, or the largest loss, among those that are real, else among those that could be."""
    pool = [d for d in found if d.verdict == (-1 if lowest else 1)] or [d for d in found if d.telling] or list(found)
    chosen = min(pool, key=lambda d: d.value if lowest else -d.value)
    named = f"{chosen.trial.model}, {variant(chosen.trial)}{_at(chosen.trial)}"
    if len(found) == 1:
        return f"The difference is {chosen.text()}: {named}."
    name = "largest loss" if lowest else "largest gain" if chosen.value > 0 else "best difference"
    overstated = f" (of {len(pool):,}, so likely overstated)" if len(pool) > 1 and chosen.value else ""
    return f"The {name}{overstated} is {chosen.text()}: {named}."


def _at(trial: Trial) -> str:
    layer = trial.get("layer")
    return (f", layer {layer}" if layer is not None else "") + f", {trial.get('num_documents')} documents"


def _why(evidence: Evidence) -> str:
    """Say why nothing could be compared with a pretrained model."""
    asked = [t for t in evidence.trained if any(name.split("/")[0] != "memory" for name in t.answers)]
    if not evidence.trained:
        ended = [t for t in evidence.trials if not is_baseline(t)]
        if not ended:
            return "no trained trial has a result yet"
        return f"none of {len(ended):,} trials that ended has a result (failed, diverged, stopped, or not trained)"
    if not asked:
        return "no trained trial was asked anything (the field `probes`)"
    if not evidence.references.has_baselines:
        return "the storage holds no pretrained model (`method=pretrained`) with answers; run one"
    read = [t for t in asked if t.id in evidence.answers]
    if not read and all("fever" in t.answers for t in asked):
        return "no answers of the trained trials can be read"
    return (
        "no pretrained model was asked the same with the same data, documents, shots and seed, or its answers cannot "
        "be read"
    )


def _layer(evidence: Evidence) -> Conclusion | None:
    leads, details = [], []
    for model, layers in plain_by_layer(evidence.trials).items():
        errors = {layer: fmean([v for t in own if (v := t.metric(NLL)) is not None]) for layer, own in layers.items()}
        first, second = sorted(errors, key=lambda layer: errors[layer])[:2]
        blocks = next(iter(layers.values()))[0].num_blocks
        leads.append(f"layer {first}" + (f" of {blocks}" if blocks else "") + f" in {model}")
        details.append(
            f"{model}: {number(errors[first])} NLL per token at layer {first}, then {number(errors[second])} at layer "
            f"{second}; {_other_layers(layers, first, evidence)}."
        )
    if not leads:
        return None
    lead = f"{', '.join(leads)} {'memorises' if len(leads) == 1 else 'memorise'} best (layers count from 0)."
    return Conclusion(LAYER, "Which layer?", (f"{lead[0].upper()}{lead[1:]}", *details))


def layer_differences(
    layers: Mapping[int, Sequence[Trial]], chosen: int, answers: Mapping[str, Answers]
) -> list[Comparison]:
    """Compare the FEVER answers of every other layer with the chosen one's, of the same seeds; p is corrected."""
    by_seed = {tuple(t.get(name) for name in SEEDS): t for t in layers[chosen]}
    others = [t for layer, own in layers.items() if layer != chosen for t in own]
    return compare_all(others, lambda t: by_seed.get(tuple(t.get(name) for name in SEEDS)), dict(answers))


def _other_layers(layers: Mapping[int, Sequence[Trial]], chosen: int, evidence: Evidence) -> str:
    compared = [of_fever(c) for c in layer_differences(layers, chosen, evidence.answers)]
    if not compared:
        return "what the layers answer was not compared"
    real = [d for d in compared if d.verdict]
    if not real:
        best = max(compared, key=lambda d: d.value)
        return (
            f"in FEVER accuracy no other layer differs from it (the best of them, layer {best.trial.get('layer')}: "
            f"{best.text()})"
        )
    told = [f"layer {d.trial.get('layer')} {'better' if d.verdict > 0 else 'worse'} ({d.text()})" for d in real]
    return f"in FEVER accuracy, against it: {'; '.join(told)}"


def _structure(evidence: Evidence) -> Conclusion | None:
    structured = [t for t in evidence.trained if is_structured(t)]
    if not structured:
        return None
    question = "Does structure help: which alpha, which allocation?"
    found = [of_fever(c) for c in evidence.against_plain]
    if found:
        better, worse, count = _verdicts(found)
        measured = "FEVER accuracy, against plain memorising at the same layer"
        if better or worse:
            lead = f"Of {count:,} structured memories {better:,} better and {worse:,} worse ({measured})."
        else:
            lead = f"No difference was found: {_none(count)} better or worse ({measured})."
        sentences = [lead, _extreme(found, lowest=bool(worse and not better))]
    else:
        sentences = [
            "No structured memory could be compared with plain memorising (no structure, alpha 0) of the same settings."
        ]
    for model in dict.fromkeys(t.model for t in structured):
        sentences += _best_memorised([t for t in structured if t.model == model], evidence.references)
    return Conclusion(STRUCTURE, question, tuple(sentences))


def _best_memorised(structured: Sequence[Trial], references: References) -> list[str]:
    """Say which structured memory of one model has the lowest error, among those with the most documents."""
    most = max(t.get("num_documents") for t in structured)
    own = [t for t in structured if t.get("num_documents") == most and t.metric(NLL) is not None]
    if not own:
        return []
    best = min(own, key=lambda t: t.metric(NLL) or 0.0)
    plain = references.plain(best)
    beside = f" (plain memorising: {number(plain.metric(NLL))})" if plain else ""
    return [
        f"{best.model}, {cell_text(most)} documents: of the structured memories {variant(best)} memorises best, "
        f"{number(best.metric(NLL))} NLL per token{beside}."
    ]


def _cost(evidence: Evidence) -> Conclusion | None:
    if not evidence.trained:
        return None
    question = "What does it cost: is something forgotten?"
    found = evidence.units.get(FORGETTING, ())
    if not found:
        told = f"Not asked; `python -m sweep.evaluate {evidence.sweep} --probe {FORGETTING}` asks the stored weights."
        return Conclusion(COST, question, (told,))
    names = {
        "nll": "NLL per token of documents that were not memorised",
        "general_nll": "NLL per token of a general text",
        "accuracy": "accuracy on claims about them",
    }
    sentences = []
    for score, name in names.items():
        own = [c for c in found if c.score == score]
        if own:
            worse, better = (sum(c.verdict == word for c in own) for word in ("worse", "better"))
            most = max(own, key=lambda c: (c.after - c.before) * (1 if c.lower else -1))
            middle = median(c.after - c.before for c in own)
            sentences.append(
                f"{name[0].upper()}{name[1:]}: {worse:,} of {len(own):,} trials worse, {better:,} better; the median "
                f"change is {number(middle, sign=True)}, the worst {number(most.after - most.before, sign=True)} "
                f"{interval_text(most.interval)} ({most.trial.model}, {variant(most.trial)}{_at(most.trial)})."
            )
    return Conclusion(COST, question, tuple(sentences))


def _sure(evidence: Evidence) -> Conclusion:
    sentences = []
    compared = evidence.against_pretrained or evidence.against_plain
    if compared:
        most = max(compared, key=lambda c: c.claims)
        reach = median((c.accuracy_interval[1] - c.accuracy_interval[0]) / 2 for c in compared)
        several = len({(c.claims, c.pages) for c in compared}) > 1
        count = len(compared)
        sentences.append(
            f"{'Up to ' if several else ''}{most.claims:,} claims on {most.pages:,} pages; intervals are drawn over "
            f"pages, p values are McNemar's exact ones, corrected (Holm) over {count:,} "
            f"{'comparison' if count == 1 else 'comparisons'}."
        )
        same = sum(not c.gained and not c.lost for c in compared)
        if same:
            sentences.append(f"In {same:,} of them no claim became right or wrong.")
        if reach > 0:
            sentences.append(
                f"The median interval reaches {number(reach)} to either side: smaller ones could hardly be found."
            )
        few = sum(c.pages < MIN_PAGES for c in compared)
        if few:
            which = "all of them" if few == count else f"{few:,} of them"
            sentences.append(f"In {which} there are fewer than {MIN_PAGES} pages: too few to call any difference real.")
    else:
        what, found = differences_from_pretrained(evidence)
        if found:
            reach = median((d.interval[1] - d.interval[0]) / 2 for d in found)
            sentences.append(
                f"{len(found):,} {'comparison' if len(found) == 1 else 'comparisons'} of the {what}, each with its "
                f"pretrained model; the median interval reaches {number(reach)} to either side: smaller ones could "
                "hardly be found."
            )
    sentences.append(_seeds(evidence.trained))
    lost = [
        f"{count:,} {word}"
        for word in ("failed", "diverged", "stopped")
        if (count := sum(t.status == word for t in evidence.trials))
    ]
    lost += [f"{evidence.missing:,} without a result yet"] if evidence.missing else []
    if lost:
        sentences.append(f"Not in it: {', '.join(lost)}.")
    if any(str(t.point.get("data", "")).startswith("sample@") for t in evidence.trials):
        sentences.append("Trials on the generated sample world say nothing about real models.")
    return Conclusion(SURE, "How sure is this?", tuple(filter(None, sentences)))


def _seeds(trained: Sequence[Trial]) -> str:
    names = [n for n in TOLD_APART if n not in SEEDS]
    groups: dict[str, list[Trial]] = {}
    for trial in trained:
        groups.setdefault(repr([trial.point.get(n) for n in names]), []).append(trial)
    if not groups:
        return ""
    counts = [len({tuple(t.get(n) for n in SEEDS) for t in own}) for own in groups.values()]
    if max(counts) == 1:
        return "Each setting was trained with one seed: how far another training would differ is not known."
    spreads = [_spread(own) for own in groups.values() if len(own) > 1]
    known = [value for value in spreads if value is not None]
    told = f", whose accuracy differs by {number(fmean(known))} (mean standard deviation)" if known else ""
    every = f"{counts[0]}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
    return f"Each setting was trained with {every} seeds{told}; seeds are compared each on its own."


def _spread(trials: Sequence[Trial]) -> float | None:
    values = [v for t in trials if (v := t.metric(ACCURACY)) is not None]
    return spread(values).sd if len(values) > 1 else None
