"""Connecting to an object store: options, keys and region; what is not given obstore finds in `AWS_…` and on EC2."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qsl
from urllib.request import Request, urlopen

from obstore import store

from trainables.errors import ConfigError

REGION_S = 5.0
_CLIENT: Any = {"allow_http": True, "connect_timeout": "10s", "timeout": "300s"}
_RETRIES: Any = {"max_retries": 5, "retry_timeout": timedelta(seconds=20)}
"""Ours: a store that is away is named within about 20 s; reading a checkpoint of a gigabyte has five minutes."""

_KEPT = timedelta(minutes=5)
"""How long keys are used before boto3 is asked again, which renews them before they expire."""

_REGION_IS_SET = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_REGION", "AWS_DEFAULT_REGION")


@cache
def connect(scheme: str, bucket: str, options: str) -> Any:
    """Connect to a bucket: once in a process, since its threads share a connection.

    Args:
        scheme: `s3`, `gs`, `az`, …, or `memory`.
        bucket: its name.
        options: what follows the `?` of an address, keys included.

    Raises:
        ConfigError: keys that boto3 alone can read, without boto3.
        ValueError: no such kind of store.
        obstore.exceptions.BaseError: no such option.
    """
    if scheme == "memory":
        return store.MemoryStore()
    config: Any = dict(parse_qsl(options))
    keys: Any = None
    if scheme == "s3":
        host, protocol = config.pop("endpoint_override", ""), config.pop("scheme", "https")
        if host:
            config["endpoint"] = host if "://" in host else f"{protocol}://{host}"
        if not {"access_key_id", "skip_signature"} & config.keys() and _has_profile():
            keys, region = _profile()
            config = {"region": region, **config} if region else config
        if not {"region", "endpoint"} & config.keys() and not any(map(os.environ.get, _REGION_IS_SET)):
            config["region"] = bucket_region(bucket)
    return store.from_url(
        f"{scheme}://{bucket}",
        config=config,
        client_options=_CLIENT,
        retry_config=_RETRIES,
        credential_provider=keys,
    )


def bucket_region(bucket: str, server: str = "https://s3.amazonaws.com") -> str:
    """Ask AWS where a bucket lies, as its own tools do; a refusal says it too."""
    try:
        with urlopen(Request(f"{server}/{bucket}", method="HEAD"), timeout=REGION_S) as answer:
            headers = answer.headers
    except HTTPError as error:
        headers = error.headers
    except OSError:  # the first request will say what is wrong
        return "us-east-1"
    return str(headers.get("x-amz-bucket-region") or "us-east-1")


def _has_profile() -> bool:
    if os.environ.get("AWS_PROFILE"):
        return True
    home = Path.home() / ".aws"
    files = (("AWS_SHARED_CREDENTIALS_FILE", home / "credentials"), ("AWS_CONFIG_FILE", home / "config"))
    return not os.environ.get("AWS_ACCESS_KEY_ID") and any(Path(os.environ.get(n) or f).is_file() for n, f in files)


def _profile() -> tuple[Callable[[], Any] | None, str]:
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise ConfigError(
            "AWS_PROFILE, ~/.aws: boto3 reads them and is not installed; pip install 'memory-sweep[s3]'"
        ) from None
    try:
        session = boto3.Session()
        credentials = session.get_credentials()
    except BotoCoreError as error:
        raise ConfigError(f"AWS_PROFILE, ~/.aws: {error}; correct them") from None

    def current() -> Any:
        found = credentials.get_frozen_credentials()
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.token,
            "expires_at": datetime.now(timezone.utc) + _KEPT,
        }

    return current if credentials else None, session.region_name or ""
