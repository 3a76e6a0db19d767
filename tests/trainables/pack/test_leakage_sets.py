"""A plain memory's leakage out of the very sets that structured ones have, against a computation of its own."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainables.data.corpus import load_corpus
from trainables.errors import ConfigError
from trainables.pack.process_cache import ProcessCache
from trainables.pack.worker import PackWork
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity, trial_id
from trainables.trial.making import make_spec
from trainables.trial.task import TrialTask

LAYER, ENTRIES = 1, 32


@pytest.fixture(scope="module")
def cache() -> ProcessCache:
    return ProcessCache(torch.device("cpu"), 10**9)


@pytest.fixture
def base(tiny_models, sample_data) -> dict:
    return {
        "model": str(tiny_models["gpt_neox"]), "data": str(sample_data), "layer": LAYER, "memory_dim": ENTRIES,
        "num_documents": 5, "epochs": 2, "segment_tokens": 40, "max_segments": 3, "lr": 1e-2, "claims_per_page": 1,
    }  # fmt: skip


def run(values: dict, folder: Path, cache: ProcessCache, *more: dict) -> tuple[dict, Path]:
    """Run trials as one pack; return the first one's metrics and folder."""
    tasks = []
    for each in (values, *more):
        spec = make_spec(each)
        name = trial_id(identity(spec))
        tasks.append(TrialTask(name, canonical(spec), str(folder / name), str(folder / "checkpoints" / name)))
    work = PackWork({"trials": [task.to_dict() for task in tasks], "trunk_layers": []}, cache)
    results: dict[str, dict] = {}
    while True:
        report = work.step()
        results |= {result["id"]: result for result in report["results"]}
        if report["done"]:
            return results[tasks[0].id]["metrics"], folder / tasks[0].id


def texts_of(base: dict) -> tuple[list[list[list[int]]], object]:
    """The documents' segments, read and cut by hand, and the whole model."""
    tokenizer = AutoTokenizer.from_pretrained(base["model"])
    documents = load_corpus(base["data"]).select(base["num_documents"]).documents
    cut = []
    for document in documents:
        ids = tokenizer(document.text)["input_ids"]
        parts = [ids[start : start + 40] for start in range(0, len(ids), 40)][:3]
        cut.append([part for part in parts if len(part) > 1])
    return cut, AutoModelForCausalLM.from_pretrained(base["model"])


def energies(base: dict, folder: Path, cut: list, model) -> list[np.ndarray]:
    """Each document's squared activations after GELU, `[tokens, entries]`."""
    weights = load_file(folder / "memory.safetensors")
    seen: list[torch.Tensor] = []
    handle = model.gpt_neox.layers[LAYER].register_forward_hook(
        lambda _m, _i, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    found = []
    with torch.no_grad():
        for segments in cut:
            seen.clear()
            for part in segments:
                model(torch.tensor([part]))
            hidden = torch.cat([states.reshape(-1, states.shape[-1]) for states in seen])
            act = torch.nn.functional.gelu(hidden @ weights["up.weight"].T + weights["up.bias"])
            found.append(act.square().double().numpy())
    handle.remove()
    return found


def groups_by_hand(cut: list, num_clusters: int) -> list[set[int]]:
    """Complete linkage over one minus Jaccard of token sets: the two groups merged whose farthest pair is nearest."""
    sets = [set(token for part in segments for token in part) for segments in cut]
    groups = [{i} for i in range(len(cut))]

    def apart(a: set[int], b: set[int]) -> float:
        return max(1 - len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i in a for j in b)

    while len(groups) > num_clusters:
        a, b = min(combinations(groups, 2), key=lambda pair: apart(*pair))
        groups = [g for g in groups if g not in (a, b)] + [a | b]
    return sorted(groups, key=min)


def mean_leakage(energy: list[np.ndarray], groups: list[set[int]], owned: list[set[int]]) -> float:
    """Mean over tokens of the share of energy outside the entries of the document's group."""
    shares = []
    for document, rows in enumerate(energy):
        group = next(g for g, members in enumerate(groups) if document in members)
        outside = [entry for entry in range(ENTRIES) if entry not in owned[group]]
        shares += list(rows[:, outside].sum(axis=1) / rows.sum(axis=1))
    return float(np.mean(shares))


def disjoint_by_length(cut: list, groups: list[set[int]]) -> list[set[int]]:
    """Entries in proportion to tokens, what is left over to the largest remainders, as blocks in order."""
    lengths = [sum(len(part) for d in members for part in cut[d]) for members in groups]
    exact = [ENTRIES * length / sum(lengths) for length in lengths]
    sizes = [int(share) for share in exact]
    assert min(sizes) >= 1
    for g in sorted(range(len(sizes)), key=lambda g: sizes[g] - exact[g])[: ENTRIES - sum(sizes)]:
        sizes[g] += 1
    starts = np.cumsum([0, *sizes])
    return [set(range(a, b)) for a, b in zip(starts, starts[1:], strict=False)]


def test_a_plain_memory_leaks_out_of_two_groups_as_much_as_by_hand(base, cache, tmp_path):
    metrics, folder = run({**base, "leakage_sets": "partitioned_g2"}, tmp_path, cache)
    cut, model = texts_of(base)
    energy = energies(base, folder, cut, model)
    singles, pairs = [{i} for i in range(len(cut))], groups_by_hand(cut, 2)
    two, each = (mean_leakage(energy, g, disjoint_by_length(cut, g)) for g in (pairs, singles))
    assert metrics["memory/leakage_partitioned_g2"] == pytest.approx(two, abs=2e-5)
    assert metrics["memory/leakage_partitioned"] == pytest.approx(each, abs=2e-5)
    assert two < each - 0.1


def test_a_structured_memory_and_a_plain_one_are_measured_out_of_the_same_sets(base, cache, tmp_path):
    """A memory whose loss hardly weighs is the plain one: so its leakage, by its own set, is the plain one's there."""
    for values, name in (
        ({"allocation": "simset2", "num_clusters": 2}, "simset2_g2"),
        ({"allocation": "simset1", "granularity": "token", "entries_per_group": 6}, "simset1-token_n6"),
        ({"allocation": "random", "mem_seed": 3, "num_clusters": 3}, "random_g3_s3"),
        ({"allocation": "simset3", "mem_seed": 1, "entries_per_group": 4}, "simset3_n4_s1"),
    ):
        plain, _ = run({**base, "leakage_sets": name}, tmp_path / name, cache, {**base, "lr": 0.02})
        own, _ = run({**base, **values, "alpha": 1e-9}, tmp_path / name / "own", cache)
        assert plain[f"memory/leakage_{name}"] == pytest.approx(own["memory/leakage"], abs=2e-5)
        other = plain[f"memory/leakage_{values['allocation']}"]
        assert abs(other - own["memory/leakage"]) > 0.01, "the default set would have shown the same"


def test_sets_do_not_change_an_id_and_unknown_ones_are_refused(base):
    assert trial_id(identity(make_spec({**base, "leakage_sets": ("simset2_g2",)}))) == trial_id(
        identity(make_spec(base))
    )
    for wrong in ("simset4", "none", "simset2_x3", "simset2_g"):
        with pytest.raises(ConfigError, match="names no entry set"):
            make_spec({**base, "leakage_sets": (wrong,)})
