"""What is read as JSON holds nothing that a reader would stumble over, and its checksum is that of what was written."""

from __future__ import annotations

import json

import pytest

from trainables.node.checksums import SEAL, BrokenSeal, content_sum, read_plain_json, read_sealed_json, sealed, unsealed

VALUE = {"b": [1, 2.5, None, True], "a": {"text": "ä \U0001f600 \\ud800", "small": 1e-300}}


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_value_is_read_with_the_checksum_that_its_seal_is(ascii_only: bool) -> None:
    text = json.dumps(sealed(VALUE), indent=1, ensure_ascii=ascii_only).encode()
    value, checksum = read_sealed_json(text)
    assert value[SEAL] == checksum and unsealed(value) == VALUE and read_plain_json(text) == value
    value, other = read_sealed_json(text.replace(b"2.5", b"2.6"))
    assert value[SEAL] == checksum != other
    with pytest.raises(BrokenSeal):
        unsealed(value)


def test_a_checksum_is_that_of_one_spelling_whatever_the_order_and_the_spaces() -> None:
    spelt = json.dumps({"a": 1, "b": [2]}, separators=(",", ":")).encode()
    for text in (b'{"b": [2], "a": 1}', b'{"a":1,\n "b":[ 2 ], "checksum": "any"}'):
        assert read_sealed_json(text)[1] == content_sum(spelt)
    assert read_sealed_json(b"[1, 2]") == ([1, 2], content_sum(b"[1,2]"))


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}', b'[[-2e400]]', rb'{"a": "\ud800"}', rb'{"\udfff": 1}',
        b'{"a": "\xed\xa0\x80"}', b'{"a": "\xff"}', b"{", b"", b"[" * 100_000 + b"]" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_plain_json_is_refused(text: bytes) -> None:
    for read in (read_plain_json, read_sealed_json):
        with pytest.raises(ValueError):
            read(text)
