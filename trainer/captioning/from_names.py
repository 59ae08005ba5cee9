"""Captions from what an image's file and its folders are called."""

import re
from pathlib import Path

from trainer.dataset.folders import words_of_folder

SEPARATORS = re.compile(r"[_\s]+|(?<=\w)-(?=\d)|(?<=\d)-(?=\w)|\s*\((?=\d+\))|(?<=\d)\)")
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
COUNTER = re.compile(r"[\d.:+-]+|[0-9a-f]{8,}", re.IGNORECASE)
# What cameras, telephones and programs call every image
PROGRAMS = {
    "comfyui", "copy", "dcim", "dji", "dsc", "dscf", "dscn", "file", "gopr", "image", "img", "mvimg", "photo", "pic",
    "picture", "pxl", "sam", "scan", "screenshot", "tmp", "untitled", "wa", "whatsapp",
}  # fmt: skip


def from_file_name(name: str) -> str:
    """The words of an image's file name, without counters, dates and what a camera calls every image."""
    stem = UUID.sub("", Path(name).stem)
    if not re.search(r"[_\s]", stem):  # else a hyphen joins two words to one
        stem = stem.replace("-", " ")
    words = [word for word in SEPARATORS.split(stem) if word.strip("-. ")]
    words = [word for word in words if not COUNTER.fullmatch(word)]
    kept = [word for word in words if re.sub(r"[\d-]+$", "", word).lower() not in PROGRAMS]
    return " ".join(kept).strip(" ,-")


def from_folder_names(folder: Path, name: str) -> str:
    """The names of the folders between `folder` and the image, as tags; that of `folder` itself if there is none.

    Args:
        folder: The data set's.
        name: The image's path relative to it, with forward slashes.
    """
    parts = name.split("/")[:-1] or [folder.name]
    tags = [" ".join(re.split(r"[_\s]+", words_of_folder(part))).strip() for part in parts]
    return ", ".join(tag for tag in tags if tag)
