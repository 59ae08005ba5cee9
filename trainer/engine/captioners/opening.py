"""A captioner, ready to be asked."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from trainer.captioning.catalogue import CAPTIONERS, CaptionSettings
from trainer.captioning.from_metadata import prompt_of
from trainer.captioning.from_names import from_file_name, from_folder_names
from trainer.captioning.from_similar import Nearest
from trainer.dataset.captions import Item
from trainer.models.hub import fetch

Caption = Callable[[Item], str]  # an image's caption, empty where there is none; raises UnreadableImage
Stage = Literal["download", "load", "compare", "caption"]
Report = Callable[[Stage, int, int], None]  # phase, how far, of how much; may raise to break off
MIB = 2**20


def open_captioner(settings: CaptionSettings, items: Sequence[Item], report: Report) -> Caption:
    """The chosen captioner with its model loaded, fetched first where that was allowed.

    Args:
        settings: Which, and how.
        items: All images of the set.
        report: Called with a phase, images done and their total.

    Raises:
        CaptionerError: A library or the model is missing, or the file is not such a model.
        HubError: The model cannot be fetched.
    """
    folder = Path(settings.folder)
    if settings.captioner == "file-names":
        return lambda item: from_file_name(item.name)
    if settings.captioner == "folder-names":
        return lambda item: from_folder_names(folder, item.name)
    if settings.captioner == "metadata":
        return lambda item: prompt_of(item.path)
    if settings.captioner == "nearest":
        return Nearest(items, lambda done, total: report("compare", done, total)).suggest
    model = _model(settings, report)
    report("load", 0, 0)
    if settings.captioner == "wd14":
        from trainer.engine.captioners.wd14 import Tagger

        return Tagger(model, settings.general_threshold, settings.character_threshold)
    from trainer.engine.captioners.language import Blip, Florence2

    return Blip(model) if settings.captioner == "blip" else Florence2(model, settings.detail)


def _model(settings: CaptionSettings, report: Report) -> Path:
    """The folder of the captioner's model."""
    captioner = CAPTIONERS[settings.captioner]
    captioner.check(settings)
    here = captioner.here(settings.model)
    if here is not None:
        return here
    return fetch(captioner.look(settings.model), lambda done, total: report("download", done // MIB, total // MIB))
