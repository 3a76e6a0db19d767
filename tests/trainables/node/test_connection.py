"""Keys and regions that an S3 address does not name."""

from __future__ import annotations

import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from trainables.errors import ConfigError
from trainables.node import connection
from trainables.node.addresses import KEYS_VARIABLE
from trainables.node.connection import bucket_region
from trainables.node.storage import Storage, StorageError


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch, tmp_path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    connection.connect.cache_clear()


def write_profile(folder, name: str, key: str) -> None:
    (folder / ".aws").mkdir()
    (folder / ".aws" / "credentials").write_text(f"[{name}]\naws_access_key_id = {key}\naws_secret_access_key = s\n")
    title = name if name == "default" else f"profile {name}"
    (folder / ".aws" / "config").write_text(f"[{title}]\nregion = eu-west-3\n")


@pytest.fixture
def given(monkeypatch) -> list[dict]:
    """What obstore is told."""
    from obstore import store

    seen: list[dict] = []
    real = store.from_url
    monkeypatch.setattr(store, "from_url", lambda *args, **more: seen.append(more) or real(*args, **more))
    return seen


@pytest.mark.parametrize("name", ["default", "lab"])
def test_a_profile_gives_keys_and_region(s3_options, monkeypatch, tmp_path, given, name):
    write_profile(tmp_path, name, "of-" + name)
    if name != "default":
        monkeypatch.setenv("AWS_PROFILE", name)
    Storage(f"s3://bucket/profile?{s3_options.partition('&region')[0]}").write("a", b"1")
    (told,) = given
    assert told["config"]["region"] == "eu-west-3" and told["credential_provider"]()["access_key_id"] == "of-" + name
    assert Storage(f"s3://bucket/profile?{s3_options}").read("a") == b"1"


def test_keys_of_the_address_and_of_the_environment_come_before_a_file_s(s3_options, monkeypatch, tmp_path, given):
    write_profile(tmp_path, "default", "x")
    Storage(f"s3://key:secret@bucket/x?{s3_options.partition('&access_key_id')[0]}").write("a", b"1")
    monkeypatch.setenv(KEYS_VARIABLE, "{}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    Storage(f"s3://bucket/x?{s3_options.partition('&access_key_id')[0]}").write("a", b"1")
    assert [told["credential_provider"] for told in given] == [None, None]


def test_a_profile_that_is_not_there_and_boto3_that_is_not_are_said(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match="nobody"):
        Storage("s3://bucket/x")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigError, match=r"pip install 'memory-sweep\[s3\]'"):
        Storage("s3://bucket/x")


@pytest.mark.parametrize(("status", "region"), [(200, "eu-1"), (301, "eu-1"), (403, "eu-1"), (404, "")])
def test_a_bucket_is_asked_for_its_region(monkeypatch, given, status, region):
    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            if region:
                self.send_header("x-amz-bucket-region", region)
            self.end_headers()

        def log_message(self, *args) -> None:
            pass

    asked: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(connection, "bucket_region", lambda bucket: bucket_region(bucket, here))
        Storage("s3://key:secret@lab-results/x")
        Storage("s3://key:secret@other/x?region=eu-west-3")
        server.shutdown()
    assert asked == ["/lab-results"]
    assert [told["config"]["region"] for told in given] == [region or "us-east-1", "eu-west-3"]
    assert bucket_region("lab-results", here) == "us-east-1"  # nobody answers any more


def test_without_any_keys_the_first_request_says_so(s3_options):
    place = Storage(f"s3://bucket/x?{s3_options.partition('&access_key_id')[0]}")
    with pytest.raises(StorageError, match="cannot be written"):
        place.write("a", b"")
