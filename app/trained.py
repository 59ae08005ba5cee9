"""One picture as it is trained: its crop and bucket, the very pixels and words that the model gets, and its mask."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, TypedDict

from PIL import Image
from pydantic import Field

from app.captions import Answer, Asked, GridData, answer, item_of, made
from app.pages.plan import preset_config
from app.shelf import Pictures
from app.text import say
from trainer.contract.buckets import Crop, bucket_for, crop_to
from trainer.contract.captions import Item, captions_of
from trainer.contract.errors import DatasetError
from trainer.contract.home import POCKET, Home, atomic_write
from trainer.contract.overlay import overlay_file
from trainer.contract.pictures import cut, load_picture, read_mask, read_picture, same_shape
from trainer.contract.settings import TrainConfig, validated
from trainer.contract.tokens import reading

STAGE_PX = 1100  # long side of the picture that a crop or mask is drawn on
MASK_PX = 2048  # longest side of a mask
MASK_BYTES = 4_000_000
PNG = "data:image/png;base64,"
Share = Annotated[float, Field(ge=0, le=1)]


class AsTrained(Asked):
    """A question whose answer hangs on how the pictures are trained."""

    preset: str
    trigger_word: str = ""
    resolution: int = 0  # 0: the preset's

    def config(self, home: Home) -> TrainConfig:
        """The preset's settings with this folder and these words.

        Raises:
            TrainerError: There is no such preset.
        """
        config = preset_config(home, self.preset)
        overlay = overlay_file(home, Path(self.folder))
        changes = {"images": self.folder, "trigger_word": self.trigger_word}
        if overlay.is_file():
            changes["captions"] = str(overlay)
        dataset = {**config.dataset.model_dump(), **changes}
        if self.resolution:
            dataset["resolution"] = self.resolution
        return validated({**config.model_dump(), "dataset": dataset})


class Looked(AsTrained):
    """One picture, in one of its views."""

    name: str
    view: int = Field(0, ge=0)


class Focused(AsTrained):
    """A focus point for one picture; None is its middle."""

    name: str
    focus: tuple[Share, Share] | None


class Masked(Asked):
    """A mask drawn for one picture, as the data URL of a PNG; None takes it away."""

    name: str
    png: str | None = Field(max_length=MASK_BYTES * 4 // 3 + len(PNG))


class Frame(TypedDict):
    """What a crop keeps, in shares of the picture's width and height."""

    left: float
    top: float
    width: float
    height: float


class TrainedData(TypedDict):
    """One picture with all that happens to it."""

    name: str
    caption: str
    picture: str  # the whole picture, as a data URL
    size: tuple[int, int]
    frame: Frame
    focus: tuple[float, float] | None
    trained: str  # exactly what the model is fed, as a data URL
    facts: str
    words: str  # the caption of this view, as far as it is read
    cut: str  # and what of it is not
    told: str  # its tokens
    views: int  # captions and sizes that come in turn
    mask: str | None
    own_mask: bool  # drawn here
    left_out: bool


def answers(home: Home) -> list[Answer]:
    """The functions that the script calls for one picture, by their names."""

    def look_at(asked: Looked, tongue: str) -> TrainedData:
        """Everything about one picture."""
        return trained_data(Pictures.of(home, asked.folder, again=False), asked, asked.config(home), tongue)

    def frame(asked: Focused, _tongue: str) -> dict[str, Frame]:
        """What the crop would keep with this focus point."""
        item = item_of(Pictures.of(home, asked.folder, again=False), asked.name)
        return {"frame": frame_of(crop_of(replace(item, focus=asked.focus), asked.config(home)))}

    def set_focus(asked: Focused, tongue: str) -> GridData:
        """Keep the focus point."""
        pictures = Pictures.of(home, asked.folder)
        item_of(pictures, asked.name)
        entry = replace(pictures.entry(asked.name), focus=asked.focus)
        what = say(tongue, "dataset.did.focus" if asked.focus else "dataset.did.no_focus", name=asked.name)
        return made(home, asked, {asked.name: entry}, what, tongue)

    def set_mask(asked: Masked, tongue: str) -> GridData:
        """Keep the mask."""
        pictures = Pictures.of(home, asked.folder)
        mask = None if asked.png is None else keep_mask(pictures, item_of(pictures, asked.name), asked.png)
        entry = replace(pictures.entry(asked.name), mask=mask)
        what = say(tongue, "dataset.did.mask" if mask else "dataset.did.no_mask", name=asked.name)
        return made(home, asked, {asked.name: entry}, what, tongue)

    return [answer(Looked, look_at), answer(Focused, frame), answer(Focused, set_focus), answer(Masked, set_mask)]


def crop_of(item: Item, config: TrainConfig, view: int = 0) -> Crop:
    """How the picture is scaled and cut for the model, at its sizes in turn."""
    rules = config.dataset
    side = (rules.resolution, *rules.further_resolutions)[view % (1 + len(rules.further_resolutions))]
    bucket = bucket_for(item.width, item.height, side, step_px(config), rules.upscale)
    return crop_to(item.width, item.height, bucket, item.focus)


def step_px(config: TrainConfig) -> int:
    """Sides of buckets are multiples of this: what the model's VAE and UNet halve on their way down."""
    if config.model.family == "sdxl":
        return 32
    if config.model.base_model != "pocket":
        return 64
    parts = [json.loads((POCKET / part / "config.json").read_text(encoding="utf-8")) for part in ("vae", "unet")]
    return math.prod(2 ** (len(part["block_out_channels"]) - 1) for part in parts)


def frame_of(crop: Crop) -> Frame:
    """What the crop keeps of the picture."""
    scaled = crop.scaled
    return {
        "left": crop.left / scaled.width,
        "top": crop.top / scaled.height,
        "width": crop.bucket.width / scaled.width,
        "height": crop.bucket.height / scaled.height,
    }


def trained_pixels(item: Item, crop: Crop, background: str) -> Image.Image:
    """The picture exactly as the model is fed with it, RGB."""
    return cut(read_picture(item.path, covering=crop.scaled).on(background), crop)


def trained_data(pictures: Pictures, asked: Looked, config: TrainConfig, tongue: str) -> TrainedData:
    """One picture with all that happens to it.

    Raises:
        TrainerError: It is not there, or cannot be decoded.
    """
    item = item_of(pictures, asked.name)
    crop, forms = crop_of(item, config, asked.view), captions_of(item, config.dataset, config.model.seed)
    frame, read = frame_of(crop), reading(forms[asked.view % len(forms)], config.dataset.caption_tokens)
    kept = f"{frame['width'] * frame['height']:.0%}"
    return {
        "name": asked.name,
        "caption": item.caption,
        "picture": _whole(item.path, item.path.stat().st_mtime_ns),
        "size": (item.width, item.height),
        "frame": frame,
        "focus": item.focus,
        "trained": _data_url(trained_pixels(item, crop, config.dataset.background), "PNG"),
        "facts": say(tongue, "dataset.facts", width=crop.bucket.width, height=crop.bucket.height, kept=kept),
        "words": read.read,
        "cut": read.cut,
        "told": say(tongue, "dataset.tokens", count=read.tokens, room=config.dataset.caption_tokens),
        "views": max(len(forms), 1 + len(config.dataset.further_resolutions)),
        "mask": _mask_url(item),
        "own_mask": pictures.entry(asked.name).mask is not None,
        "left_out": pictures.entry(asked.name).left_out,
    }


def keep_mask(pictures: Pictures, item: Item, png: str) -> str:
    """The path, relative to the overlay's folder, of a mask that is kept under the name of its content.

    Raises:
        DatasetError: No PNG, or one of another shape than the picture.
    """
    content = io.BytesIO()
    try:
        data = base64.b64decode(png.removeprefix(PNG), validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as file:
            _check_shape(item, *file.size)  # before anything is decoded
            file.convert("L").save(content, "PNG", optimize=True)
    except (binascii.Error, OSError, ValueError, SyntaxError) as error:
        raise DatasetError(f"The mask of {item.name} cannot be kept: {error}.", hint="Draw it again.") from None
    name = f"masks/{hashlib.sha256(content.getvalue()).hexdigest()[:16]}.png"
    atomic_write(overlay_file(pictures.home, pictures.folder).parent / name, content.getvalue())
    return name


def _check_shape(item: Item, width: int, height: int) -> None:
    """Pass a mask that is the picture scaled to whole numbers of px.

    Raises:
        ValueError: It is not, or too large.
    """
    if max(width, height) > MASK_PX or not same_shape(width, height, item.width, item.height):
        raise ValueError(f"it has {width} × {height} px, the picture {item.width} × {item.height}")


def _data_url(picture: Image.Image, kind: str) -> str:
    """The picture within an address, so that it needs no file."""
    content = io.BytesIO()
    picture.save(content, kind, **({"quality": 88} if kind == "JPEG" else {"compress_level": 1}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


@lru_cache(maxsize=4)  # a stroke of the brush asks for its picture again
def _whole(path: Path, _changed: int) -> str:
    picture = load_picture(path)
    picture.thumbnail((STAGE_PX, STAGE_PX))
    return _data_url(picture, "JPEG")


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
