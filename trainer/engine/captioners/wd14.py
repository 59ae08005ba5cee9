"""Tags by a WD14 tagger (SmilingWolf's models on the Hugging Face hub) in onnxruntime."""

import csv
import re
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as failures
from PIL import Image

from trainer.captioning.catalogue import CAPTIONERS
from trainer.captioning.errors import NotACaptioner
from trainer.dataset.captions import Item
from trainer.dataset.images import load_image

GENERAL, CHARACTER = "0", "4"  # categories of selected_tags.csv; 9 are ratings
PROVIDERS = ("CUDAExecutionProvider", "DmlExecutionProvider", "CoreMLExecutionProvider", "CPUExecutionProvider")
USUAL_SIDE = 448  # px
BROKEN = (
    failures.Fail,
    failures.InvalidArgument,
    failures.InvalidGraph,
    failures.InvalidProtobuf,
    failures.NotImplemented,
    failures.RuntimeException,
)


class Tagger:
    """A tagger with its model loaded."""

    def __init__(self, folder: Path, general_threshold: float, character_threshold: float) -> None:
        """Loads the model.

        Args:
            folder: It holds model.onnx and selected_tags.csv.
            general_threshold: How sure it must be of a tag, 0 to 1.
            character_threshold: The same for a character's name.

        Raises:
            NotACaptioner: They are no tagger's.
        """
        self.thresholds = {GENERAL: general_threshold, CHARACTER: character_threshold}
        self.tags = _read_tags(folder)
        present = onnxruntime.get_available_providers()
        try:
            self.session = onnxruntime.InferenceSession(
                folder / "model.onnx", providers=[one for one in PROVIDERS if one in present]
            )
        except BROKEN as error:
            raise _refused(folder, f"model.onnx cannot be read: {error}") from error
        self.entrance = self.session.get_inputs()[0]
        shape, tags = self.entrance.shape, self.session.get_outputs()[0].shape[-1]
        if len(shape) != 4 or shape[3] != 3 or (isinstance(tags, int) and tags != len(self.tags)):
            raise _refused(folder, f"model.onnx takes {shape} and tells {tags} of {len(self.tags)} tags")
        self.side = shape[1] if isinstance(shape[1], int) else USUAL_SIDE

    def __call__(self, item: Item) -> str:
        """The image's tags: names of characters, then what is seen, each the surest first.

        Raises:
            UnreadableImage: It cannot be decoded.
        """
        pixels = prepared(load_image(item.path), self.side)
        (sureness,) = self.session.run(None, {self.entrance.name: pixels[None]})[0]
        found = sorted(zip(sureness.tolist(), self.tags, strict=True), key=lambda one: -one[0])
        return ", ".join(
            name
            for kind in (CHARACTER, GENERAL)
            for sure, (name, category) in found
            if category == kind and sure > self.thresholds[kind]
        )


def prepared(image: Image.Image, side: int) -> NDArray[np.float32]:
    """The image as these taggers were trained on it: padded to a square with white, (side, side, 3) BGR in 0 to 255.

    After https://huggingface.co/spaces/SmilingWolf/wd-tagger.
    """
    longer = max(image.size)
    square = Image.new("RGB", (longer, longer), "white")
    square.paste(image, ((longer - image.width) // 2, (longer - image.height) // 2))
    scaled = square.resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(scaled, np.float32)[:, :, ::-1])


def readable(name: str) -> str:
    """The tag with blanks for underscores, unless it is a face such as ^_^."""
    return name.replace("_", " ") if re.search(r"[^\W\d_]{2}", name) else name


def _read_tags(folder: Path) -> list[tuple[str, str]]:
    """Each output's name and category."""
    try:
        with (folder / "selected_tags.csv").open(encoding="utf-8", newline="") as file:
            return [(readable(row["name"]), row["category"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise _refused(folder, f"selected_tags.csv cannot be read ({type(error).__name__}: {error})") from None


def _refused(folder: Path, why: str) -> NotACaptioner:
    return CAPTIONERS["wd14"].refused(folder, why)
