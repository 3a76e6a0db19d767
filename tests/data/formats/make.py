"""Makes `tests/data/formats/1`: what a sweep leaves behind, from a real run on a tiny random model.

Run once for each format, by the code of that time; the files are never made again, since later versions must read
these. From the top of the checkout, into an empty folder:

    python tests/data/formats/make.py tests/data/formats/1

Host names and the folders in tracebacks are replaced; nothing else is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SPACE = """
from sweep.space import ALL, Best, Space, Stage

best = Best(field="layer", stage="select", per=("model",))
space = Space(
    name="kept",
    title="one trial of each status",
    axes={"model": ["tiny"], "layer": [0, 2]},
    fixed={"data": "sample", "memory_dim": 8, "epochs": 4, "segment_tokens": 32, "num_documents": 2,
           "claims_per_page": 1, "checkpoint_every_s": 0, "counterfact_records": 1, "num_answers": 1},
    stages=(
        Stage(name="baseline", axes={"model": ALL}, fixed={"method": "pretrained"}),
        Stage(name="select", axes={"model": ALL, "layer": ALL},
              fixed={"probes": ("fever", "counterfact"), "allocation": "simset2", "alpha": 0.2}),
        Stage(name="diverges", axes={"model": ALL}, take=best, fixed={"lr": 1e30, "allocation": "simset2"}),
        Stage(name="fails", axes={"model": ALL}, take=best, fixed={"memory_dim": 10**12}),
    ),
)
"""
SAMPLED = """
from sweep.space import ALL, LogUniform, Sampling, Space, Stage

space = Space(
    name="sampled",
    title="trials stopped early",
    axes={"model": ["tiny"], "layer": [2]},
    fixed={"data": "sample", "memory_dim": 8, "epochs": 4, "segment_tokens": 32, "num_documents": 2,
           "claims_per_page": 1, "allocation": "simset2", "alpha": 0.2},
    stages=(
        Stage(name="tune", axes={"model": ALL, "layer": ALL},
              sampling=Sampling(fields={"lr": LogUniform(1e-5, 1e-1)}, num_samples=6, grace_epochs=1)),
    ),
)
"""
BESIDE = ("predictions.parquet", "memory.safetensors", "analysis.json", "samples.json")


def make_model(folder: Path, texts: Iterator[str]) -> None:
    """Save a random model of two small blocks and a tokenizer of the sample world's language."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(sorted(texts), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def leave_checkpoint(record: dict[str, Any], place: Path) -> None:
    """Stop a trial after its first epoch, as the driver does with its stop file."""
    import torch

    from trainables.pack.process_cache import ProcessCache
    from trainables.pack.worker import PackWork
    from trainables.trial.making import make_spec
    from trainables.trial.task import TrialTask

    named = {"model": record["model"]["given"], "data": record["data"]["given"]}
    spec = make_spec({**record["identity"], **named, "checkpoint_every_s": 0})
    stop = place.parent / "stop"
    stop.write_bytes(b"asked to")
    cache = ProcessCache(torch.device("cpu"), None)
    task = TrialTask(record["id"], spec, str(place.parent / "unused"), str(place)).to_dict()
    work = PackWork({"trials": [task], "trunk_layers": [], "stop_file": str(stop)}, cache)
    while not work.step()["done"]:
        pass
    stop.unlink()


def main(target: Path) -> None:
    """Run two sweeps in a folder of their own; keep all records, and the other files of one trial of each status."""
    from trainables.data.sample.world import ensure_sample_data

    root, target = Path.cwd(), target.absolute()
    pages = [json.loads(line)["text"] for p in ensure_sample_data().rglob("wiki-*.jsonl") for line in p.open()]
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        make_model(Path("tiny"), iter(pages))
        for name, space, status in (("kept", SPACE, 1), ("sampled", SAMPLED, 0)):  # one trial is meant to fail
            put(target / f"{name}.py").write_text(space.lstrip())
            command = [sys.executable, "-m", "sweep.run", str(target / f"{name}.py"), "--storage", "out"]
            command += ["--pack-size", "1"]
            done = subprocess.run([*command, "--max-concurrent", "2"], env={**os.environ, "PYTHONPATH": str(root)})
            assert done.returncode == status
        records = {p.parent: json.loads(p.read_text()) for p in sorted(Path("out").rglob("record.json"))}
        kept: dict[str, Path] = {}
        for folder, record in records.items():
            if record["status"] != "done" or record["stage"] in ("baseline", "select"):
                kept["pretrained" if record["stage"] == "baseline" else record["status"]] = folder
        assert kept.keys() == {"pretrained", "done", "failed", "diverged", "stopped"}, kept.keys()
        names = ("storage.json", "kept/plan.json", "kept/choices.json", "sampled/plan.json", "sampled/sampled.json")
        for name in names:
            shutil.copy(Path("out") / name, put(target / name))
        instead_of = {socket.gethostname(): "a-host", str(root): "memory-sweep", sys.prefix: ".venv"}
        for folder in records:
            text = (folder / "record.json").read_text()
            for found, instead in instead_of.items():
                text = text.replace(found, instead)
            text = re.sub(r'(?<=File \\")/[^"]*/_ray_pkg_[^/]*/', "", text)
            place = target / folder.relative_to("out")
            put(place / "record.json").write_text(text)
            for name in BESIDE:
                if folder in kept.values() and (folder / name).exists():
                    shutil.copy(folder / name, place / name)
        record = records[kept["done"]]
        leave_checkpoint(record, put(target / f"kept/checkpoints/{record['id']}.safetensors"))
        os.chdir(root)


def put(path: Path) -> Path:
    """Make the folder of a path and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    main(Path(sys.argv[1]))
