"""Everything the doctor knows to look for: what it is called, why it matters, and what helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.contract.wording import named
from trainer.dataset.overlay import Entry

Level = Literal["error", "warning", "note"]  # the image is lost; makes the LoRA worse; good to know


@dataclass(frozen=True)
class Case:
    """One thing that can be wrong, in words; `{subject}` stands for what it is about this time."""

    level: Level
    title: str
    why: str
    hint: str
    leave_out: bool = False  # whether the fix is not to train these images


@dataclass(frozen=True)
class Sign:
    """One thing seen at one image, or in the set as a whole."""

    code: str
    image: Path | None = None
    subject: str = ""  # signs of one code and subject make one finding
    detail: str = ""  # said behind the image's name
    mend: Callable[[Entry], Entry] | None = None  # what mends it, where it is not to leave the image out
    beside: tuple[Path, ...] = ()  # other images to be shown next to it, which the fix leaves alone


CASES = {
    "unreadable_image": Case(
        "error",
        "Cannot be read",
        "What it shows is missing from the training.",
        "Open it in an image viewer and save it again, or leave it out.",
        leave_out=True,
    ),
    "truncated": Case(
        "error",
        "Damaged or cut short",
        "Part of the image is missing: it is passed over, or its grey and garbled areas are learnt.",
        "Fetch the file again, or leave it out.",
        leave_out=True,
    ),
    "too_small": Case(
        "warning",
        "Smaller than the {subject} they are trained at",
        "Shown at their own size, or enlarged and soft, they teach less detail than the others.",
        "Find larger originals, train at a smaller resolution, or leave them out.",
        leave_out=True,
    ),
    "blurry": Case(
        "warning",
        "Blurry all over",
        "The LoRA learns blur as part of the subject or the style.",
        "Find sharper originals, or leave them out.",
        leave_out=True,
    ),
    "extreme_aspect": Case(
        "warning",
        "Very long and narrow",
        "No bucket is that narrow, so much of the image is cut off and the rest is shown small.",
        "Crop it to what matters, or leave it out.",
        leave_out=True,
    ),
    "exact_duplicate": Case(
        "warning",
        "The same image again",
        "What is shown twice as often is learnt twice as strongly, and its background with it.",
        "Leave the copies out; to show an image more often, give its folder a weight.",
        leave_out=True,
    ),
    "near_duplicate": Case(
        "warning",
        "Nearly the same image again",
        "What is shown twice as often is learnt twice as strongly, and its background with it.",
        "Keep the best of them and leave the others out.",
        leave_out=True,
    ),
    "watermark": Case(
        "warning",
        "Lettering along an edge, as of a watermark or signature",
        "Lettering that returns from image to image is the first thing a LoRA learns.",
        "Crop or retouch a copy, or leave these out.",
        leave_out=True,
    ),
    "exif_rotation": Case(
        "note",
        "Turned by their EXIF orientation",
        "They are trained as a viewer shows them; programs that ignore the mark show them sideways.",
        "Nothing needs to be done.",
    ),
    "transparent": Case(
        "note",
        "Partly transparent",
        "What is transparent is trained as the colour that is put behind it.",
        "Check that the ground is what you want to be learnt.",
    ),
    "no_caption": Case(
        "warning",
        "Without a caption",
        "Without words for what else is in an image, all of it is learnt as one.",
        "A .txt file of the same name is an image's caption.",
    ),
    "long_caption": Case(
        "warning",
        "Captions longer than the {subject} that are read",
        "What is cut off is not learnt with these images.",
        f"Shorten them, or set {named('dataset.caption_tokens')} to 150 or 225.",
    ),
    "style_in_caption": Case(
        "warning",
        "Captions that name the style",
        "What a caption names is put down to these words, and does not come without them.",
        "Let captions say what is seen and not how it looks; the trigger word calls the style.",
    ),
    "trigger_missing": Case(
        "warning",
        "Captions without “{subject}”, which most others begin with",
        "A trigger word calls up only what it stood beside.",
        f"Put it first in these captions too, or set it as {named('dataset.trigger_word')}.",
    ),
    "trigger_not_written": Case(
        "note",
        "Captions without “{subject}”, which training puts first",
        "Other programs that read the same captions may not put it there.",
        "Nothing needs to be done here.",
    ),
    "tag_in_all": Case(
        "note",
        "“{subject}” stands in every caption",
        "A tag that is never absent is learnt as one with the subject, and acts as a second trigger word.",
        "Keep it if it is wanted in every prompt, else take it out of the captions.",
    ),
    "concept_imbalance": Case(
        "warning",
        "Shown far less than the other concepts: {subject}",
        "The concept that is shown most is learnt first and overlearnt before the others are there.",
        "Give its folder a higher weight, or the others a lower one.",
    ),
    "few_pictures": Case(
        "warning",
        "Few images: {subject}",
        "The fewer there are, the sooner they are learnt by heart instead of what they have in common.",
        "Add different images: other views, grounds and light.",
    ),
}
