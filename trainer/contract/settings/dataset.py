"""Images, captions, and how often each is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from trainer.contract.settings.fields import PastedPath, Section, setting
from trainer.contract.wording import named


class DatasetSettings(Section):
    """Images, captions, and how often each is shown."""

    images: PastedPath = setting("", level="basic", description="Folder with the images and their .txt captions.")
    captions: PastedPath = setting(
        "",
        description="File with captions (metadata.jsonl) that overrides .txt files; empty: edits made in Atelier.",
    )
    concepts: tuple[Concept, ...] = setting(
        (),
        description="Further folders of images, each with its own rules. One a line: the folder, or JSON as in "
        '{"images": "ben", "trigger_word": "ben", "weight": 2}; also flip, captions, caption_dropout, shuffle_tags, '
        'keep_tags, tag_dropout, and {"images": "reg", "class_images": true} for class images of your own. A folder '
        "named reg inside the image folder needs no line.",
    )
    folder_repeats: bool = setting(
        True,
        description="A folder named as in kohya_ss, such as 10_ana woman, is shown 10 times as often as 1_ben, and "
        '"ana woman" captions its images that have no caption; the views say how often in all.',
    )
    trigger_word: str = setting(
        "",
        level="basic",
        max_length=60,
        description="Put first in every caption; use it in prompts to call up what was learned.",
    )
    views: int = setting(
        100,
        ge=1,
        le=10_000,
        level="basic",
        unit="times",
        description="How often each image is shown (kohya: repeats x epochs).",
    )
    min_total_views: int = setting(
        1, ge=1, le=1_000_000, unit="views", description="Few images are shown more often, up to this total."
    )
    max_total_views: int = setting(
        1_000_000,
        ge=1,
        le=1_000_000,
        unit="views",
        description="Many images are shown less often, down to this total.",
    )
    batch_size: int = setting(1, ge=1, le=64, unit="images", description="Images per forward pass.")
    accumulation: int = setting(
        1,
        ge=1,
        le=128,
        unit="passes",
        description="Gradient accumulation: forward passes per step. Effective batch: batch size x accumulation.",
    )
    resolution: int = setting(
        512,
        ge=32,
        le=2048,
        unit="px",
        description="Training resolution: images are scaled to the area of this square, in buckets.",
    )
    further_resolutions: tuple[Annotated[int, Field(ge=32, le=2048)], ...] = setting(
        (),
        unit="px",
        description="Smaller training resolutions, from 32, used in turn with the first (multi-resolution).",
    )
    upscale: bool = setting(
        False,
        description="Upscale small images to the full area; else they keep their size, and those below half the "
        "resolution are upscaled to half (kohya: bucket no upscale, inverted).",
    )
    flip: bool = setting(False, description="Flip augmentation: also show mirrored images; not for faces or text.")
    caption_tokens: int = setting(
        75,
        ge=75,
        le=225,
        multiple_of=75,
        unit="tokens",
        description="Token limit of captions (kohya: max token length). Beyond 75 they are encoded in chunks.",
    )
    caption_dropout: float = setting(
        0.0, ge=0.0, le=1.0, unit="share", description="Share of views without a caption, which CFG learns from."
    )
    shuffle_tags: bool = setting(False, description="Shuffle comma-separated tags from view to view.")
    keep_tags: int = setting(
        1,
        ge=0,
        le=32,
        unit="tags",
        description="Tags at the start that shuffle and dropout leave in place (kohya: keep tokens).",
        when=("dataset.shuffle_tags", "dataset.tag_dropout"),
    )
    tag_dropout: float = setting(
        0.0, ge=0.0, lt=1.0, unit="share", description="Share of comma-separated tags dropped from a view."
    )
    background: str = setting(
        "#ffffff", pattern="^#[0-9a-fA-F]{6}$", description="Background color of transparent images."
    )
    alpha_mask: bool = setting(False, description="Use the alpha channel as a mask; a mask file overrides it.")
    prior_preservation: bool = setting(
        False,
        description="Prior preservation: generate class images with the base model and train on them among yours, so "
        "that the base keeps what it knows (kohya: regularization images). Concepts of class images do so with yours.",
    )
    class_prompt: str = setting(
        "",
        description="Prompt of the class images, such as: a woman. Empty: your captions without trigger words.",
        when=("dataset.prior_preservation",),
    )
    class_images: int = setting(
        40,
        ge=1,
        le=1000,
        unit="images",
        description="Class images to generate, once.",
        when=("dataset.prior_preservation",),
    )
    class_share: float = setting(
        0.25,
        gt=0.0,
        le=0.5,
        unit="share",
        description="Share of class images in all views; your views stay as many.",
        when=("dataset.prior_preservation", "dataset.class_folders"),
    )
    cache_limit: float = setting(
        20.0,
        ge=0.0,
        le=1_000_000,
        unit="GiB",
        description="Largest cache of latents and embeddings; what was unused longest is deleted. 0: no limit.",
    )

    @property
    def folders(self) -> list[Path]:
        """The image folders: its own, then those of its concepts."""
        return [Path(images).expanduser() for images in (self.images, *(one.images for one in self.concepts))]

    @property
    def class_folders(self) -> list[int]:
        """The numbers of concepts whose images are class images."""
        return [number for number, concept in enumerate(self.concepts, start=1) if concept.class_images]

    @property
    def keeps_prior(self) -> bool:
        """Whether class images are among the views: the user's own, or generated ones."""
        return self.prior_preservation or bool(self.class_folders)

    def of_folder(self, number: int) -> Self:
        """Returns the settings of folder 0, `images`, or of a concept's, 1, 2, …."""
        if number == 0:
            return self
        own = self.concepts[number - 1].model_dump(exclude={"weight", "class_images"}, exclude_none=True)
        return self.model_copy(update=own)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.further_resolutions and max(self.further_resolutions) >= self.resolution:
            raise ValueError(
                f"{named('dataset.further_resolutions')} ({max(self.further_resolutions)}) must be below "
                f"{named('dataset.resolution')} ({self.resolution})"
            )
        triggers = (self.trigger_word, *(concept.trigger_word for concept in self.concepts))
        generated = self.prior_preservation and not self.class_folders
        if generated and not self.class_prompt and not any(triggers):
            raise ValueError(
                f"{named('dataset.prior_preservation')} needs {named('dataset.class_prompt')} where no "
                f"{named('dataset.trigger_word')} tells the subject from its class"
            )
        if self.min_total_views > self.max_total_views:
            raise ValueError(
                f"{named('dataset.min_total_views')} ({self.min_total_views}) is above "
                f"{named('dataset.max_total_views')} ({self.max_total_views})"
            )
        return self


class Concept(Section):
    """A further folder of images with its own rules; what is not given is the data set's."""

    images: PastedPath = setting(..., min_length=1, description="Folder with the images and their captions.")
    captions: PastedPath = setting(
        "", description="File with captions that overrides the folder's; empty: edits made in Atelier."
    )
    class_images: bool = setting(
        False, description="They show the class, not the subject: prior preservation with them, and none is generated."
    )
    weight: float = setting(1.0, gt=0.0, le=100.0, description="Repeats of its images, relative to the first folder's.")
    trigger_word: str | None = setting(None, max_length=60, description="Put first in every caption.")
    flip: bool | None = setting(None, description="Also show mirrored images.")
    caption_dropout: float | None = setting(None, ge=0.0, le=1.0, description="Share of views without a caption.")
    shuffle_tags: bool | None = setting(None, description="Shuffle comma-separated tags from view to view.")
    keep_tags: int | None = setting(None, ge=0, le=32, description="Tags at the start that stay.")
    tag_dropout: float | None = setting(None, ge=0.0, lt=1.0, description="Share of tags dropped from a view.")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:  # noqa: ANN401 - whatever was given
        """A line of the page or a flag: a folder alone, or all of it as JSON."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value) if value.lstrip().startswith("{") else {"images": value}
        except RecursionError:
            raise ValueError("is nested too deep") from None

    def __str__(self) -> str:
        """The line that reads back as this."""
        given = self.model_dump(exclude_defaults=True)
        plain = given.keys() == {"images"} and not self.images.lstrip().startswith("{")
        return self.images if plain else json.dumps(given, ensure_ascii=False)
