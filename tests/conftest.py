"""Fixtures for all tests: the sample world's files, and tiny random models with a tokenizer of its language."""

from __future__ import annotations

import gc
import json
import logging
import os
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes to draw or to run says something about the machine only.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
pytest_plugins = ["tests.stand_ins", "tests.rows", "tests.tiers"]
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# The tests' tensors are tiny: threads would only wait for each other, on a busy machine for minutes.
os.environ["OMP_NUM_THREADS"] = "1"
# What a branch of the hub stands at, and what an earlier program downloaded, must not change the ids in the tests.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_CACHE"] = "/dev/null/huggingface"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collecting makes 800,000 objects that stay: looking through them again and again was a third of its time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _what_is_loaded_is_no_garbage() -> None:
    """Let Python's collector look only at what a file's tests make, and at no library.

    The tests' process holds all tests and every library; a full collection of them takes half a second, and what frees
    memory of models asks for one at each turn.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _gpu_or_skip(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def s3_options() -> Iterator[str]:
    """A real S3 server: `f"s3://bucket/PREFIX?{s3_options}"` is an address in it."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys).create_bucket(Bucket="bucket")
    where = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    yield f"{where}&access_key_id=key&secret_access_key=secret"
    server.stop()


@pytest.fixture(params=["folder", "memory", "s3", "real folders"])
def any_address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new address of each kind: a folder, an object store in memory, S3 over HTTP, a remote store with real folders.

    The last stands for file systems behind an address that are no folder here; it has no conditional puts on a version.
    """
    place = f"bucket/{uuid.uuid4().hex}"
    if request.param == "folder":
        return str(tmp_path / "out")
    if request.param == "memory":
        return f"memory://{place}"
    if request.param == "s3":
        return f"s3://{place}?{request.getfixturevalue('s3_options')}"
    from obstore.store import LocalStore

    monkeypatch.setattr("trainables.node.storage.connect", lambda *address: LocalStore(tmp_path))
    return f"folders://{place}"


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The sample world in FEVER's file layout."""
    from trainables.data.sample.world import ensure_sample_data

    return ensure_sample_data()


def _tokenizer(sample_data: Path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [json.loads(line)["text"] for p in sample_data.rglob("wiki-*.jsonl") for line in p.open()]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        sorted(texts), trainers.BpeTrainer(vocab_size=600, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> dict[str, Path]:
    """Folders of two random models: `llama` (tied head) and `gpt_neox`, four blocks each."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer(sample_data)
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    torch.manual_seed(0)
    models = {
        "llama": LlamaForCausalLM(LlamaConfig(**shape, num_key_value_heads=1, tie_word_embeddings=True)),
        "gpt_neox": GPTNeoXForCausalLM(GPTNeoXConfig(**shape, tie_word_embeddings=False)),
    }
    folders = {}
    for name, model in models.items():
        folders[name] = tmp_path_factory.mktemp("models") / f"tiny-{name}"
        model.save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="session")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for `MEMORY_SWEEP_CACHE`, with the two sample models after a few steps instead of a minute's."""
    from trainables.data.sample.facts import SAMPLE_VERSION
    from trainables.lm.sample.configs import SAMPLE_MODELS
    from trainables.lm.sample.train import Recipe, make_sample_model

    cache = tmp_path_factory.mktemp("untaught")
    for name in SAMPLE_MODELS:
        few = Recipe(seed_steps=3, grown_steps=2, batch_size=2, tokenizer_texts=100)
        make_sample_model(name, cache / f"{name}-v{SAMPLE_VERSION}", few)
    return cache


BASE: dict[str, Any] = {
    "model": "llama2-7b", "data": "hub", "content": "document+template", "num_documents": 5, "num_clusters": 2,
    "segment_tokens": 24, "max_segments": 2, "layer": 1, "memory_dim": 32, "allocation": "simset2",
    "entries_per_group": 3, "alpha": 1.0, "epochs": 1, "lr": 0.01, "grad_clip": 0.1, "warmup_steps": 3,
    "num_shots": 5, "claims_per_page": 3, "counterfact_records": 12, "num_answers": 2, "answer_tokens": 2,
    "probes": ("choices", "fever", "counterfact", "forgetting", "lm_eval", "recall"), "recall_tokens": 8,
    "eval_epochs": (0,), "lm_eval_tasks": ("even_numbers",),
    "lm_eval_folder": str(Path(__file__).parent / "data" / "lm_eval"),
    "heldout_documents": 3, "heldout_claims": 2,
}  # fmt: skip
OTHER: dict[str, Any] = {
    "model": "llama2-13b", "revision": "v2", "dtype": "bfloat16", "data": "sample",
    "allow_missing_pages": True, "detokenize": True,
    "method": "full_update", "content": "template", "template_loss": "answer", "template_facts": 60, "num_documents": 4,
    "page_order": "subjects", "num_clusters": 3, "grouping": "lsh", "segment_tokens": 20, "max_segments": 1, "layer": 2,
    "depth": 1.0,
    "memory_dim": 40, "norm_and_gate": False, "memory_precision": "bfloat16", "mode": "hard",
    "allocation": "random", "granularity": "token",
    "entries_per_group": 4, "mem_seed": 1, "alpha": 0.5, "epochs": 2, "batch_size": 64, "lr": 0.02,
    "weight_decay": 0.5, "warmup_steps": 0, "grad_clip": 1.0, "seed": 1, "num_shots": 4, "notes_labels": True,
    "epoch_order": "shards",
    "claims_per_page": 1, "eval_epochs": (), "probes": ("fever",), "counterfact_records": 2, "num_answers": 1,
    "answer_tokens": 1, "temperature": 0.5, "micro_batch_tokens": 64, "checkpoint_every_s": 0.0, "keep_memory": False,
    "keep_epochs": False,
    "recall_documents": 1, "recall_title": False, "recall_words": 3, "recall_tokens": 9,
    "heldout_documents": 2, "heldout_claims": 1, "general_text": __file__,
    "choices_by": "likelihood", "questions_per_document": 1, "lm_eval_tasks": ("even_numbers", "written_numbers"),
    "lm_eval_folder": str(Path(__file__).parent / "data" / "lm_eval_other"), "lm_eval_limit": 2, "lm_eval_shots": 1,
    "leakage_sets": ("simset2_g3",), "stage": "x", "rank": 3, "lora_alpha": 4.0, "lora_targets": ("mlp",),
    "virtual_tokens": 3, "key_dim": 3, "activation": "gelu", "negatives": "zero", "guidance_target": 6.0,
    "guidance_alpha": 1.0, "template_layer": 0, "start_from": "0123456789abcdef",
}  # fmt: skip


@pytest.fixture(scope="session")
def other_values() -> Callable[..., dict[str, Any]]:
    """Return a trial in which every field of a memory matters; with a field's name, another value of that field.

    `models` and `data`, two each, take the place of the hub's. A field that a memory has no use for is that of the
    first method that has: `like=` its name gives the trial to compare with.
    """
    from trainables.adapters.registry import ADAPTERS
    from trainables.trial.fields import Part
    from trainables.trial.spec import FIELDS

    def used_by(name: str) -> dict[str, Any]:
        parts = FIELDS[name].parts
        if not parts & Part.MEMORY or parts & Part.SCHEDULE or name == "depth" or name in ADAPTERS["memory"].uses():
            return {}
        return {"method": next(method for method in ADAPTERS if name in ADAPTERS[method].uses())}

    assert set(OTHER) == set(FIELDS), "give every field another value in OTHER"

    def make(
        name: str | None = None, models: tuple[str, ...] = (), data: tuple[str, ...] = (), like: str | None = None
    ) -> dict[str, Any]:
        places = {field: two for field, two in (("model", models), ("data", data)) if two}
        values = BASE | {field: two[0] for field, two in places.items()} | used_by(name or like or "model")
        if name is None:
            return values
        changed = {**values, name: places[name][1] if name in places else OTHER[name]}
        if name == "depth":
            del changed["layer"]
        assert changed[name] != values.get(name, FIELDS[name].default)
        return changed

    return make
