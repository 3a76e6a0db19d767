"""Recorded passes give what the plain ones give: their sizes, their places, and when they are made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainables.lm.test_attention import plain_varlen
from trainables.adapters.passes import member_nll, trained_nll
from trainables.lm import attention, recorded
from trainables.lm.batches import TextBatch, TextBatches
from trainables.lm.fixed_texts import Size, rounded, step_of
from trainables.lm.head_loss import IGNORED
from trainables.lm.recorded import USES_BEFORE, Recordings
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree
from trainables.lm.upper import Upper, load_upper

WIDTH = 32
FP32 = torch.float32
Pass = Callable[[], Tensor]


def batch_of(lengths: Sequence[int], first_target: int = 1, seed: int = 0, device: str = "cpu") -> TextBatch:
    """Return texts with random states."""
    generator = torch.Generator().manual_seed(seed)
    words = [torch.randint(0, 30, (n,), generator=generator).tolist() for n in lengths]
    states = [torch.randn(n, WIDTH, generator=generator) for n in lengths]
    texts = [TrainingText(TokenTree.chain(text), 0, first_target) for text in words]
    return TextBatches(texts, states, torch.device(device)).batch(range(len(lengths)))


class Again:
    """Records nothing: it calls again, on the same places, and leaves results at the same places, as a replay would."""

    def __init__(self) -> None:
        self.made = self.replays = 0

    def __call__(self, forward: Pass, backward: Pass) -> tuple[Pass, Pass]:
        self.made += 1
        nll, gradient = forward(), backward()

        def replay() -> Tensor:
            self.replays += 1
            return nll.copy_(forward())

        return replay, lambda: gradient.copy_(backward())


@pytest.fixture
def again() -> Again:
    return Again()


@pytest.fixture
def upper(make_model: Any, again: Again, monkeypatch: pytest.MonkeyPatch) -> Upper:
    """Two blocks whose texts attention tells apart as flash attention would."""
    monkeypatch.setattr(attention, "_flash_can", lambda query, settings: True)
    monkeypatch.setattr(attention, "varlen_attn", plain_varlen)
    found = load_upper(make_model("gpt_neox"), 1, FP32, "cpu")
    found.recordings = Recordings(again)
    return found


def both(upper: Upper, batch: TextBatch, members: int, seed: int = 1) -> list[list[Tensor]]:
    """Return NLL and gradient of some members, in the plain way and as training asks for them."""
    noise = torch.randn(members, *batch.hidden.shape, generator=torch.Generator().manual_seed(seed))
    states = batch.hidden + 0.1 * noise.to(batch.hidden)
    found = []
    for way in (member_nll, trained_nll):
        own = states.clone().requires_grad_()
        nll = way(upper, batch, own)
        weights = torch.linspace(-1, 1, nll.numel(), device=nll.device).view(nll.shape)
        found.append([nll.detach(), *torch.autograd.grad(nll, own, weights)])
    return found


def assert_equal(found: list[list[Tensor]], tolerance: float = 1e-5) -> None:
    for one, plain in zip(*found, strict=True):
        torch.testing.assert_close(one, plain, atol=tolerance, rtol=tolerance)


def test_sizes_are_few_and_hold_what_they_are_for() -> None:
    sizes = [rounded(count) for count in range(1, 5000)]
    assert all(count <= size <= count * 9 / 8 for count, size in enumerate(sizes, 1) if count > 512)
    assert all(count <= size < count + 64 for count, size in enumerate(sizes, 1) if count <= 512)
    assert len(set(sizes)) < 40
    for lengths in ([1], [64], [65], [200, 3, 700], [5] * 9, [50] * 21):
        size = Size.of(batch_of(lengths), 2)
        assert size.tokens >= sum(lengths) and size.texts >= len(lengths)
        assert size.longest >= max(*lengths, step_of(size.tokens)), "what is left over is a text as well"


@pytest.mark.parametrize("members", [1, 3])
def test_replays_give_the_plain_numbers_whatever_was_at_the_places_before(
    upper: Upper, again: Again, members: int
) -> None:
    for seed, (lengths, first) in enumerate(
        [((20, 9), 1), ((20, 9), 1), ((30, 31), 4), ((5,), 1), ((7, 2), 2), ((40, 24), 1), ((3, 60), 1)]
    ):
        assert_equal(both(upper, batch_of(lengths, first, seed), members, seed))
    assert again.made == 1 and again.replays >= 4


def test_what_a_replay_gave_stays_when_there_is_another(upper: Upper, again: Again) -> None:
    found = [both(upper, batch_of((20, 9), seed=seed), 2, seed) for seed in range(USES_BEFORE + 3)]
    assert again.replays > 2
    for each in found:
        assert_equal(each)


def test_beyond_the_texts_nothing_is_left_of_earlier_ones(upper: Upper, again: Again) -> None:
    for lengths in [(40, 20)] * (USES_BEFORE + 1) + [(5, 9)]:
        both(upper, batch_of(lengths, first_target=2), 2)
    (kept,) = upper.recordings._kept.values()
    texts, count = kept.texts, 5 - 2 + 9 - 2
    assert not kept.states[:, 14:].any() and kept.states[:, :14].all()
    assert (texts.labels[count:] == IGNORED).all() and (texts.labels[:count] >= 0).all()
    assert (texts.target_places.back < 64).sum() == count, "nothing else has a gradient"
    assert texts.positions.tolist() == [*range(5), *range(9), *[0] * 50]
    assert texts.lengths.starts(2).tolist() == [0, 5, 14, 64, 69, 78, 128]


def test_a_size_is_recorded_when_it_has_come_up_and_once(upper: Upper, again: Again) -> None:
    for use in range(1, 6):
        both(upper, batch_of((20, 9)), 2)
        assert again.made == (use > USES_BEFORE)
    both(upper, batch_of((20, 9)), 3)
    assert again.made == 1, "another number of members is another size, which has not come up yet"


def test_before_it_is_recorded_a_pass_is_computed_at_the_same_places(
    upper: Upper, again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a trial which goes on in another process, where nothing is recorded yet, computes the same."""
    seen = []
    plain = Upper.forward

    def forward(self: Upper, hidden: Tensor, *given: Any, **named: Any) -> Tensor:
        seen.append(hidden.shape)
        return plain(self, hidden, *given, **named)

    monkeypatch.setattr(Upper, "forward", forward)
    found = []
    for _ in range(USES_BEFORE + 2):
        states = batch_of((20, 9)).hidden[None].requires_grad_()
        nll = trained_nll(upper, batch_of((20, 9)), states)
        found.append(
            torch.cat([nll.detach().flatten(), *[g.flatten() for g in torch.autograd.grad(nll.sum(), states)]])
        )
    assert again.made == 1 and all(torch.equal(one, found[0]) for one in found)
    assert seen.count((1, 29, WIDTH)) == 2, "to compare with: the places, and the recording"


def test_a_member_that_is_not_a_number_does_not_reach_later_passes(upper: Upper) -> None:
    for _ in range(USES_BEFORE + 1):
        both(upper, batch_of((20, 9)), 2)
    states = batch_of((20, 30)).hidden[None].repeat(2, 1, 1)
    states[1] = torch.nan
    states.requires_grad_()
    nll = trained_nll(upper, batch_of((20, 30)), states)
    (gradient,) = torch.autograd.grad(nll[0].sum(), states)
    assert nll[0].isfinite().all() and not nll[1].isfinite().any() and gradient[0].isfinite().all()
    assert_equal(both(upper, batch_of((20, 9)), 2))


def test_what_gives_other_numbers_is_not_used(
    upper: Upper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def baked(forward: Pass, backward: Pass) -> tuple[Pass, Pass]:
        result = forward()

        def replay() -> Tensor:
            forward()
            return result

        return replay, backward

    upper.recordings = Recordings(baked)
    with caplog.at_level(logging.WARNING):
        for _ in range(USES_BEFORE + 2):
            assert_equal(both(upper, batch_of((20, 9)), 2))
    assert caplog.text.count("a recorded pass: other numbers than of the texts as they come") == 1


def test_what_cannot_be_recorded_is_computed_plainly_from_then_on(upper: Upper) -> None:
    tried = []

    def refuses(forward: Pass, backward: Pass) -> tuple[Pass, Pass]:
        tried.append(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    upper.recordings = Recordings(refuses)
    for members in (2, 2, 2, 2, 3, 3, 3, 3):
        assert_equal(both(upper, batch_of((20, 9)), members))
    assert len(tried) == 1


@pytest.mark.parametrize("why", ["padded", "refused", "other numbers"])
def test_where_texts_have_no_such_places_they_are_computed_as_they_come(
    upper: Upper, again: Again, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with numbers that flash attention does not take."""
    if why == "padded":
        monkeypatch.setattr(attention, "_flash_can", lambda query, settings: False)
        monkeypatch.setattr(attention, "AT_ONCE", ("cpu",))
    elif why == "refused":
        monkeypatch.setattr(attention.FixedTextRow, "starts", lambda self, rows: int("no number"))
    else:
        monkeypatch.setattr(recorded.FixedTexts, "put", lambda self, batch: None)
    with caplog.at_level(logging.INFO):
        for members in (2, 2, 2, 2, 3, 3, 3, 3):
            assert_equal(both(upper, batch_of((20, 9)), members))
    assert again.made == 0
    assert caplog.text.count("texts at places of fixed sizes") == 1


def test_an_error_that_is_not_of_the_device_is_not_hidden(upper: Upper) -> None:
    def broken(forward: Pass, backward: Pass) -> tuple[Pass, Pass]:
        raise KeyError("a mistake of ours")

    upper.recordings = Recordings(broken)
    with pytest.raises(KeyError, match="a mistake of ours"):
        for _ in range(USES_BEFORE + 1):
            both(upper, batch_of((20, 9)), 2)


def test_long_passes_and_those_without_a_gradient_are_not_recorded(
    upper: Upper, again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(USES_BEFORE + 2):
        with torch.no_grad():
            trained_nll(upper, batch_of((20, 9)), batch_of((20, 9)).hidden[None])
    monkeypatch.setattr(recorded, "MOST_FLOPS", 1.0)
    for _ in range(USES_BEFORE + 2):
        both(upper, batch_of((20, 9)), 2)
    assert again.made == 0


def test_recordings_are_bounded_and_an_idle_one_makes_room(
    upper: Upper, again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "MOST", 2)
    monkeypatch.setattr(recorded, "IDLE", 8)

    def use(members: int, times: int) -> None:
        for _ in range(times):
            both(upper, batch_of((20, 9)), members)

    use(1, USES_BEFORE + 1)
    use(2, USES_BEFORE + 1)
    assert again.made == 2
    use(3, USES_BEFORE + 1)
    assert again.made == 2, "both were used a moment ago"
    use(3, 8)
    assert again.made == 3 and len(upper.recordings._kept) == 2


@pytest.mark.parametrize("layers", [[1, 2], [2]])
def test_members_at_other_blocks_are_not_recorded(upper: Upper, again: Again, layers: list[int]) -> None:
    upper.staggers = True
    batch = batch_of((20, 9))
    for _ in range(USES_BEFORE + 2):
        states = batch.hidden[None].repeat(len(layers), 1, 1).requires_grad_()
        assert trained_nll(upper, batch, states, layers).requires_grad
    assert again.made == 0


def test_on_a_cpu_nothing_is_recorded(make_model: Any) -> None:
    assert load_upper(make_model(), 1, FP32, "cpu").recordings._record is None


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_on_a_gpu_replays_give_the_plain_numbers(make_model: Any, family: str) -> None:
    upper = load_upper(make_model(family), 1, torch.bfloat16, "cuda")
    for seed, lengths in enumerate([(20, 9), (20, 9), (30, 31), (5,), (7, 2), (40, 24), (3, 60)]):
        batch = batch_of(lengths, 1, seed, "cuda")
        batch = TextBatch(batch.texts, batch.hidden.bfloat16(), batch.positions, batch.targets, batch.labels)
        found = both(upper, batch, 3, seed)
        assert_equal([[each.float() for each in way] for way in found], 0.1)
    assert len(upper.recordings._kept) == 1
