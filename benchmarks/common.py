"""What the measures share: rounds in turn, ratios with their spread, the machine, model shapes, the JSON file."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from trainables.cache import cache_dir
from trainables.models import ALIASES

Table = dict[str, Any]
OutFile = Annotated[Path, typer.Option("--out", help="JSON file that the table is added to")]
OUT = Path("benchmarks.json")
_TOKENIZER_TEXTS = 300


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


def machine() -> Table:
    """Return what the figures were measured on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }


def keep(out: Path, measure: str, table: Table) -> None:
    """Write a measure's table into the JSON file beside the others that are there."""
    found: Table = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    command = " ".join(["python", "-m", "benchmarks", *sys.argv[1:]])
    found[measure] = {"machine": machine(), "command": command, **table}
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def shape_folder(alias: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """Return a model folder of an alias's shape with random weights; made at first use, then kept.

    Speed and memory depend on the shape only. The tokenizer is made for the sample world.

    Args:
        alias: `pythia-160m` and so on.
        dtype: of the weights.
        seed: of the weights.
    """
    from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig

    from trainables.sample.models import train_tokenizer

    shape = ALIASES[alias]
    folder = cache_dir() / "shapes" / f"{alias}-{str(dtype).removeprefix('torch.')}"
    if (folder / "tokenizer.json").exists():
        return folder
    same = {
        "hidden_size": shape["model_dim"], "intermediate_size": shape["intermediate_dim"],
        "num_hidden_layers": shape["num_blocks"], "num_attention_heads": shape["num_heads"],
        "vocab_size": shape["vocab_size"], "max_position_embeddings": 2048, "tie_word_embeddings": shape["tied"],
    }
    config = LlamaConfig(**same) if shape["family"] == "llama" else GPTNeoXConfig(**same)
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    train_tokenizer("sample-neox", _TOKENIZER_TEXTS).save_pretrained(folder)
    return folder


def local_model(name: str, dtype: torch.dtype = torch.float32) -> str:
    """Return what to load without a download: an alias means its shape with random weights."""
    return str(shape_folder(name, dtype)) if name in ALIASES else name
