"""What is said of a trial in words."""

from __future__ import annotations

from sweep.tracking.describe import in_words
from trainables.trial.identity import STATED_DEFAULTS


def test_what_was_asked_later_is_told_beside_the_trials_own_probes() -> None:
    stated = {**STATED_DEFAULTS, "model": "m", "layer": 1, "probes": ("fever",)}
    told = in_words(stated, "m", 4, "fever", labels=["fever", "fever num_shots=5", "forgetting"])
    assert "; asked: fever, 1 shot, and later fever num_shots=5, forgetting; seed" in told
    assert "; asked: fever, 1 shot; seed" in in_words(stated, "m", 4, "fever", labels=["fever"])
    stated["probes"] = ()
    assert "; asked: nothing, and later forgetting; seed" in in_words(stated, "m", 4, "fever", labels=["forgetting"])
