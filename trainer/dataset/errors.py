"""What can be wrong with a folder of images."""

from pathlib import Path

from trainer.contract.errors import TrainerError


class DatasetError(TrainerError):
    """The images cannot be used."""

    code = "dataset"


class FolderMissing(DatasetError):
    """The image folder is not there, or is not a folder."""

    code = "folder_missing"

    def __init__(self, folder: Path) -> None:
        state = "is a file, not a folder" if folder.is_file() else "does not exist"
        super().__init__(f"The image folder {folder} {state}.", hint="Give the folder that holds your images.")


class NoImages(DatasetError):
    """The folder holds nothing that can be trained on."""

    code = "no_images"

    def __init__(self, folder: Path, other_files: int) -> None:
        super().__init__(
            f"No images in {folder} ({other_files} other files).",
            hint="Choose a folder that holds .jpg, .png or .webp files.",
        )


class NothingToTrain(DatasetError):
    """There are images, but none of them can be trained on."""

    code = "nothing_to_train"

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(
            f"None of the images in {folder} can be trained on: {why}.",
            hint="Add images that an image viewer opens, or include some that are excluded.",
        )


class UnreadableImage(DatasetError):
    """An image cannot be decoded."""

    code = "unreadable_image"

    def __init__(self, path: Path, cause: str) -> None:
        self.path = path
        self.cause = cause
        super().__init__(
            f"The image {path} cannot be read: {cause}.",
            hint="Open it in an image viewer and save it again, or remove it from the folder.",
        )
