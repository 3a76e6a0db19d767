from __future__ import annotations

import pytest

from trainables.adapters.memory.setting import SetSetting


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        (SetSetting("random"), "random"),
        (SetSetting("simset2", "token", 50, 8, 1), "simset2-token_g50_n8_s1"),
        (SetSetting("partitioned", num_clusters=2), "partitioned_g2"),
        (SetSetting("simset1", num_clusters=50, mem_seed=2, grouping="lsh"), "simset1_g50-lsh_s2"),
        (SetSetting("simset3", mem_seed=12), "simset3_s12"),
    ],
)
def test_a_setting_is_its_name(setting, name):
    assert setting.name == name and SetSetting.named(name) == setting


def test_what_cannot_matter_is_left_out():
    values = {
        "allocation": "partitioned", "granularity": "token", "num_clusters": 4, "num_documents": 4,
        "entries_per_group": 3, "mem_seed": 5,
    }  # fmt: skip
    assert SetSetting.of(values) == SetSetting("partitioned")
    assert SetSetting.of({**values, "allocation": "random"}) == SetSetting("random", mem_seed=5)
    assert SetSetting.of({**values, "allocation": "simset1"}).name == "simset1-token_n3_s5"
