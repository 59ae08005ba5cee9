"""A further folder of a data set."""

from __future__ import annotations

import json
from typing import Any

from pydantic import model_validator

from trainer.contract.settings.fields import Section, setting


class Concept(Section):
    """A further folder of pictures, with rules of its own; what is not given is as in the data set."""

    images: str = setting(..., min_length=1, description="Folder with the pictures and their captions.")
    captions: str = setting(
        "", description="File with captions that go before those of the folder; not given: what was changed here."
    )
    weight: float = setting(
        1.0, gt=0.0, le=100.0, description="How often one of its pictures is shown, for one of the first folder's."
    )
    trigger_word: str | None = setting(None, max_length=60, description="Put first in every caption.")
    flip: bool | None = setting(None, description="Also show mirrored pictures.")
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
