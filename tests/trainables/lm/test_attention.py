"""Attention of texts of several lengths in one call without padding, against each text alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables.lm import attention
from trainables.lm.attention import TextRow, text_by_text

LENGTHS = (5, 1, 12, 7)
ROWS, HEADS, WIDTH = 2, 4, 16


class Module(nn.Module):
    """What an attention module says of itself."""

    is_causal = True
    layer_idx = 0

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups


def drawn(kv_heads: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Return queries, keys and values of two rows of texts."""
    generator = torch.Generator().manual_seed(5)
    shapes = [(ROWS, heads, sum(LENGTHS), WIDTH) for heads in (HEADS, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for shape in shapes]


def gradients(output: Tensor, states: list[Tensor]) -> list[Tensor]:
    """Return an output with the gradients of a sum of it in which every number counts another time."""
    weights = torch.linspace(-1, 1, output.numel(), device=output.device).view(output.shape)
    return [output, *torch.autograd.grad((output * weights).sum(), states)]


def one_by_one(states: list[Tensor], groups: int, window: int | None, **settings: Any) -> Tensor:
    """Return attention of each text of each row, one call each."""
    parts = zip(*(each.split(LENGTHS, dim=2) for each in states), strict=True)
    found = [text_by_text(Module(groups), *part, None, sliding_window=window, **settings)[0] for part in parts]
    return torch.cat(found, dim=1)


def plain_varlen(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, key_starts: Tensor, longest: int, longest_key: int, *,
    scale: float | None = None, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Compute what `torch.nn.attention.varlen.varlen_attn` promises, text by text, on any device."""
    assert starts.dtype == torch.int32 and starts is key_starts and window_size[1] == 0
    sizes = starts.diff().tolist()
    assert longest == longest_key >= max(sizes) and starts[0] == 0 and starts[-1] == len(query)
    found = []
    for part in zip(*(states.split(sizes) for states in (query, key, value)), strict=True):
        q, k, v = (states.transpose(0, 1) for states in part)
        places = torch.arange(q.shape[1])
        back = places[:, None] - places[None, :]
        sees = (back >= 0) & ((back <= window_size[0]) if window_size[0] >= 0 else True)
        out = nn.functional.scaled_dot_product_attention(q, k, v, sees, scale=scale, enable_gqa=enable_gqa)
        found.append(out.transpose(0, 1))
    return torch.cat(found)


@pytest.mark.parametrize("kv_heads", [HEADS, 2])
@pytest.mark.parametrize(("window", "settings"), [(None, {}), (4, {}), (None, {"scaling": 0.3})])
def test_what_flash_attention_is_told_gives_the_texts_one_by_one(
    kv_heads: int, window: int | None, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    states, groups = drawn(kv_heads, torch.float32, "cpu"), HEADS // kv_heads
    expected = gradients(one_by_one(states, groups, window, **settings), states)
    monkeypatch.setattr(attention, "AT_ONCE", ("cpu",))
    monkeypatch.setattr(attention, "_flash_can", lambda query, settings: True)
    monkeypatch.setattr(attention, "varlen_attn", plain_varlen)
    row = TextRow(LENGTHS, torch.device("cpu"))
    found, _ = text_by_text(Module(groups), *states, None, lengths=row, sliding_window=window, **settings)
    for one, other in zip(gradients(found, states), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("kv_heads", [HEADS, 2])
@pytest.mark.parametrize(("window", "settings"), [(None, {}), (4, {}), (None, {"scaling": 0.3})])
def test_flash_attention_on_a_gpu_gives_the_texts_one_by_one(
    kv_heads: int, window: int | None, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    states, groups = drawn(kv_heads, torch.bfloat16, "cuda"), HEADS // kv_heads
    expected = gradients(one_by_one(states, groups, window, **settings), states)
    calls: list[Any] = []
    monkeypatch.setattr(attention, "varlen_attn", lambda *a, **k: calls.append(a) or real(*a, **k))
    row = TextRow(LENGTHS, torch.device("cuda"))
    found, _ = text_by_text(Module(groups), *states, None, lengths=row, sliding_window=window, **settings)
    assert len(calls) == 1, "one call for all texts of all rows"
    for one, other in zip(gradients(found, states), expected, strict=True):
        torch.testing.assert_close(one.float(), other.float(), atol=2e-2, rtol=2e-2)


real = attention.varlen_attn


@pytest.mark.parametrize(
    ("told", "can"),
    [
        ({}, True),
        ({"dtype": torch.float32}, False),
        ({"device": torch.device("cpu")}, False),
        ({"shape": (1, HEADS, 3, 512)}, False),
        ({"shape": (1, HEADS, 3, 20)}, False),
        ({"softcap": 30.0}, False),
        ({"s_aux": torch.zeros(HEADS)}, False),
        ({"dropout": 0.1}, False),
    ],
)
def test_flash_attention_is_asked_for_what_it_has(
    told: dict[str, Any], can: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_has_flash", lambda device: True)
    query = {"device": torch.device("cuda"), "dtype": torch.bfloat16, "shape": (1, HEADS, 3, WIDTH)}
    settings = {name: value for name, value in told.items() if name not in query}
    assert attention._flash_can(SimpleNamespace(**{**query, **told}), settings) is can
