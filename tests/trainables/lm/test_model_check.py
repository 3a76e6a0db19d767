"""A model that is not whole is refused on the driver, by one line that names tensor and file."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families import CONFIGS, save_family  # type: ignore[import-not-found]
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from trainables.errors import ConfigError, DataError
from trainables.lm.card import ModelCard, model_card
from trainables.lm.model_check import _check_names, check_models
from trainables.lm.reference import WholeModel
from trainables.lm.token_tree import TokenTree, collate
from trainables.lm.trunk import Trunk
from trainables.lm.upper import load_upper
from trainables.lm.weight_headers import tensors_of
from trainables.node.machine import check_device
from trainables.trial.canonical import canonical
from trainables.trial.spec import TrialSpec

FP32 = torch.float32
Edit = Callable[[Path], None]


@pytest.fixture
def folder(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(tiny_models["gpt_neox"], tmp_path / "a, b" / "model")


def card_of(folder: Path) -> ModelCard:
    model_card.cache_clear()
    return model_card(str(folder))


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Edit:
    def edit(folder: Path) -> None:
        held = load_file(folder / "model.safetensors")
        change(held)
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def as_bin(change: Callable[[dict[str, Tensor]], object] = lambda held: None) -> Edit:
    def edit(folder: Path) -> None:
        held: dict[str, Any] = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(change(held) or held, folder / "pytorch_model.bin")

    return edit


def shards(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")


def then(*edits: Edit) -> Edit:
    def edit(folder: Path) -> None:
        for each in edits:
            each(folder)

    return edit


def config(**values: Any) -> Edit:
    def edit(folder: Path) -> None:
        held = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(held | values))

    return edit


def cut(name: str, share: float) -> Edit:
    def edit(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return edit


def pointer(name: str) -> Edit:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
    return lambda folder: (folder / name).write_text(text) and None


def without(pattern: str) -> Edit:
    return lambda folder: [path.unlink() for path in sorted(folder.glob(pattern))[1:2]] and None


class Malicious:
    def __reduce__(self) -> Any:
        return (print, ("this must not run",))


UP = "gpt_neox.layers.2.mlp.dense_h_to_4h.weight"
LORA = UP.replace(".weight", ".base_layer.weight")
SHARD = "model-00002-of-*.safetensors"

FAULTS: dict[str, tuple[Edit, str]] = {
    "a missing tensor": (tensors(lambda t: t.pop(UP)), rf"model.safetensors: no tensor '{UP}', which config"),
    "a missing tensor in a .bin": (
        as_bin(lambda t: {n: v for n, v in t.items() if n != UP}), f"pytorch_model.bin: no tensor '{UP}'"
    ),
    "several": (tensors(lambda t: [t.pop(n) for n in list(t) if "layers.2" in n]), r"no tensor .* \(nor 11 others\)"),
    "an unmerged LoRA": (tensors(lambda t: t.update({LORA: t.pop(UP)})), f"tensor '{LORA}' belongs to an adapter"),
    "LoRA tensors beside": (
        tensors(lambda t: t.update({UP.replace("weight", "lora_A.default.weight"): torch.zeros(2, 32)})),
        "belongs to an adapter that was not merged; merge it",
    ),
    "a wrong shape": (
        tensors(lambda t: t.update({UP: torch.zeros(64, 31)})),
        rf"model.safetensors: tensor '{UP}' is \[64, 31\], .*\[64, 32\]",
    ),
    "another model's config": (config(num_hidden_layers=3), r"tensor 'gpt_neox.layers.3.* has no place"),
    "more blocks than there are": (config(num_hidden_layers=5), "no tensor 'gpt_neox.layers.4"),
    "a parameter that the config leaves out": (
        config(attention_bias=False), r"tensor 'gpt_neox.layers.0.attention.*bias' has no place"
    ),
    "a smaller vocabulary": (config(vocab_size=500), r"tensor 'embed_out.weight' is|tensor '.*embed.*' is"),
    "weights cut short": (cut("model.safetensors", 0.7), r"model.safetensors: cut short, [\d,]+ of [\d,]+ bytes"),
    "a header cut short": (cut("model.safetensors", 0.001), "model.safetensors: not a safetensors file"),
    "an empty file": (cut("model.safetensors", 0), "model.safetensors: not a safetensors file"),
    "no safetensors": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 500) and None, "not a safetensors file"),
    "a Git LFS pointer": (pointer("model.safetensors"), "model.safetensors: a Git LFS pointer.*git lfs pull"),
    "a pointer for a tokenizer": (pointer("tokenizer.json"), "tokenizer.json: a Git LFS pointer"),
    "a pointer for a .bin": (then(as_bin(), pointer("pytorch_model.bin")), "pytorch_model.bin: a Git LFS pointer"),
    "a missing shard": (then(shards, without("model-*.safetensors")), "model-00002-of-.*: not there, though model.saf"),
    "a shard that is a pointer": (
        then(shards, lambda f: pointer(next(f.glob(SHARD)).name)(f)), "model-00002-of-.*: a Git LFS pointer"
    ),
    "a shard cut short": (
        then(shards, lambda f: cut(next(f.glob(SHARD)).name, 0.9)(f)), "model-00002-of-.*: cut short"
    ),
    "an index of another model": (
        then(shards, lambda f: (f / "model.safetensors.index.json").write_text(
            (f / "model.safetensors.index.json").read_text().replace("layers.2.", "layers.9.")) and None),
        "has no tensor 'gpt_neox.layers.9.*though the index names it",
    ),
    "a malicious pickle": (as_bin(lambda t: t | {"x": Malicious()}), "_model.bin: refused, .* could run code"),
    "a .bin cut short": (then(as_bin(), cut("pytorch_model.bin", 0.6)), "_model.bin: cut short, or not a file of"),
    "a .bin of something else": (as_bin(lambda t: [1, 2]), "pytorch_model.bin: not a file of weights"),
    "an adapter beside": (
        lambda f: (f / "adapter_config.json").write_text("{}") and None, "an adapter beside a whole model"
    ),
    "code of its own": (
        config(model_type="my_own", auto_map={"AutoConfig": "configuration.Mine"}), "config.json: .*my_own|code"
    ),
    "quantised weights": (config(quantization_config={"quant_method": "gptq"}), "config.json: quantised weights"),
    "no causal model": (config(model_type="vit"), "config.json: .*model_type 'vit' is no causal language model|vit"),
    "an unknown family": (config(model_type="of_tomorrow"), "config.json: .*of_tomorrow"),
    "a broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}") and None, "tokenizer cannot be loaded"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(folder: Path, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    edit, message = FAULTS[fault]
    check_models([card_of(folder)])
    edit(folder)
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        check_models([card_of(folder)])
    told = str(caught.value)
    assert "\n" not in told and "weights_only" not in told and "must not run" not in capsys.readouterr().out


def test_a_vocabulary_smaller_than_the_tokenizers_ids(folder: Path) -> None:
    def shrink(held: dict[str, Tensor]) -> None:
        for name in ("gpt_neox.embed_in.weight", "embed_out.weight", "lm_head.weight"):
            if name in held:
                held[name] = held[name][:500].clone()

    then(tensors(shrink), config(vocab_size=500))(folder)
    with pytest.raises(DataError, match=r"its tokenizer has ids up to \d+ \('.*'\), its embedding 500 rows"):
        check_models([card_of(folder)])


@torch.no_grad()
@pytest.mark.parametrize(
    "edit",
    [
        shards,
        as_bin(),
        lambda f: tensors(lambda t: t.update({n.removeprefix("gpt_neox."): t.pop(n) for n in list(t)}))(f),
        tensors(lambda t: t.update({"gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9)})),
        tensors(lambda t: t.update({"gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.zeros(4)})),
        tensors(lambda t: t.update({n: t.pop(n).half() for n in list(t)})),
    ],
    ids=["shards", "bin", "no prefix", "a buffer of old", "rotary buffers", "half precision"],
)
def test_what_transformers_loads_is_loaded_and_equal(folder: Path, edit: Edit, tmp_path: Path) -> None:
    edit(folder)
    link = tmp_path / "link"
    link.mkdir()
    for file in folder.iterdir():
        (link / file.name).symlink_to(file)
    card = card_of(link)
    assert card.key == card_of(folder).key
    assert check_models([card]) == []
    batch = collate([TokenTree.chain(list(range(5, 17)))])
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=FP32)(input_ids=batch.tokens).logits
    upper = load_upper(card, 1, FP32, "cpu")
    split = upper.logits(upper(Trunk(card, 1, FP32, "cpu").hidden(batch, [1])[1]))
    torch.testing.assert_close(split, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(WholeModel(card, FP32, "cpu")(batch.tokens), plain, atol=1e-5, rtol=0)


def test_an_old_pickle_is_loaded(folder: Path) -> None:
    held = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(held, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert check_models([card_of(folder)]) == []
    load_upper(card_of(folder), 1, FP32, "cpu")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(DataError, match="pytorch_model.bin: refused"):
        check_models([card_of(folder)])


def test_tensors_of_other_parts_are_a_note(folder: Path) -> None:
    tensors(lambda t: t.update({"v_head.summary.weight": torch.zeros(1, 32)}))(folder)
    (note,) = check_models([card_of(folder), card_of(folder)])
    assert "1 tensors of its files are not used" in note and "v_head.summary.weight" in note


@pytest.mark.parametrize("name", CONFIGS)
def test_no_family_is_refused(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    card = save_family(name, tmp_path_factory)
    held, places = tensors_of(Path(card.source))
    assert _check_names(card, Path(card.source), held, places) == []


def test_a_card_of_any_family_has_the_number_of_its_blocks_parameters(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    for name in set(CONFIGS) - {
        "mamba",
        "zamba2",
        "bamba",
        "lfm2",
        "qwen3_next",
        "deepseek_v3",
        "qwen2_moe",
        "qwen3_moe",
    }:
        card = save_family(name, tmp_path_factory)
        held, _ = tensors_of(Path(card.source))
        ends = card.vocab_size * card.model_dim * (1 if card.tied else 2)
        weights = sum(t.numel() for n, t in held.items() if t.ndim > 1)
        assert card.params == pytest.approx(weights, rel=0.25), (name, card.params, weights, ends)


def test_cuda_where_there_is_none() -> None:
    check_device("auto", False)
    check_device("cuda", True)
    with pytest.raises(ConfigError, match="device='cuda': no machine here has a CUDA device"):
        check_device("cuda", False)


@pytest.mark.skipif(torch.cuda.is_available() or sys.platform != "linux", reason="there may be a GPU")
def test_cuda_where_there_is_none_is_refused_without_torch() -> None:
    code = (
        "import sys\nfrom trainables.errors import ConfigError\n"
        "from trainables.node.machine import check_local_device\n"
        "try: check_local_device('cuda')\n"
        "except ConfigError as error: print('torch' in sys.modules, error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("False device='cuda': no machine here has a CUDA device"), ran.stdout


def test_texts_longer_than_the_model_takes(folder: Path) -> None:
    from trainables.pack.trial_check import check_trials

    config(max_position_embeddings=100)(folder)
    card = card_of(folder)
    assert card.positions == 100

    def check(**values: Any) -> None:
        spec = canonical(TrialSpec(model=str(folder), layer=1, num_documents=2, **values), card)
        assert check_trials([(spec, card)]) == []

    with pytest.raises(ConfigError, match="segment_tokens=256: model takes texts of at most 100 tokens"):
        check()
    with pytest.raises(ConfigError, match="a prompt of fever with its answer: .* model takes at most 100; lower num"):
        check(segment_tokens=90, num_shots=5)
    check(segment_tokens=90, probes=("counterfact",), counterfact_records=2)
    with pytest.raises(ConfigError, match="a prompt of counterfact with its answer"):
        check(segment_tokens=90, probes=("counterfact",), counterfact_records=2, answer_tokens=95)


def test_models_of_the_hub_that_are_not_here_are_left_to_the_download() -> None:
    assert check_models([model_card("pythia-70m"), replace(model_card("sample-llama"))]) == []
