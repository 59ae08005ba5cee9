"""A local imitation of the Hugging Face hub's HTTP API: enough to look at a repository and to download from it.

`Hub` serves repositories from dictionaries, notes what it was asked, and breaks transfers off where told to. Large
files come from another host, as the real hub's do.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

from trainer.models import hub as hub_module

LARGE = 1000  # bytes from which a file is kept as the hub keeps large ones, named by its SHA-256


def small_model(weights: bytes) -> dict[str, bytes]:
    """A repository with the files of a Stable Diffusion, each weight file with this content."""
    return {
        "model_index.json": b'{"_class_name": "StableDiffusionPipeline"}',
        "scheduler/scheduler_config.json": b"{}",
        "tokenizer/vocab.json": b"{}",
        "tokenizer/merges.txt": b"",
        "text_encoder/config.json": b"{}",
        "text_encoder/model.safetensors": weights,
        "vae/config.json": b"{}",
        "vae/diffusion_pytorch_model.safetensors": weights,
        "unet/config.json": b'{"in_channels": 4}',
        "unet/diffusion_pytorch_model.safetensors": weights,
    }


@dataclass
class Repository:
    files: dict[str, bytes]
    gated: str | bool = False
    token: str = ""  # what opens a gated one

    @property
    def commit(self) -> str:
        listing = json.dumps({path: sha256(content) for path, content in self.files.items()})
        return hashlib.sha1(listing.encode()).hexdigest()  # noqa: S324 - as git names its states


@dataclass
class Hub:
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # method, path, headers
    sent: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # file, headers of the request
    cut_after: list[int] = field(default_factory=list)  # bytes of a large file, one for each transfer to break off
    refuse: int = 0  # a status to answer everything with
    ignore_ranges: bool = False
    announce: dict[str, str] = field(default_factory=dict)  # a file's path -> a wrong hash for it

    def add(self, name: str, files: dict[str, bytes], **properties: object) -> Repository:
        self.repositories[name] = Repository(files, **properties)
        return self.repositories[name]

    def transfers(self, path: str) -> list[dict[str, str]]:
        """The headers of the downloads of one file."""
        return [headers for file, headers in self.sent if file == path]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 - git's own name for it


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def instead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """This hub in the real one's place: an empty cache, no pauses, and steps that suit small files."""
    monkeypatch.setattr(hub_module, "CHUNK", 1000)
    monkeypatch.setattr(hub_module, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    with serve() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.requests.append((self.command, path, headers))
        if self.hub.refuse:
            self.refuse(self.hub.refuse, "")
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(\w+))?", path):
            self.describe(match[1], match[2])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", path):
            self.resolve(match[1], match[2], match[3], headers)
        elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self.hand_out(self.hub.repositories[match[1]].files[match[2]], match[2], {}, headers)
        else:
            self.refuse(404, "")

    def describe(self, name: str, revision: str | None) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self.refuse(401, "RepoNotFound")  # as the hub answers who is not logged in
        if revision not in (None, "main", repository.commit):
            return self.refuse(404, "RevisionNotFound")
        siblings = []
        for path, content in repository.files.items():
            entry = {"rfilename": path, "size": len(content), "blobId": self.hub.announce.get(path, git_hash(content))}
            if len(content) >= LARGE:
                key = self.hub.announce.get(path, sha256(content))
                entry["lfs"] = {"sha256": key, "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        known = {"id": name, "sha": repository.commit, "gated": repository.gated, "siblings": siblings}
        return self.send(200, json.dumps(known).encode(), {"Content-Type": "application/json"})

    def resolve(self, name: str, revision: str, path: str, headers: dict[str, str]) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None or revision not in ("main", repository.commit):
            return self.refuse(401, "RepoNotFound")
        if repository.gated and headers.get("authorization") != f"Bearer {repository.token}":
            return self.refuse(401, "GatedRepo")
        if path not in repository.files:
            return self.refuse(404, "EntryNotFound")
        content = repository.files[path]
        told = {"X-Repo-Commit": repository.commit}
        if len(content) < LARGE:
            return self.hand_out(content, path, {**told, "ETag": f'"{git_hash(content)}"'}, headers)
        elsewhere = self.hub.url.replace("127.0.0.1", "localhost") + f"/cdn/{name}/{path}"
        linked = {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
        return self.send(302, b"", {**told, **linked, "Location": elsewhere})

    def hand_out(self, content: bytes, path: str, told: dict[str, str], headers: dict[str, str]) -> None:
        if self.command == "GET":
            self.hub.sent.append((path, headers))
        asked = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        if not asked or self.hub.ignore_ranges:
            return self.send(200, content, told)
        begin = int(asked[1])
        told["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        return self.send(206, content[begin:], told)

    def refuse(self, status: int, code: str) -> None:
        self.send(status, b"", {"X-Error-Code": code} if code else {})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.path.startswith("/cdn/") and self.hub.cut_after:
            body = body[: self.hub.cut_after.pop(0)]
            self.close_connection = True
        self.wfile.write(body)
