"""The files a browser may see, below `/atelier/`: a run's images and LoRA files, own presets, thumbnails."""

import functools
import hashlib
import io
import json
import logging
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from PIL import Image, ImageDraw
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.staticfiles import NotModifiedResponse

from app.server.access import logged_in
from app.server.safety import refusal
from trainer.contract.errors import TrainerError, isolated
from trainer.contract.files import atomic_write
from trainer.contract.home import Home
from trainer.dataset.buckets import Size
from trainer.dataset.images import read_image
from trainer.projects.project import Project
from trainer.projects.transfer import exported
from trainer.runs.folder import RunFolder

THUMB_PX = 256
REMEMBERED = 50_000  # addresses of thumbnails
UNREADABLE = "unreadable"  # in the place of a thumbnail's key: the image could not be read

FOREVER = "private, max-age=31536000, immutable"  # the address changes with the content
ASK = "private, no-cache"  # kept, but the server is asked each time whether it is still the newest
SHOWN = (  # of a run's folder: name, media type, how long a browser keeps it
    (re.compile(r"samples/[^/]+\.png"), "image/png", FOREVER),
    (re.compile(r"before-after\.png|[^/]+\.(?:preview|strength)\.png"), "image/png", ASK),
    (re.compile(r"(?:handover/)?[^/]+\.safetensors"), "application/octet-stream", ASK),
)
THUMB_KEY = re.compile(r"[0-9a-f]{64}")
# Hidden files, `.` and `..`; and what means more than a name on some system: drives, streams, other separators
NEVER = re.compile(r'(?:^|/)\.|[\x00-\x1f\x7f\\:*?"<>|]')

_images: dict[str, Path] = {}  # of which image a thumbnail is, by its key: only addresses given out lead to a file
_log = logging.getLogger(__name__)


def routes(home: Home) -> list[Route]:
    """Returns the routes for `launch(app_kwargs={"routes": ...})`; a login of Gradio's guards them too."""

    def run_file(request: Request) -> Response:
        """A run's preview, sheet or LoRA file; anything else of the run is not there."""
        run, name = request.path_params["run"], request.path_params["name"]
        for pattern, kind, keep in SHOWN:
            if pattern.fullmatch(name):
                return _file(request, home.runs, f"{run}/{name}", kind, keep)
        return _missing(request)

    def thumbnail(request: Request) -> Response:
        """An image's thumbnail, made at the first request, or the placeholder."""
        key = request.path_params["key"]
        if key == UNREADABLE:
            return Response(_placeholder(), media_type="image/jpeg", headers={"cache-control": ASK})
        if not THUMB_KEY.fullmatch(key):
            return _missing(request)
        if key in _images and not _made(home, key):
            return Response(_placeholder(), media_type="image/jpeg", headers={"cache-control": ASK})
        return _file(request, _thumbnails(home), f"{key}.jpg", "image/jpeg", FOREVER)

    return [
        *_toml_routes(home),
        Route("/atelier/run/{run}/{name:path}", guarded(run_file)),
        Route("/atelier/thumb/{key}.jpg", guarded(thumbnail)),
        Route("/atelier/{rest:path}", guarded(_missing)),
    ]


def _toml_routes(home: Home) -> list[Route]:
    """What the user can take along as TOML."""

    def preset(request: Request) -> Response:
        """One of the user's presets, as a file."""
        return _file(request, home.presets, f"{request.path_params['name']}.toml", "application/toml", ASK)

    def project(request: Request) -> Response:
        """A project as a file that stands alone."""
        try:
            text = exported(Project.named(home, request.path_params["name"]))
        except TrainerError:
            return _missing(request)
        return Response(text, media_type="application/toml", headers={"cache-control": ASK})

    return [
        Route("/atelier/preset/{name}.toml", guarded(preset)),
        Route("/atelier/project/{name}.toml", guarded(project)),
    ]


def run_url(run: RunFolder, name: str) -> str:
    """Returns the address of one of a run's files, by its relative name.

    The time of its last change is part of it: after a rollback a preview may be generated again under its old name.
    """
    try:
        changed = f"?{(run.path / name).stat().st_mtime_ns:x}"
    except (OSError, ValueError):  # the last is a name that no file can have
        changed = ""
    return f"/atelier/run/{quote(run.path.name)}/{quote(name)}{changed}"


def thumbnail_url(image: Path) -> str:
    """The address of an image's thumbnail, which is made when a browser asks for it; a placeholder's if it is gone."""
    path = image.absolute()
    try:
        seen = path.stat()
    except OSError:
        return f"/atelier/thumb/{UNREADABLE}.jpg"
    key = hashlib.sha256(os.fsencode(path) + f"\0{seen.st_mtime_ns}\0{seen.st_size}".encode()).hexdigest()
    _images.pop(key, None)  # the newest stand last
    _images[key] = path
    while len(_images) > REMEMBERED:
        _images.pop(next(iter(_images)), None)
    return f"/atelier/thumb/{key}.jpg"


def _note(_code: str, message: str, _hint: str) -> None:
    _log.warning(message)


def _thumbnails(home: Home) -> Path:
    """Small copies of images, named by where these lie and when they changed; safe to delete."""
    return home.root / "thumbnails"


def _made(home: Home, key: str) -> bool:
    """Whether the thumbnail of this key is there, made now if it was not."""
    target = _thumbnails(home) / f"{key}.jpg"
    if not target.is_file():
        with isolated(f"The thumbnail of {_images[key]}", _note):
            atomic_write(target, _small(_images[key]))
    return target.is_file()


def _small(path: Path) -> bytes:
    """A JPEG of at most 256 px a side, as the image is trained, without the original's metadata."""
    image = read_image(path, covering=Size(THUMB_PX, THUMB_PX)).on("white")
    image.thumbnail((THUMB_PX, THUMB_PX), Image.Resampling.LANCZOS)
    return _jpeg(image)


@functools.cache
def _placeholder() -> bytes:
    """A crossed-out frame: there is a file, but no image to show."""
    image = Image.new("RGB", (THUMB_PX, THUMB_PX), "#eceef2")
    pen = ImageDraw.Draw(image)
    pen.rectangle((48, 64, 208, 192), outline="#6b6f78", width=6)
    pen.line((48, 192, 208, 64), fill="#b3261e", width=8)
    pen.line((48, 64, 208, 192), fill="#b3261e", width=8)
    return _jpeg(image)


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85, optimize=True)
    return buffer.getvalue()


def guarded(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Returns the route's function, restricted to those who are logged in."""

    def checked(request: Request) -> Response:
        """The answer, or 401 to who is not logged in."""
        if logged_in(request):
            return answer(request)
        return refusal(401, "You are not logged in.", "Open the page itself and log in there.")

    return checked


def _file(request: Request, root: Path, name: str, kind: str, keep: str) -> Response:
    """The file `name` below `root`: shown if it is an image, else downloaded under its own name."""
    found = _inside(root, name)
    if found is None:
        return _missing(request)
    path, seen = found
    download = None if kind.startswith("image/") else path.name
    response = FileResponse(path, media_type=kind, filename=download, stat_result=seen, headers={"cache-control": keep})
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return NotModifiedResponse(response.headers) if response.headers["etag"] in known else response


def _inside(root: Path, name: str) -> tuple[Path, os.stat_result] | None:
    """The plain file of exactly this name below `root` and what the system says of it, else None.

    A file has one name here: whoever comes to it by a link, a detour or another spelling finds nothing, so a link
    in a run's folder opens no way out of it, nor to the files beside it.
    """
    if NEVER.search(name):
        return None
    base = root.resolve()
    try:
        path = (base / name).resolve()
        seen = path.stat()
    except (OSError, ValueError, RuntimeError):  # the last is how Python 3.11 reports links in a circle
        return None
    exact = path.is_relative_to(base) and path.relative_to(base).as_posix() == name
    return (path, seen) if exact and stat.S_ISREG(seen.st_mode) else None


def _missing(request: Request) -> PlainTextResponse:
    """The answer where there is nothing to see."""
    return refusal(
        404,
        f"Nothing to see at {json.dumps(request.scope['path'][:200])}.",
        "Previews, LoRA files and thumbnails are served here; a run's other files are in its folder.",
    )
