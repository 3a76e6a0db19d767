"""Stand-ins for the Hugging Face Hub and for the two official sites, as real servers on this machine.

The Hub's answers what `huggingface_hub` really asks: repository info, the tree in pages, paths-info, and files by
`resolve`: small ones by a redirect within the Hub, large ones by a redirect to another host that has no business with
the token; ETag, ranges, gated and private repositories, revisions. Faults are put in by rules.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

LARGE_BYTES = 4096
TOKEN = "hf_opensesame"


@dataclass
class Rule:
    """A fault: applies to requests whose `METHOD path` matches, so many times."""

    pattern: str
    times: int = 10**9
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    delay_s: float = 0.0


class StandIn:
    """A server on this machine.

    Attributes:
        requests: `METHOD path [Range]` of all that was asked, in order.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.authorised: list[str] = []
        self.rules: list[Rule] = []
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                return

            def do_GET(self) -> None:
                stand_in._serve(self)

            do_HEAD = do_POST = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def asked(self, pattern: str) -> list[str]:
        """Return the requests that match."""
        return [request for request in self.requests if re.search(pattern, request)]

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        asked = f"{handler.command} {unquote(handler.path)}"
        span = handler.headers.get("Range")
        self.requests.append(asked + (f" [{span}]" if span else ""))
        if handler.headers.get("Authorization"):
            self.authorised.append(f"{handler.headers['Host']} {asked}")
        rule = next((rule for rule in self.rules if rule.times > 0 and re.search(rule.pattern, asked)), None)
        if rule:
            rule.times -= 1
            time.sleep(rule.delay_s)
        if rule and rule.status:
            self.send(handler, rule.status, b"busy", rule.headers)
            return
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length) if length else b""
        self.answer(handler, body, rule)

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes, rule: Rule | None) -> None:
        raise NotImplementedError

    def send(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        content: bytes,
        headers: dict[str, str],
        rule: Rule | None = None,
    ) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if rule and rule.cut_after is not None:
            handler.wfile.write(content[: rule.cut_after])
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.close()
            return
        handler.wfile.write(content)

    def send_file(
        self, handler: BaseHTTPRequestHandler, content: bytes, headers: dict[str, str], rule: Rule | None
    ) -> None:
        """Answer with a file or the range of it that is asked for."""
        headers = {"Accept-Ranges": "bytes", **headers}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range") or "")
        condition = handler.headers.get("If-Range")
        if span and (condition is None or condition in (headers.get("ETag"), headers.get("Last-Modified"))):
            start, end = int(span[1]), int(span[2] or len(content) - 1)
            if start >= len(content):
                self.send(handler, 416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            self.send(handler, 206, content[start : end + 1], headers, rule)
        else:
            self.send(handler, 200, content, headers, rule)


class OfficialSite(StandIn):
    """Serves files below `/files/`, as a web server does.

    Attributes:
        files: name -> content.
        etags: whether it sends them.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.etags = files, True
        super().__init__()

    @property
    def base(self) -> str:
        return f"{self.url}/files"

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes, rule: Rule | None) -> None:
        content = self.files.get(handler.path.removeprefix("/files/"))
        if content is None:
            self.send(handler, 404, b"not here", {})
            return
        digest = hashlib.md5(content).hexdigest()
        etag = {"ETag": f'"{digest}"'} if self.etags else {}
        headers = {**etag, "Last-Modified": formatdate(int(digest[:7], 16), usegmt=True)}
        self.send_file(handler, content, headers, rule)


@dataclass
class Repo:
    """A repository: branches name commits, commits hold files."""

    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit and let the branch name it."""
        told = json.dumps([branch, sorted((name, hashlib.sha1(c).hexdigest()) for name, c in files.items())])
        commit = hashlib.sha1(told.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit


class Hub(StandIn):
    """Serves models and datasets as the Hub does.

    Attributes:
        repos: `models/OWNER/NAME` or `datasets/OWNER/NAME` -> repository.
        page_size: entries in a page of a tree listing.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.page_size = 4
        super().__init__()

    def add(self, kind: str, name: str, gated: bool = False) -> Repo:
        self.repos[f"{kind}/{name}"] = repo = Repo(gated=gated)
        return repo

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes, rule: Rule | None) -> None:
        path, query = unquote(urlsplit(handler.path).path), parse_qs(urlsplit(handler.path).query)
        if path == "/":
            self.send(handler, 200, b"hub", {})
        elif match := re.fullmatch(r"/cdn/([0-9a-f]{64})", path):
            found = next(
                c
                for r in self.repos.values()
                for f in r.commits.values()
                for c in f.values()
                if hashlib.sha256(c).hexdigest() == match[1]
            )
            self.send_file(handler, found, {"ETag": f'"{match[1][:32]}"'}, rule)
        elif match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/(.+))?", path):
            self._api(handler, match, query, body)
        elif match := re.fullmatch(r"/(?:api/resolve-cache/)?(datasets/|models/)?([^/]+/[^/]+)/resolve/(.+)", path):
            kind = (match[1] or "models/").rstrip("/")
            self._resolve(handler, f"{kind}/{match[2]}", match[3], "/api/resolve-cache/" in path, rule)
        else:
            self._error(handler, 404, "", "no such address")

    def _api(self, handler: BaseHTTPRequestHandler, match: Any, query: Any, body: bytes) -> None:
        repo = self.repos.get(f"{match[1]}/{match[2]}")
        if repo is None:
            self._error(handler, 401, "RepoNotFound", "Repository not found")
            return
        commit = repo.branches.get("main", "") if match[4] is None else self._commit(repo, match[4])
        if commit is None:
            self._error(handler, 404, "RevisionNotFound", f"Invalid rev id: {match[4]}")
            return
        entries = [self._entry(name, content) for name, content in sorted(repo.commits.get(commit, {}).items())]
        if match[3] == "tree":
            start = int(query.get("cursor", ["0"])[0])
            end = start + self.page_size
            link = f'<{self.url}{urlsplit(handler.path).path}?recursive=True&cursor={end}>; rel="next"'
            headers = {"Link": link} if end < len(entries) else {}
            self._json(handler, entries[start:end], headers)
        elif match[3] == "paths-info":
            wanted = set(parse_qs(body.decode()).get("paths", []))
            self._json(handler, [entry for entry in entries if entry["path"] in wanted])
        else:
            siblings = [{"rfilename": e["path"], "size": e["size"], "blobId": e["oid"]} for e in entries]
            gated = "manual" if repo.gated else False
            told = {"id": match[2], "sha": commit, "siblings": siblings, "gated": gated, "private": False}
            self._json(handler, {**told, "disabled": False, "tags": [], "downloads": 1, "likes": 0})

    def _resolve(self, handler: Any, name: str, rest: str, is_inner: bool, rule: Rule | None) -> None:
        repo = self.repos.get(name)
        if repo is None:
            self._error(handler, 401, "RepoNotFound", "Repository not found")
            return
        revision = next((r for r in (*repo.branches, *repo.commits) if rest.startswith(f"{r}/")), None)
        commit = self._commit(repo, revision) if revision else None
        if revision is None or commit is None:
            self._error(handler, 404, "RevisionNotFound", "Invalid rev id")
            return
        if repo.gated and handler.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._error(handler, 401, "GatedRepo", f"Access to {name} is restricted")
            return
        path = rest.removeprefix(f"{revision}/")
        content = repo.commits[commit].get(path)
        headers = {"X-Repo-Commit": commit}
        if content is None:
            self._error(handler, 404, "EntryNotFound", "Entry not found", headers)
        elif len(content) >= LARGE_BYTES:
            digest = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            headers["Location"] = f"http://localhost:{self.port}/cdn/{digest}"
            self.send(handler, 302, b"", headers)
        elif is_inner:
            self.send_file(handler, content, headers | {"ETag": f'"{_git_id(content)}"'}, rule)
        else:
            inner = f"/api/resolve-cache/{name}/resolve/{commit}/{path}"
            headers |= {"X-Linked-Size": str(len(content)), "Location": inner, "ETag": f'"{_git_id(content)}"'}
            self.send(handler, 307, b"", headers)

    @staticmethod
    def _commit(repo: Repo, revision: str) -> str | None:
        return repo.branches.get(revision) or (revision if revision in repo.commits else None)

    @staticmethod
    def _entry(path: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "oid": _git_id(content), "size": len(content), "path": path}
        if len(content) >= LARGE_BYTES:
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
        return entry

    def _json(self, handler: Any, value: Any, headers: dict[str, str] | None = None) -> None:
        told = {"Content-Type": "application/json", **(headers or {})}
        self.send(handler, 200, json.dumps(value).encode(), told)

    def _error(self, handler: Any, status: int, code: str, message: str, headers: Any = None) -> None:
        told = {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}
        self.send(handler, status, json.dumps({"error": message}).encode(), told)


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def fever_archive(pages: dict[str, bytes]) -> bytes:
    """Return `wiki-pages.zip` as the official one is: page files, and a Mac's resource forks beside them."""
    import io
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("wiki-pages/", "")
        for name, content in pages.items():
            archive.writestr(f"wiki-pages/{name}", content)
            archive.writestr(f"__MACOSX/wiki-pages/._{name}", b"\0\5\x16\7Mac OS X")
    return out.getvalue()


def model_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a model folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub of our own, with an empty cache; also for processes that the test starts."""
    import huggingface_hub
    from huggingface_hub import constants

    from trainables.data.hub import hub_files
    from trainables.lm.card import model_card
    from trainables.lm.hub_commit import hub_commit
    from trainables.lm.weights import model_folder, tokenizer_folder

    looked_up = (hub_files, hub_commit, model_card, model_folder, tokenizer_folder)
    stand_in = Hub()
    cache = tmp_path / "hf"
    for name, value in {"HF_ENDPOINT": stand_in.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MEMORY_SWEEP_DATA_CACHE", str(tmp_path / "data-cache"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
    template = stand_in.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for cached in looked_up:
        cached.cache_clear()
    yield stand_in
    huggingface_hub.close_session()
    for cached in looked_up:
        cached.cache_clear()
    stand_in.close()


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sample_data: Path) -> Iterator[OfficialSite]:
    """Both official sites in one, holding the sample world, with its sizes and checksums pinned; an empty cache."""
    files = {name: (sample_data / "fever" / name).read_bytes() for name in ("train.jsonl", "paper_dev.jsonl")}
    pages = {path.name: path.read_bytes() for path in (sample_data / "wiki-pages").iterdir()}
    files["wiki-pages.zip"] = fever_archive(pages)
    files["counterfact.json"] = (sample_data / "counterfact.json").read_bytes()
    site = OfficialSite(files)
    table: dict[str, Any] = {}
    for name, content in files.items():
        told = {"url": f"{site.base}/{name}", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        kind = "counterfact" if name.startswith("counterfact") else "fever"
        table.setdefault(kind, {"files": {}})["files"][name] = told
    (tmp_path / "sources.json").write_text(json.dumps(table))
    monkeypatch.setenv("MEMORY_SWEEP_DATA_SOURCES", str(tmp_path / "sources.json"))
    monkeypatch.setenv("MEMORY_SWEEP_DATA_CACHE", str(tmp_path / "data-cache"))
    yield site
    site.close()
