"""Class images of the user's own, for prior preservation: concepts of class images, and a kohya_ss project's `reg`."""

import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from trainer.contract.settings.dataset import Concept, DatasetSettings
from trainer.dataset.captions import Item, with_choices
from trainer.dataset.errors import DatasetError
from trainer.dataset.folders import regularization_in
from trainer.dataset.scan import scan


def with_regularization(settings: DatasetSettings) -> DatasetSettings:
    """The settings with the regularization images of kohya_ss projects as concepts of class images.

    Folders without an image are none, and those that a concept names already stay as they are.
    """
    named = {folder.absolute() for folder in settings.folders}
    found = [path for folder in settings.folders for path in regularization_in(folder.absolute())]
    fresh = []
    for path in found:
        with suppress(DatasetError):  # it holds no images
            if path not in named and scan(path):
                fresh.append(Concept(images=str(path), class_images=True))
    return settings.model_copy(update={"concepts": (*settings.concepts, *fresh)}) if fresh else settings


def class_images_of(settings: DatasetSettings, seed: int) -> list[Item]:
    """Returns the class images of the user's own with one caption each, without trigger words; none if there are none.

    Raises:
        DatasetError: One of their folders cannot be used; see `scan`.
    """
    items = []
    for number in settings.class_folders:
        rules = settings.of_folder(number)
        captions = Path(rules.captions) if rules.captions else None
        found, _ = scan(Path(rules.images), captions, folder_repeats=rules.folder_repeats)
        for item in found:
            chosen = with_choices(item.caption, random.Random(f"{seed}-{number}-{item.name}"))
            items.append(replace(item, caption=chosen, others=(), concept=number, weight=1.0))
    return items
