"""One contender of the measure `memory` in a process of its own: `python -m benchmarks.memory_child REQUEST`."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import obstore
import pyarrow.parquet
import sklearn.metrics
import torch
import transformers.models.gpt_neox.modeling_gpt_neox
import transformers.models.llama.modeling_llama

from benchmarks.common import split_of, start_pack
from benchmarks.plain import run_plain
from trainables.lm.weights import model_folder
from trainables.pack.process_cache import ProcessCache, StudyTexts
from trainables.trial.canonical import canonical
from trainables.trial.making import make_spec
from trainables.trial.spec import TrialSpec

SAMPLE_EVERY_S = 0.002
IMPORTED = (obstore, pyarrow.parquet, sklearn.metrics, transformers.models)
"""What a trial or its rival would import on the way: no part of what is measured."""
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
Bytes = dict[str, int]


class HostPeak:
    """Most bytes of this process's resident memory: all of it as the kernel keeps it, parts of it as sampled.

    `anon` is what the process alone holds; `file` are pages of mapped files (weights, hidden states), which all
    processes of the machine share and the kernel may drop. The two may peak at different times.
    """

    def __init__(self) -> None:
        """Start from what is resident now."""
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._base = _resident()
        self._most: Bytes = {}
        self.take()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY_S):
            self._note(_resident())

    def _note(self, now: Bytes) -> None:
        with self._lock:
            for part in ("anon", "file"):
                self._most[part] = max(self._most.get(part, 0), now[part])

    def take(self) -> Bytes:
        """Return the most since last asked, above what was there at the beginning."""
        now = _resident()
        self._note(now)
        with self._lock:
            found, self._most = {**self._most, "all": now["peak"]}, {}
        _CLEAR.write_text("5")  # sets the kernel's peak back to what is resident now
        self._note(_resident())
        return {part: value - self._base[part] for part, value in found.items()}

    def close(self) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()


class CudaPeak:
    """Most bytes of the GPU's memory that tensors took."""

    def __init__(self) -> None:
        """Start from what tensors take now."""
        self._base = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()

    def take(self) -> Bytes:
        """Return the most since last asked, above what was there at the beginning."""
        found = torch.cuda.max_memory_allocated() - self._base
        torch.cuda.reset_peak_memory_stats()
        return {"all": found}

    def close(self) -> None:
        """Nothing to do."""


def _resident() -> Bytes:
    """Return this process's resident bytes: in all, anonymous, of files, and the kernel's peak of all."""
    names = {"VmRSS": "all", "RssAnon": "anon", "RssFile": "file", "VmHWM": "peak"}
    fields = (line.split() for line in _STATUS.read_text().splitlines())
    return {names[name[:-1]]: int(rest[0]) * 1024 for name, *rest in fields if name[:-1] in names}


def measure(contender: str, settings: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Run one contender; return its peaks by phase, what was there before, the bytes of weights and the losses.

    Args:
        contender: `trial` (ours), `trunk` (hidden states of all texts) or `plain` (the whole model).
        settings: fields of the trial.
        device: where to compute.
    """
    spec = canonical(make_spec(dict(settings)))
    cache = ProcessCache(device, None)
    texts = cache.texts(spec)
    before = _resident()["all"] if _STATUS.exists() else 0
    peak = CudaPeak() if device.type == "cuda" else HostPeak()
    phases: dict[str, Bytes] = {}

    def end(phase: str) -> None:
        phases[phase] = peak.take()

    run: Callable[..., dict[str, Any]] = {"trial": _trial, "trunk": _trunk, "plain": _plain}[contender]
    found = run(spec, cache, texts, end)
    peak.close()
    return {"before": before, "phases": phases, **found}


def _trial(spec: TrialSpec, cache: ProcessCache, texts: StudyTexts, end: Callable[[str], None]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        run = start_pack([spec], cache, folder)
        end("load")
        while not run.done:
            run.step()
        end("train")
        (result,) = run.finish()
        end("evaluate")
        weights = sum(parameter.nbytes for parameter in split_of(run).upper.parameters())
        return {"weights": weights, "curve": [value for _, value in result.curves["train/nll"]]}


def _trunk(spec: TrialSpec, cache: ProcessCache, texts: StudyTexts, end: Callable[[str], None]) -> dict[str, Any]:
    assert spec.layer is not None
    trees = [text.tree for text in texts.segments] + [tree for probe in texts.probes.values() for tree in probe.prompts]
    states = cache.parts(spec).hidden_states().get(trees, spec.layer)
    end("trunk")
    return {"hidden": sum(state.nbytes for state in states)}


def _plain(spec: TrialSpec, cache: ProcessCache, texts: StudyTexts, end: Callable[[str], None]) -> dict[str, Any]:
    card, tokenizer = cache.card(spec), cache.tokenizer(spec)
    curve = run_plain(card, spec, texts, tokenizer, device=cache.device).curve
    end("all")
    return {"weights": sum(file.stat().st_size for file in model_folder(card).glob("*.safetensors")), "curve": curve}


def main(request: str) -> None:
    """Answer a request of `benchmarks.memory`, JSON both ways."""
    asked = json.loads(request)
    torch.set_num_threads(asked["threads"])
    print(json.dumps(measure(asked["contender"], asked["settings"], torch.device(asked["device"]))))


if __name__ == "__main__":
    main(sys.argv[1])
