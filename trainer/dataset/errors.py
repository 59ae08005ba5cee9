"""What can be wrong with a folder of images."""

from pathlib import Path

from trainer.contract.errors import TrainerError


class DatasetError(TrainerError):
    """The images cannot be used."""

    code = "dataset"


class FolderMissing(DatasetError):
    """The image folder is not there, or is not a folder."""

    code = "folder_missing"
    what = "The image folder {folder} {state}."
    remedy = "Give the folder that holds your images."

    def __init__(self, folder: Path) -> None:
        state = "is a file, not a folder" if folder.is_file() else "does not exist"
        super().__init__(folder=folder, state=state)


class NoImages(DatasetError):
    """The folder holds nothing that can be trained on."""

    code = "no_images"
    what = "No images in {folder} ({other_files})."
    remedy = "Choose a folder that holds .jpg, .png or .webp files."


class NothingToTrain(DatasetError):
    """There are images, but none of them can be trained on."""

    code = "nothing_to_train"
    what = "None of the images in {folder} can be trained on: {why}."
    remedy = "Add images that an image viewer opens, or include some that are excluded."


class UnreadableImage(DatasetError):
    """An image cannot be decoded."""

    code = "unreadable_image"
    what = "The image {path} cannot be read: {cause}."
    remedy = "Open it in an image viewer and save it again, or remove it from the folder."

    def __init__(self, path: Path, cause: str) -> None:
        self.path = path
        self.cause = cause
        super().__init__(path=path, cause=cause)
