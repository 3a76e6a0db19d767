"""What the measures share: rounds in turn, ratios with their spread, the machine, model shapes, the JSON file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import torch
import typer

from trainables.adapters.split import SplitAdapter
from trainables.data.sources import is_named, resolve_sources
from trainables.errors import ConfigError
from trainables.lm.card import ALIASES
from trainables.node.cache_dir import cache_dir, user_path
from trainables.node.machine import usable_cores
from trainables.pack.process_cache import ProcessCache, StudyTexts
from trainables.pack.run import PackRun
from trainables.probes.fever.probe import FeverProbe
from trainables.probes.fever.questions import FeverQuestions
from trainables.trial.identity import identity, trial_id
from trainables.trial.spec import TrialSpec
from trainables.trial.task import TrialTask

Table = dict[str, Any]
OUT = Path("benchmarks.json")
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Most by which losses of the same trial may differ; bfloat16 has 8 bits of mantissa."""
_TOKENIZER_TEXTS = 300


def _kept(out: Path) -> Table:
    """Return the tables that a file holds.

    Raises:
        ConfigError: it holds something else.
    """
    if not out.exists():
        return {}
    try:
        found: Table = json.loads(out.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{out}: tables cannot be added to it: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{out}: tables cannot be added to it: it holds no JSON object")
    return found


def _can_be_kept(out: Path) -> Path:
    _kept(out)
    return out


Model = Annotated[str, typer.Option(help="folder, sample model, or alias (its shape with random weights)")]
Data = Annotated[str, typer.Option(help="sample, hub or a folder")]
Documents = Annotated[int, typer.Option(min=1, help="pages memorised, all their claims asked")]
Epochs = Annotated[int, typer.Option(min=1)]
Depth = Annotated[float, typer.Option(help="where the memory is")]
MemoryDim = Annotated[int, typer.Option(min=1)]
Device = Annotated[Literal["cpu", "cuda"], typer.Option()]
DType = Annotated[Literal["float32", "bfloat16"], typer.Option()]
Repeats = Annotated[int, typer.Option(min=1, help="interleaved rounds")]
OutFile = Annotated[Path, typer.Option("--out", callback=_can_be_kept, help="JSON file that the table is added to")]


class NotTheSame(Exception):
    """Two programs that should compute the same thing did not, so no ratio is printed."""


def in_turn(contenders: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Run every contender once a round, so that a slow minute of the machine meets all of them.

    Args:
        contenders: each returns its own measure, in seconds.
        repeats: rounds.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            found[name].append(run())
    return found


def seconds(run: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median with the lowest and highest value."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def ratio(rival: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """Return how many times longer the rival takes, round by round, as median, min and max."""
    return spread([theirs / mine for theirs, mine in zip(rival, ours, strict=True)])


def told(value: Mapping[str, float], digits: int = 2) -> str:
    """Return a spread as text: `2.15 (2.06 to 2.24)`."""
    return f"{value['median']:.{digits}f} ({value['min']:.{digits}f} to {value['max']:.{digits}f})"


def check_close(name: str, what: str, mine: Sequence[float], theirs: Sequence[float], tolerance: float) -> None:
    """Compare the same figures of two programs.

    Raises:
        NotTheSame: they differ by more than `tolerance`, or there are not as many.
    """
    if len(mine) != len(theirs):
        raise NotTheSame(f"{name}: {len(theirs)} {what} instead of {len(mine)}")
    for one, other in zip(mine, theirs, strict=True):
        if not abs(one - other) <= tolerance:  # nor may one be NaN
            raise NotTheSame(f"{name}: {what} differ by {abs(one - other):.2e}, more than {tolerance:g}")


def fever_questions(texts: StudyTexts) -> FeverQuestions:
    """Return the claims of a trial that asks FEVER about pages with claims."""
    probe = texts.probes["fever"]
    assert isinstance(probe, FeverProbe)
    return probe.questions


def split_of(run: PackRun) -> SplitAdapter[Any]:
    """Return the adapter of a run that acts between two blocks."""
    assert isinstance(run.adapter, SplitAdapter)
    return run.adapter


def start_pack(specs: Sequence[TrialSpec], cache: ProcessCache, folder: str) -> PackRun:
    """Start some trials as one pack that writes into `folder`; loading and the trunk pass are done on return."""
    tasks = [TrialTask(trial_id(identity(spec)), spec, folder, f"{folder}/checkpoint") for spec in specs]
    return PackRun(tasks, cache, (), [None] * len(tasks))


def ask_process(module: str, arguments: Sequence[str], settings: Mapping[str, str] | None = None) -> Table:
    """Run `python -m MODULE ARGUMENTS` and return the JSON of its last line.

    Args:
        module: what is run.
        arguments: its arguments.
        settings: environment variables to set.

    Raises:
        RuntimeError: it failed; with the end of what it wrote on stderr.
    """
    path = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    ran = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path, **(settings or {})},
    )  # fmt: skip
    if ran.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)}: {ran.stderr.strip()[-2000:]}")
    found: Table = json.loads(ran.stdout.splitlines()[-1])
    return found


def machine() -> Table:
    """Return what the figures were measured on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": platform.machine(),
        "cores": usable_cores(),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }


def keep(out: Path, measure: str, table: Table) -> None:
    """Write a measure's table into the JSON file beside the others that are there."""
    found = _kept(out)
    command = " ".join(["python", "-m", "benchmarks", *sys.argv[1:]])
    found[measure] = {"machine": machine(), "command": command, **table}
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def rising_numbers(text: str) -> list[int]:
    """Return the numbers of `N,N,…`.

    Raises:
        ConfigError: not two or more different whole numbers above 0, in rising order.
    """
    parts = text.split(",")
    counts = [int(part) for part in parts if part.strip().isdigit()]
    if len(counts) < max(2, len(parts)) or counts != sorted(set(counts)) or counts[0] < 1:
        raise ConfigError(f"{text!r}: must be two or more rising whole numbers joined by commas")
    return counts


def own_data(data: str) -> str:
    """Return data as a process with another cache and working folder finds them: absolute folders, also for `sample`.

    Raises:
        ConfigError: data that do not go together.
        DataError: there are no such data.
    """
    from trainables.data.sample.world import ensure_sample_data

    def absolute(name: str) -> str:
        folder = ensure_sample_data() if name == "sample" else user_path(name)
        return name if name != "sample" and is_named(name) else str(folder.resolve())

    names = [name.strip() for name in data.split(",")]
    resolve_sources(",".join(name for name in names if name == "sample" or not is_named(name)) or "sample")
    return ",".join(map(absolute, names))


def shape_folder(alias: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """Return a model folder of an alias's shape with random weights; made at first use, then kept.

    Speed and memory depend on the shape only. The tokenizer is made for the sample world.

    Args:
        alias: `pythia-160m` and so on.
        dtype: of the weights.
        seed: of the weights.
    """
    from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig

    from trainables.lm.sample.train import train_tokenizer

    shape = ALIASES[alias]
    folder = cache_dir() / "shapes" / f"{alias}-{str(dtype).removeprefix('torch.')}"
    if (folder / "tokenizer.json").exists():
        return folder
    same = {
        "hidden_size": shape.model_dim,
        "intermediate_size": shape.intermediate_dim,
        "num_hidden_layers": shape.num_blocks,
        "num_attention_heads": shape.num_heads,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": shape.tied,
    }
    config = LlamaConfig(**same) if shape.family == "llama" else GPTNeoXConfig(**same)
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    train_tokenizer("sample-neox", _TOKENIZER_TEXTS).save_pretrained(folder)
    return folder


def local_model(name: str, dtype: torch.dtype = torch.float32) -> str:
    """Return what to load without a download: an alias means its shape with random weights."""
    return str(shape_folder(name, dtype)) if name in ALIASES else name
