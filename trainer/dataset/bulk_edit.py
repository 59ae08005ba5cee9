"""Bulk edits of captions: tags added, removed and renamed, text replaced, the trigger word put first."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trainer.dataset.captions import tags_of, with_trigger

Kind = Literal["add", "remove", "rename", "replace", "trigger"]


@dataclass(frozen=True)
class Edit:
    """One change to every caption that it fits; a tag is what stands between commas, whatever its capitals."""

    kind: Kind
    find: str = ""  # the tag to remove or rename, or the text to replace
    put: str = ""  # the tag to add, the new name or text, or the trigger word
    first: bool = False  # add in front


def edited(caption: str, edit: Edit) -> str:
    """Returns the caption after the change, unchanged where it does not apply."""
    tags, find, put = tags_of(caption), edit.find.strip().lower(), edit.put.strip()
    match edit.kind:
        case "add" if put and put.lower() not in _small(tags):
            return ", ".join([put, *tags] if edit.first else [*tags, put])
        case "remove" if find in _small(tags):
            return ", ".join(tag for tag in tags if tag.lower() != find)
        case "rename" if put and find in _small(tags):
            return ", ".join(_once([put if tag.lower() == find else tag for tag in tags]))
        case "replace" if edit.find:
            fresh = re.sub(re.escape(edit.find), lambda _: edit.put, caption, flags=re.IGNORECASE)
            return caption if fresh == caption else re.sub(r"(\s*,\s*){2,}", ", ", fresh).strip(" ,")
        case "trigger":
            return with_trigger(caption, put)
    return caption


def changed(captions: Mapping[str, str], edit: Edit) -> dict[str, str]:
    """The new captions of those that the change changes, by the same names."""
    fresh = {name: edited(caption, edit) for name, caption in captions.items()}
    return {name: caption for name, caption in fresh.items() if caption != captions[name]}


def _small(tags: list[str]) -> list[str]:
    return [tag.lower() for tag in tags]


def _once(tags: list[str]) -> list[str]:
    """The tags without those that came before, whatever their capitals."""
    kept: dict[str, str] = {}
    for tag in tags:
        kept.setdefault(tag.lower(), tag)
    return list(kept.values())
