"""Class images of the user's own, for prior preservation: concepts of class images, and folders such as `reg`."""

import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from trainer.contract.settings.dataset import Concept, DatasetSettings
from trainer.dataset.captions import Item, with_choices
from trainer.dataset.errors import FolderMissing, NoImages
from trainer.dataset.folders import listing
from trainer.dataset.scan import scan


def with_regularization(settings: DatasetSettings) -> DatasetSettings:
    """The settings with the regularization images within its folders as concepts of class images.

    Folders without an image are none, and those that a concept names already stay as they are.

    Raises:
        NothingToTrain: Of one's images none can be opened.
    """
    named = {folder.resolve() for folder in settings.folders}
    found: dict[Path, None] = {}
    for number, folder in enumerate(settings.folders):
        if number not in settings.class_folders:
            with suppress(FolderMissing):  # which is said where it is read
                apart = named - {folder.resolve()}
                found |= dict.fromkeys(path.absolute() for path in listing(folder, apart).class_folders)
    fresh = []
    for path in found:
        with suppress(NoImages):
            scan(path)
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
