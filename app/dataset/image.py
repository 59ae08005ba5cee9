"""One image as it is trained: its crop and bucket, the very pixels and words that the model gets, and its mask."""

import base64
import binascii
import hashlib
import io
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path, PurePath
from typing import Annotated, TypedDict

from PIL import Image
from pydantic import Field

from app.dataset.folder import ImageFolder
from app.dataset.grid import Asked, GridData, item_of, made
from app.desk.presets import preset_config
from app.kit.questions import Answer, answer
from app.kit.text import say
from trainer.contract.errors import InvalidSettings
from trainer.contract.files import atomic_write
from trainer.contract.home import Home
from trainer.contract.ours import check_below
from trainer.contract.settings.config import TrainConfig, validated
from trainer.contract.units import size
from trainer.dataset.buckets import Crop, crops, grid_step
from trainer.dataset.captions import Item, captions_of
from trainer.dataset.clip_tokens import reading
from trainer.dataset.errors import DatasetError
from trainer.dataset.images import cut, load_image, read_image, read_mask, same_shape
from trainer.dataset.overlay import overlay_file, with_overlays
from trainer.models.lookup import depths_of

STAGE_PX = 1100  # long side of the image that a crop or mask is drawn on
MASK_PX = 2048  # longest side of a mask
MASK_BYTES = 4_000_000
PNG = "data:image/png;base64,"
Share = Annotated[float, Field(ge=0, le=1)]


class AsTrained(Asked):
    """A question whose answer depends on how the images are trained."""

    preset: str
    trigger_word: str = ""
    resolution: int | float = 0  # 0: the preset's

    def config(self, home: Home) -> TrainConfig:
        """The preset's settings with this folder and these words.

        Raises:
            TrainerError: There is no such preset, or it cannot be trained so.
        """
        config = preset_config(home, self.preset)
        dataset = {**config.dataset.model_dump(), "images": self.folder, "trigger_word": self.trigger_word}
        if self.resolution:
            dataset["resolution"] = self.resolution
        try:
            made = validated({**config.model_dump(), "dataset": dataset})
        except InvalidSettings as error:
            hint = "Give a whole number of px as the resolution, or none for the preset's; or another trigger word."
            raise InvalidSettings(error.message, hint=hint, places=error.places) from None
        return made.model_copy(update={"dataset": with_overlays(made.dataset, home)})


class Looked(AsTrained):
    """One image, in one of its views."""

    name: str
    view: int = Field(0, ge=0)


class Focused(AsTrained):
    """A focus point for one image; None is its middle."""

    name: str
    focus: tuple[Share, Share] | None


class Masked(Asked):
    """A mask painted for one image, as the data URL of a PNG; None removes it."""

    name: str
    png: str | None


class Frame(TypedDict):
    """What a crop keeps, in shares of the image's width and height."""

    left: float
    top: float
    width: float
    height: float


class TrainedData(TypedDict):
    """One image with all that happens to it."""

    name: str
    caption: str
    image: str  # the whole image, as a data URL
    size: tuple[int, int]
    frame: Frame
    focus: tuple[float, float] | None
    trained: str  # exactly what the model is fed, as a data URL
    facts: str
    words: str  # the caption of this view, as far as it is read
    cut: str  # and what of it is not
    tokens: str
    views: int  # captions and sizes that come in turn
    mask: str | None
    own_mask: bool  # drawn here
    left_out: bool


def answers(home: Home) -> list[Answer]:
    """The functions that the script calls for one image, by their names."""

    def look_at(asked: Looked, tongue: str) -> TrainedData:
        """Everything about one image."""
        return trained_data(ImageFolder.of(home, asked.folder, again=False), asked, asked.config(home), tongue)

    def frame(asked: Focused, _tongue: str) -> dict[str, Frame]:
        """What the crop would keep with this focus point."""
        item = item_of(ImageFolder.of(home, asked.folder, again=False), asked.name)
        return {"frame": frame_of(crop_of(replace(item, focus=asked.focus), asked.config(home)))}

    def set_focus(asked: Focused, tongue: str) -> GridData:
        """Keep the focus point."""
        images = ImageFolder.of(home, asked.folder, only=[asked.name])
        item_of(images, asked.name)
        edit = partial(replace, focus=asked.focus)
        what = say(tongue, "dataset.did.focus" if asked.focus else "dataset.did.no_focus", name=asked.name)
        return made(home, asked, {asked.name: edit}, what, tongue)

    def set_mask(asked: Masked, tongue: str) -> GridData:
        """Keep the mask."""
        images = ImageFolder.of(home, asked.folder, only=[asked.name])
        item = item_of(images, asked.name)
        mask = None if asked.png is None else keep_mask(images, item, asked.png)
        done = "mask" if mask else "no_mask" if asked.png is None else "all_learnt"
        what = say(tongue, f"dataset.did.{done}", name=asked.name)
        return made(home, asked, {asked.name: partial(replace, mask=mask)}, what, tongue)

    return [answer(Looked, look_at), answer(Focused, frame), answer(Focused, set_focus), answer(Masked, set_mask)]


def crop_of(item: Item, config: TrainConfig, view: int = 0) -> Crop:
    """How the image is scaled and cut for the model, at its sizes in turn."""
    made = crops(item.width, item.height, item.focus, grid_step(*depths_of(config.model)), config.dataset)
    return made[view % len(made)]


def frame_of(crop: Crop) -> Frame:
    """What the crop keeps of the image."""
    scaled = crop.scaled
    return {
        "left": crop.left / scaled.width,
        "top": crop.top / scaled.height,
        "width": crop.bucket.width / scaled.width,
        "height": crop.bucket.height / scaled.height,
    }


def trained_pixels(item: Item, crop: Crop, background: str) -> Image.Image:
    """The image exactly as the model is fed with it, RGB."""
    return cut(read_image(item.path, covering=crop.scaled).on(background), crop)


def trained_data(images: ImageFolder, asked: Looked, config: TrainConfig, tongue: str) -> TrainedData:
    """One image with all that happens to it.

    Raises:
        TrainerError: It is not there, or cannot be decoded.
    """
    item = item_of(images, asked.name)
    crop, forms = crop_of(item, config, asked.view), captions_of(item, config.dataset, config.model.seed)
    frame, read = frame_of(crop), reading(forms[asked.view % len(forms)], config.dataset.caption_tokens)
    kept = f"{frame['width'] * frame['height']:.0%}"
    return {
        "name": asked.name,
        "caption": item.caption,
        "image": _whole(item.path, item.path.stat().st_mtime_ns),
        "size": (item.width, item.height),
        "frame": frame,
        "focus": item.focus,
        "trained": _data_url(trained_pixels(item, crop, config.dataset.background), "PNG"),
        "facts": say(tongue, "dataset.facts", width=crop.bucket.width, height=crop.bucket.height, kept=kept),
        "words": read.read,
        "cut": read.cut,
        "tokens": say(tongue, "dataset.tokens", count=read.tokens, room=config.dataset.caption_tokens),
        "views": max(len(forms), 1 + len(config.dataset.further_resolutions)),
        "mask": _mask_url(item),
        "own_mask": images.entry(asked.name).mask is not None,
        "left_out": images.entry(asked.name).left_out,
    }


def keep_mask(images: ImageFolder, item: Item, png: str) -> str | None:
    """Save a mask under the name of its content; returns its path relative to the overlay's folder, None for no mask.

    Raises:
        DatasetError: No PNG, or one of another shape than the image.
    """
    if (needed := len(png) * 3 // 4) > MASK_BYTES:
        why = f"it takes {size(needed)}, and {size(MASK_BYTES)} are allowed"
        raise DatasetError(f"The mask of {item.name} cannot be saved: {why}.", hint="Draw it again.")
    try:
        data = base64.b64decode(png.removeprefix(PNG), validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as file:
            _check_shape(item, *file.size)  # before anything is decoded
            grey = file.convert("L")
    except (binascii.Error, OSError, ValueError, SyntaxError) as error:
        raise DatasetError(f"The mask of {item.name} cannot be saved: {error}.", hint="Draw it again.") from None
    if grey.getextrema() == (255, 255) and images.own[item.name].mask is None:
        return None  # all is learnt, as without a mask; over one that the folder holds it has to be said
    content = io.BytesIO()
    grey.save(content, "PNG", optimize=True)
    name = f"masks/{hashlib.sha256(content.getvalue()).hexdigest()[:16]}.png"
    ours = overlay_file(images.home, images.folder).parent
    check_below(ours.parent, PurePath(ours.name, name))
    atomic_write(ours / name, content.getvalue())
    return name


def _check_shape(item: Item, width: int, height: int) -> None:
    """Raise a ValueError if a mask is too large, or not the image scaled to whole numbers of px."""
    if max(width, height) > MASK_PX or not same_shape(width, height, item.width, item.height):
        raise ValueError(f"it has {width} × {height} px, the image {item.width} × {item.height}")


def _data_url(image: Image.Image, kind: str) -> str:
    """The image within an address, so that it needs no file."""
    content = io.BytesIO()
    image.save(content, kind, **({"quality": 88} if kind == "JPEG" else {"compress_level": 1}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


@lru_cache(maxsize=4)  # a stroke of the brush asks for its image again
def _whole(path: Path, _changed: int) -> str:
    image = load_image(path)
    image.thumbnail((STAGE_PX, STAGE_PX))
    return _data_url(image, "JPEG")


def _mask_url(item: Item) -> str | None:
    """The item's mask small enough to be drawn on, if it has one that is trained."""
    if item.mask is None:
        return None
    try:
        mask = read_mask(item.mask, item.width, item.height)
    except DatasetError:
        return None
    mask.thumbnail((STAGE_PX, STAGE_PX))
    return _data_url(mask, "PNG")
