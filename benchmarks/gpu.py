"""Packs on one GPU against the whole model with a hook: for an H100, five minutes, nothing downloaded or written.

Models are shapes with random weights. Every arm takes the same steps on the same texts; where losses differ, no figure
is printed. `--tiny` runs all of it on the CPU, in miniature, to see that it works.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Annotated

import torch
import typer
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import OUT, TOLERANCE, OutFile, Table, check_close, keep
from benchmarks.launches import as_on_a_gpu, launches
from benchmarks.random_model import PlainTraining, RandomModel
from trainables.errors import ConfigError
from trainables.lm.aliases import MODELS, Alias
from trainables.lm.cuda_graphs import CudaGraphs
from trainables.lm.placement import free_memory
from trainables.lm.recorded import Recordings

DEPTH = 0.75
"""Where the memory is, as in the study's own trials."""
MODELS_THERE = ("pythia-410m", "pythia-1b", "pythia-6.9b")
TOKENS = (64, 128, 256)
"""Mean tokens of the four texts of a step."""
DIMS = (128, 4096)
SIZES = (1, 2, 4, 8, 16)
STEPS = 4
"""Steps whose losses are compared: more than are taken before a pass is recorded (`recorded.USES_BEFORE`)."""
LEAST_S = 0.3
"""Seconds of steps that make one figure (ours: 90 figures in two minutes)."""
TARGETS = (
    "pythia-410m, 512 tokens a step, 128 entries: K = 1 at least 2 times plain, K = 8 at least 5 times",
    "pythia-6.9b, 512 tokens a step, 128 entries: K = 1 at least 2 times plain",
    "half of the card's matmul speed at the plateau",
)


def lengths_of(tokens: int) -> tuple[int, int, int, int]:
    """Return the lengths of four ragged texts of so many tokens each, on average."""
    return tokens * 3 // 4, tokens, tokens * 9 // 8, 4 * tokens - tokens * 3 // 4 - tokens - tokens * 9 // 8


def matmul_flop_per_s(dtype: torch.dtype, device: torch.device) -> float:
    """Return the speed at which the device multiplies large matrices."""
    size = 8192 if device.type == "cuda" else 256
    one = torch.randn(size, size, device=device).to(dtype)
    taken = seconds_a_step(lambda: one @ one, device)
    return float(2 * size**3 / taken)


def wait(device: torch.device) -> None:
    """Wait for a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_a_step(step: Callable[[], object], device: torch.device, least_s: float = LEAST_S) -> float:
    """Return the mean seconds of a step, after two that warm it up."""
    for _ in range(2):
        step()
    wait(device)
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < least_s or steps < 3:
        for _ in range(3):  # not to wait for every one
            step()
        steps += 3
        wait(device)
    return (time.perf_counter() - start) / steps


@contextmanager
def peak_bytes(device: torch.device) -> Iterator[dict[str, float]]:
    """Note the most bytes of a GPU that are held in a `with` block; 0 on a CPU."""
    found = {"peak_bytes": 0.0}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield found
    if device.type == "cuda":
        found["peak_bytes"] = float(torch.cuda.max_memory_allocated(device))


def busy(step: Callable[[], object], device: torch.device) -> Table:
    """Return how many kernels a step has on a GPU and how long they compute; nothing on a CPU."""
    if device.type != "cuda":
        return {}
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as found:
        step()
        wait(device)
    kernels = [event for event in found.events() or () if event.device_type.name == "CUDA"]
    return {"kernels": len(kernels), "busy_s": sum(event.device_time for event in kernels) / 1e6}


def ours(
    model: RandomModel, members: int, memory_dim: int, least_s: float, recorded: bool = True
) -> tuple[Table, list[float]]:
    """Train a pack; return its figures, and the first member's loss in each of its first steps."""
    with peak_bytes(model.device) as peak, model.attending("text_by_text"):
        pack = model.pack(members, memory_dim)
        pack.upper.recordings = Recordings(CudaGraphs() if recorded and model.device.type == "cuda" else None)
        finite = torch.ones(members, dtype=torch.bool, device=model.device)
        places = range(len(model.texts))

        def step() -> Tensor:
            return pack.training.step(pack.states[pack.layer].train.batch(places), finite).objective

        losses = [float(step()[0]) for _ in range(STEPS)]
        count, told = launches(step).total(), busy(step, model.device)
        taken = seconds_a_step(step, model.device, least_s)
        flops = members * pack.train_flops(1)
    tokens = members * sum(map(len, model.texts))
    return {
        "tokens_per_s": tokens / taken,
        "launches": count,
        "flop_per_s": flops / taken,
        "step_s": taken,
        **told,
        **peak,
    }, losses


def plain(model: RandomModel, memory_dim: int, least_s: float, lora: bool = False) -> tuple[Table, list[float]]:
    """Train a memory in a hook of the whole model, or a LoRA by peft; return figures and the first three losses."""
    with peak_bytes(model.device) as peak, model.attending("sdpa"):
        training = PlainTraining(model, memory_dim, lora)
        try:
            losses = [float(training.step()) for _ in range(STEPS)]
            count, told = launches(training.step).total(), busy(training.step, model.device)
            taken = seconds_a_step(training.step, model.device, least_s)
        finally:
            training.end()
    speed = sum(map(len, model.texts)) / taken
    return {"tokens_per_s": speed, "launches": count, "step_s": taken, **told, **peak}, losses


def processes(count: int, arguments: Sequence[str]) -> float:
    """Return the tokens a second of so many plain programs at a time, all together."""
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    try:
        for each in started:
            assert each.stdout is not None
            each.stdout.readline()  # it is ready
        for each in started:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        return sum(float(each.communicate()[0].split()[-1]) for each in started)
    finally:
        for each in started:
            each.kill()
            each.wait()


def one_process(name: str, tokens: int, memory_dim: int, tiny: bool) -> None:
    """Be one of several plain programs: say when it is ready, wait for a word, print tokens a second."""
    shape, layer, dtype, device = setting(name, tiny)
    model = RandomModel(shape, layer, dtype, device)
    model.draw_texts(lengths_of(tokens))
    with model.attending("sdpa"):
        training = PlainTraining(model, memory_dim)
        for _ in range(3):
            training.step()
        wait(device)
        print("ready", flush=True)
        sys.stdin.readline()
        taken = seconds_a_step(training.step, device, 0.1 if tiny else 3.0)
    print(sum(map(len, model.texts)) / taken, flush=True)


def setting(name: str, tiny: bool) -> tuple[Alias, int, torch.dtype, torch.device]:
    """Return a model's shape, the memory's block, the type of its numbers and the device."""
    if MODELS.get(name) is None or MODELS[name].family != "gpt_neox":
        raise ConfigError(f"model={name}: this measure has the shapes of Pythia's models only, such as pythia-410m")
    shape = MODELS[name]
    if tiny:
        shape = replace(
            shape, num_blocks=4, model_dim=32, intermediate_dim=64, num_heads=2, num_kv_heads=2, head_dim=16,
            vocab_size=500, positions=128,
        )  # fmt: skip
    dtype = torch.float32 if tiny else torch.bfloat16
    return shape, round(DEPTH * shape.num_blocks) - 1, dtype, torch.device("cpu" if tiny else "cuda")


def compare(name: str, tiny: bool, tokens: Sequence[int], dims: Sequence[int], sizes: Sequence[int]) -> Table:
    """Measure all arms of one model.

    Raises:
        NotTheSame: the first member of a pack has other losses than the plain program.
    """
    shape, layer, dtype, device = setting(name, tiny)
    least_s = 0.01 if tiny else LEAST_S
    model = RandomModel(shape, layer, dtype, device)
    speed, rows = matmul_flop_per_s(dtype, device), []
    for mean in tokens:
        model.draw_texts(lengths_of(mean))
        for dim in dims:
            rival, expected = plain(model, dim, least_s)
            row: Table = {"tokens": 4 * mean, "memory_dim": dim, "plain": rival, "ours": {}, "kernel_by_kernel": {}}
            for members, (arm, recorded) in product(sizes, (("ours", True), ("kernel_by_kernel", False))):
                free_memory(device)
                try:
                    found, losses = ours(model, members, dim, least_s, recorded)
                except torch.cuda.OutOfMemoryError:
                    break
                check_close(f"{name}, {arm}, K = {members}", "losses", losses, expected, TOLERANCE[str(dtype)[6:]])
                found["share_of_matmul"] = found["flop_per_s"] / speed
                row[arm][str(members)] = found
            rows.append(row)
        free_memory(device)
        rows[-1]["peft_lora"], _ = plain(model, dims[0], least_s, lora=True)
    return {"model": name, "layer": layer, "blocks": shape.num_blocks, "dtype": str(dtype)[6:], "device": device.type,
            "matmul_flop_per_s": speed, "rows": rows}  # fmt: skip


def lines(table: Table) -> list[str]:
    """Return one model's figures as text."""
    shown = [
        f"{table['model']}, {table['dtype']} on {table['device']}, memory above block {table['layer']} of "
        f"{table['blocks']}; large products at {table['matmul_flop_per_s'] / 1e12:.3g} TFLOP/s; same losses"
    ]
    for row in table["rows"]:
        rival = row["plain"]
        shown.append(f"  {row['tokens']} tokens a step, {row['memory_dim']} entries")
        shown.append(_line("plain", rival, rival))
        for members, found in row["ours"].items():
            shown.append(_line(f"ours, K = {members}", found, rival))
            if members in row["kernel_by_kernel"]:
                shown.append(_line("  not recorded", row["kernel_by_kernel"][members], rival))
        if "peft_lora" in row:
            shown.append(_line("peft LoRA, rank 8", row["peft_lora"], rival))
        if "processes" in row:
            shown.append(_line(f"{row['processes']['count']:.0f} plain processes", row["processes"], rival))
    return shown


def _line(name: str, found: Table, rival: Table) -> str:
    speed = (
        f"{found['tokens_per_s']:12,.0f} member tokens/s {found['tokens_per_s'] / rival['tokens_per_s']:6.2f} x plain"
    )
    more = f"{found['launches']:6d} launches a step" if "launches" in found else ""
    if "busy_s" in found:
        more += f", GPU busy {1e3 * found['busy_s']:.2f} of {1e3 * found['step_s']:.2f} ms"
    share = f"{found['share_of_matmul']:6.1%} of matmul" if "share_of_matmul" in found else ""
    peak = f"{found['peak_bytes'] / 2**30:6.1f} GiB" if found.get("peak_bytes") else ""
    return "  ".join(filter(None, [f"    {name:<18}{speed}", more, share, peak]))


def command(
    model: Annotated[list[str] | None, typer.Option(help="shape by its alias; repeatable")] = None,
    tokens: Annotated[list[int] | None, typer.Option(min=4, help="mean of a step's four texts; repeatable")] = None,
    memory_dim: Annotated[list[int] | None, typer.Option(min=1, help="entries of a memory; repeatable")] = None,
    members: Annotated[list[int] | None, typer.Option(min=1, help="size of a pack; repeatable")] = None,
    tiny: Annotated[bool, typer.Option(help="in miniature on the CPU, to see that it works")] = False,
    at_a_time: Annotated[int, typer.Option("--processes", min=0, help="plain programs at a time, first shape")] = 4,
    out: OutFile = OUT,
) -> None:
    """Compare packs of K memories on one GPU with the whole model and a hook, K processes of that, and peft's LoRA."""
    if not tiny and not torch.cuda.is_available():
        typer.echo("gpu: torch sees no CUDA device here; run it on one, or try it with --tiny", err=True)
        raise typer.Exit(2)
    names = model or (MODELS_THERE[:1] if tiny else MODELS_THERE)
    usual: tuple[Sequence[int], ...] = ((8,), (16,), (1, 2)) if tiny else (TOKENS, DIMS, SIZES)
    means, dims, sizes = (given or few for given, few in zip((tokens, memory_dim, members), usual, strict=True))
    tables = []
    with as_on_a_gpu():
        for name in names:
            tables.append(compare(name, tiny, means, dims, sizes))
            free_memory(torch.device("cpu" if tiny else "cuda"))
            if name == names[0] and at_a_time:
                mean = means[len(means) // 2]
                row = next(r for r in tables[-1]["rows"] if (r["tokens"], r["memory_dim"]) == (4 * mean, dims[0]))
                speed = processes(at_a_time, [name, str(mean), str(dims[0]), str(int(tiny))])
                row["processes"] = {"count": float(at_a_time), "tokens_per_s": speed}
            typer.echo("\n".join(lines(tables[-1])))
    keep(out, "gpu", {"models": tables, "targets": list(TARGETS)})
    typer.echo("\n".join(["targets on one H100:", *(f"  {target}" for target in TARGETS)]))


if __name__ == "__main__":
    shape_name, mean_tokens, entries, is_tiny = sys.argv[1:]
    one_process(shape_name, int(mean_tokens), int(entries), bool(int(is_tiny)))
