"""No address is shown, or travels, with a secret in it."""

from __future__ import annotations

import pytest

from trainables.node.addresses import hidden, keys_of, shown, without_secrets
from trainables.node.storage import Storage

SECRETS = ("pw", "p@ss/w?rd", "a/b", "12/34", "x:y@z", "p%40ss", "top#secret")


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "address", ["http://user:{}@host:5000/x", "postgresql+psycopg://user:{}@db/mlflow", "s3://KEY:{}@b/x"]
)
def test_a_password_is_not_shown_whatever_is_in_it(address: str, secret: str) -> None:
    uri = address.format(secret)
    for text in (uri, f"error at '{uri}': refused", f'"{uri}"', f"({uri})", f"twice {uri} {uri}"):
        told = shown(text)
        assert secret not in told and "user" not in told and "KEY" not in told
        assert uri.rpartition("@")[2] in told
    assert shown(f"error at '{uri}': refused").endswith("': refused")


@pytest.mark.parametrize(
    "option",
    ["access_key", "secret_key", "aws_secret_access_key", "session_token", "password", "sig", "X-Amz-Signature"],
)
def test_an_option_that_holds_a_secret_is_not_shown(option: str) -> None:
    told = shown(f"cannot read s3://bucket/x?region=eu&{option}=HUSH/+=&scheme=http (why)")
    assert (
        "HUSH" not in told and told.startswith("cannot read s3://bucket/x?region=eu&") and "&scheme=http (why)" in told
    )


def test_a_secret_in_an_address_within_an_address_is_not_shown() -> None:
    assert "HUSH" not in shown("s3://bucket/x?endpoint_override=http://me:HUSH@host:9&scheme=http")
    assert "HUSH" not in shown("request to /api/runs?secret_key=HUSH failed")
    assert "HUSH" not in shown("https://HUSH@host/x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain words: a@b.c, key=1",
        "/a//b@c?key=1",
        "sqlite:////home/me@work/mlflow.db",
        "file:///data/a@b",
        "http://host:5000/#/experiments/1",
        "s3://bucket/team@lab/x?endpoint_override=h:1&scheme=http&region=eu",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize("quoted", ["part1", "part2@host", "p%C3%A4rt3", "pärt3", "1@part2", "HUSH"])
def test_what_a_library_quotes_of_a_password_is_not_shown(quoted: str) -> None:
    address = "postgresql://me:part1@part2/p%C3%A4rt3@host/x?sslpassword=HUSH"
    told = hidden(f"failed to resolve host '{quoted}': not known", address)
    assert not {"part1", "part2", "p%C3%A4rt3", "pärt3", "HUSH"} & set(told.replace("@", "'").split("'"))
    assert told.startswith("failed to resolve host '") and hidden("plain", "sqlite:////x") == "plain"


def test_an_address_is_split_into_itself_and_its_keys() -> None:
    clean, secrets = without_secrets("s3://KEY:SE/C@RET@bucket/x?endpoint_override=h:1&session_token=T&region=eu")
    assert clean == "s3://bucket/x?endpoint_override=h:1&region=eu"
    assert secrets == {"access_key_id": "KEY", "secret_access_key": "SE/C@RET", "session_token": "T"}
    assert without_secrets("s3://bucket/x@1") == ("s3://bucket/x@1", {})


def test_a_storage_has_its_keys_and_not_in_its_address(s3_options: str) -> None:
    hidden = s3_options.replace("=key", "=HUSH1").replace("=secret", "=HUSH2")
    storage = Storage(f"s3://bucket/hidden?{hidden}")
    storage.write("a", b"1")
    assert "HUSH" not in storage.uri + storage.full("a")
    assert Storage(storage.uri).read("a") == b"1", "an address without keys finds those given before"
    place = f"s3://bucket?{storage.uri.partition('?')[2]}"
    assert keys_of(place) == {"access_key_id": "HUSH1", "secret_access_key": "HUSH2"}
