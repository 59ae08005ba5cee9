"""Which images: what is in a folder, and a folder for dropped files."""

import re
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from html import escape
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from app.kit.cards import problem_card
from app.kit.text import say
from app.kit.wording import html_of
from app.server.files import thumbnail_url
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home
from trainer.contract.ours import check, check_all
from trainer.contract.pasted import pasted
from trainer.dataset import caption_files, formats, mask_files
from trainer.dataset.overlay import existing_overlay
from trainer.dataset.problems import uncalled
from trainer.dataset.scan import look

THUMBNAILS = 13  # and how many more: two rows of seven
DROPPED = (*formats.SUFFIXES, *caption_files.SUFFIXES)
IMAGE_SUFFIX, CAPTION_SUFFIX = ("|".join(map(re.escape, known)) for known in (formats.SUFFIXES, caption_files.SUFFIXES))
MASK_ENDING = "|".join(map(re.escape, (*mask_files.ENDINGS, *mask_files.COMMON)))
COMPANION = re.compile(  # a.txt, a.png.txt, a.mask.png and a_mask.png belong to an image
    rf"(?P<stem>.+?)(?P<tail>(?P<of>{IMAGE_SUFFIX})?(?:{CAPTION_SUFFIX})"
    rf"|(?:{MASK_ENDING})(?:{IMAGE_SUFFIX}))",
    re.IGNORECASE,
)


def dataset_link(values: Mapping[str, Any], preset: str) -> str:
    """Returns the address of the Dataset page, which then checks what is trained; empty without a folder."""
    folder = Path(pasted(str(values["dataset.images"] or ""))).expanduser()
    if not folder.name or not folder.is_dir():
        return ""
    resolution, trigger = values["dataset.resolution"], values["dataset.trigger_word"]
    chosen = {"preset": preset, "trigger": trigger, "resolution": resolution}
    return f"/dataset?{urlencode({'images': str(folder), **{key: value for key, value in chosen.items() if value}})}"


def images_html(home: Home, folder: Path, trigger_word: str, tongue: str) -> str:
    """Returns what is in the folder as HTML, and what of it matters with this trigger word or none."""
    try:
        items, problems = look(folder, existing_overlay(home, folder))
    except TrainerError as error:
        return problem_card(error, tongue)
    thumbs = "".join(
        f'<img src="{thumbnail_url(item.path)}" alt="{escape(item.caption or item.name, quote=True)}">'
        for item in items[:THUMBNAILS]
    )
    more = f'<span class="more">+{len(items) - THUMBNAILS}</span>' if len(items) > THUMBNAILS else ""
    notes = "".join(
        f'<li>{html_of(p.message, tongue)} <span class="quiet">{html_of(p.hint, tongue)}</span></li>'
        for p in (uncalled(problem, trigger_word) for problem in problems)
    )
    counted = say(tongue, "train.counted", images=len(items), captions=sum(bool(item.caption) for item in items))
    return f'<p class="counted"><strong>{counted}</strong></p><div class="thumbs">{thumbs}{more}</div>' + (
        f'<ul class="problems">{notes}</ul>' if notes else ""
    )


def keep_dropped(home: Home, files: list[Path], folder: Path | None = None) -> Path:
    """Put the images and captions among these files into a folder of the home; returns it.

    No file takes another's place: of two of one name the second gets a number, its caption and its mask with it.

    Args:
        home: Where the folder is, `datasets/dropped-TIME`.
        files: What was dropped; uploads, which lie among the home's temporary files, are moved, others copied.
        folder: One that an earlier drop made, to be added to; None, or any other: a new one.

    Raises:
        NotOurs: The folder, or something in it, leads elsewhere.
        OSError: No room, or not readable; what was kept by then stays.
    """
    if folder is None or folder.parent != home.root / "datasets" or not folder.name.startswith("dropped-"):
        folder = _fresh_folder(home)
    check(folder, folder=True)
    check_all(folder, deepest=1)
    taken = {name.lower() for path in folder.iterdir() for name in (path.name, path.stem)}
    wanted = [file for file in files if file.suffix.lower() in DROPPED]
    beside = {file: COMPANION.fullmatch(file.name) for file in wanted}
    named: dict[str, list[tuple[str, str]]] = {}  # by stem, those that images got, with their suffixes, in order
    given: Counter[tuple[str, str]] = Counter()  # how many images of a stem have got such a file
    for file in sorted(wanted, key=lambda file: beside[file] is not None):
        match = beside[file]
        stem, tail = (match["stem"], match["tail"]) if match else (file.stem, file.suffix)
        of = (match["of"] or "").lower() if match else ""
        images = [one for one, suffix in named.get(stem, []) if of in ("", suffix.lower())]
        if match and given[stem, tail] < len(images):
            fresh = images[given[stem, tail]]
            given[stem, tail] += 1
        else:
            fresh = _free_stem(taken, stem, tail, beside_image=match is not None)
            if not match:
                named.setdefault(stem, []).append((fresh, tail))
        keep = shutil.move if file.resolve().is_relative_to(home.temporary) else shutil.copyfile
        keep(file, folder / f"{fresh}{tail}")
        taken |= {fresh.lower(), f"{fresh}{tail}".lower()}
    return folder


def _fresh_folder(home: Home) -> Path:
    stem = home.root / "datasets" / f"dropped-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = next(one for n in count(1) if not (one := stem if n == 1 else stem.with_name(f"{stem.name}-{n}")).exists())
    folder.mkdir(parents=True)
    return folder


def _free_stem(taken: set[str], stem: str, suffix: str, beside_image: bool) -> str:
    """The stem, or the stem and a number, that no file has; a caption goes beside its image if that has none.

    What is taken, with suffix and without, is in lower case: some systems know no other.
    """
    numbered = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    return next(one for one in numbered if (one + suffix * beside_image).lower() not in taken)
