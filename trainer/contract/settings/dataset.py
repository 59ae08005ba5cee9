"""Images, captions, and how often each is shown."""

from __future__ import annotations

import json
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from trainer.contract.settings.fields import Section, setting
from trainer.contract.wording import named


class DatasetSettings(Section):
    """Images, captions, and how often each is shown."""

    images: str = setting("", level="basic", description="Folder with the images and their .txt captions.")
    captions: str = setting(
        "",
        description="File with captions (metadata.jsonl) that go before the .txt files; not given: what was changed "
        "here, if anything.",
    )
    concepts: tuple[Concept, ...] = setting(
        (),
        description="Further folders of images, each with rules of its own. A line each: the folder, or JSON as in "
        '{"images": "ben", "trigger_word": "ben", "weight": 2}; also flip, captions, caption_dropout, shuffle_tags, '
        "keep_tags, tag_dropout.",
    )
    folder_repeats: bool = setting(
        True,
        description="A folder named as in kohya's tools, 10_ana woman, shows its images 10 times as often, and those "
        'without a caption as "ana woman".',
    )
    trigger_word: str = setting(
        "",
        level="basic",
        max_length=60,
        description="Put first in every caption; calls the subject up later.",
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
    batch_size: int = setting(1, ge=1, le=64, unit="pictures", description="Images per forward pass.")
    accumulation: int = setting(
        1,
        ge=1,
        le=128,
        unit="passes",
        description="Forward passes per step; batch size x accumulation is what the recipe sees.",
    )
    resolution: int = setting(
        512, ge=32, le=2048, unit="px", description="Side of the square whose area every image is scaled to."
    )
    further_resolutions: tuple[Annotated[int, Field(ge=32, le=2048)], ...] = setting(
        (),
        unit="px",
        description="Smaller sides, from 32, that images are scaled to in turn with the first.",
    )
    upscale: bool = setting(
        False,
        description="Enlarge small images to the full area; else they are shown as they are, or at half the "
        "resolution's side if they are smaller still.",
    )
    flip: bool = setting(False, description="Also show mirrored images; not for faces or text.")
    caption_tokens: int = setting(
        75,
        ge=75,
        le=225,
        multiple_of=75,
        unit="tokens",
        description="Longest caption: 75 is what the text encoder reads at once, 150 and 225 are read in parts.",
    )
    caption_dropout: float = setting(
        0.0, ge=0.0, le=1.0, unit="share", description="Share of views without a caption, which guidance learns from."
    )
    shuffle_tags: bool = setting(False, description="Shuffle comma-separated tags from view to view.")
    keep_tags: int = setting(
        1, ge=0, le=32, unit="tags", description="Tags at the start that shuffling and dropping leave in place."
    )
    tag_dropout: float = setting(
        0.0, ge=0.0, lt=1.0, unit="share", description="Share of comma-separated tags left out of a view."
    )
    background: str = setting(
        "#ffffff", pattern="^#[0-9a-fA-F]{6}$", description="Colour behind images where they are transparent."
    )
    alpha_mask: bool = setting(
        False, description="Learn only where images are opaque; a mask of their own goes before it."
    )
    prior_preservation: bool = setting(
        False,
        description="Protect the base model: it draws images before training, which are shown among yours and must "
        "stay as it sees them (prior preservation).",
    )
    class_prompt: str = setting(
        "", description="What it draws, as in: a woman. Empty: your captions without their trigger words."
    )
    class_images: int = setting(40, ge=1, le=1000, unit="pictures", description="How many it draws, once.")
    class_share: float = setting(
        0.25, gt=0.0, le=0.5, unit="share", description="Their share of all views; yours are as many as without them."
    )
    cache_limit: float = setting(
        20.0, ge=0.0, unit="GiB", description="Size of the cache, beyond which what lay unused longest goes; 0: none."
    )

    def of_folder(self, number: int) -> Self:
        """These settings as they hold in folder 0, `images`, or in one of the concepts', 1, 2, …."""
        if number == 0:
            return self
        own = self.concepts[number - 1].model_dump(exclude={"weight"}, exclude_none=True)
        return self.model_copy(update=own)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.further_resolutions and max(self.further_resolutions) >= self.resolution:
            raise ValueError(
                f"{named('dataset.further_resolutions')} ({max(self.further_resolutions)}) must be below "
                f"{named('dataset.resolution')} ({self.resolution})"
            )
        triggers = (self.trigger_word, *(concept.trigger_word for concept in self.concepts))
        if self.prior_preservation and not self.class_prompt and not any(triggers):
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
    """A further folder of images, with rules of its own; what is not given is as in the data set."""

    images: str = setting(..., min_length=1, description="Folder with the images and their captions.")
    captions: str = setting(
        "", description="File with captions that go before those of the folder; not given: what was changed here."
    )
    weight: float = setting(
        1.0, gt=0.0, le=100.0, description="How often one of its images is shown, for one of the first folder's."
    )
    trigger_word: str | None = setting(None, max_length=60, description="Put first in every caption.")
    flip: bool | None = setting(None, description="Also show mirrored images.")
    caption_dropout: float | None = setting(None, ge=0.0, le=1.0, description="Share of views without a caption.")
    shuffle_tags: bool | None = setting(None, description="Shuffle comma-separated tags from view to view.")
    keep_tags: int | None = setting(None, ge=0, le=32, description="Tags at the start that stay.")
    tag_dropout: float | None = setting(None, ge=0.0, lt=1.0, description="Share of tags left out of a view.")

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
