"""Everything the doctor looks for: its name, why it matters, and what to do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.contract.wording import named
from trainer.dataset.overlay import Entry

Level = Literal["error", "warning", "note"]  # the image is not trained; makes the LoRA worse; good to know


@dataclass(frozen=True)
class Case:
    """One thing that can be wrong, in words; `{subject}` in the title stands for what it is about."""

    level: Level
    title: str
    why: str
    hint: str
    leave_out: bool = False  # whether the fix is to exclude these images


@dataclass(frozen=True)
class Sign:
    """One thing seen at one image, or in the set as a whole."""

    code: str
    image: Path | None = None
    subject: str = ""  # signs of one code and subject make one finding
    detail: str = ""  # shown after the image's name
    fix: Callable[[Entry], Entry] | None = None  # what fixes it, where that is not to exclude the image
    beside: tuple[Path, ...] = ()  # other images to show next to it, which the fix does not change


CASES = {
    "unreadable_image": Case(
        "error",
        "Unreadable",
        "What it shows is missing from the training.",
        "Open it in an image viewer and save it again, or exclude it.",
        leave_out=True,
    ),
    "truncated": Case(
        "error",
        "Truncated or damaged",
        "Part of the image is missing: it is skipped, or its gray and garbled areas are learned.",
        "Download the file again, or exclude it.",
        leave_out=True,
    ),
    "mask_shape": Case(
        "error",
        "Mask of another shape",
        "Nobody can tell which part of the image such a mask means, so the image is not trained.",
        "Save the mask in the shape of the image, or remove it.",
        leave_out=True,
    ),
    "mask_unreadable": Case(
        "error",
        "Mask cannot be read",
        "What the image shows is missing from the training.",
        "Save the mask again, or remove it.",
        leave_out=True,
    ),
    "mask_empty": Case(
        "warning",
        "Mask that leaves nothing to learn",
        "These images teach the LoRA nothing, yet are counted among the views.",
        "Draw the mask again, or exclude the image.",
        leave_out=True,
    ),
    "too_small": Case(
        "warning",
        "Smaller than the training resolution of {subject}",
        "Shown at their own size, or upscaled and soft, they teach less detail than the others.",
        "Find larger originals, train at a smaller resolution, or exclude them.",
        leave_out=True,
    ),
    "blurry": Case(
        "warning",
        "Blurry",
        "The LoRA learns blur as part of the subject or the style.",
        "Find sharper originals, or exclude them.",
        leave_out=True,
    ),
    "extreme_aspect": Case(
        "warning",
        "Very long and narrow",
        "No bucket is that narrow, so much of the image is cropped and the rest is shown small.",
        "Crop it to what matters, or exclude it.",
        leave_out=True,
    ),
    "exact_duplicate": Case(
        "warning",
        "Duplicate",
        "What is shown twice as often is learned twice as strongly, and its background with it.",
        "Exclude the copies; to show an image more often, give its folder repeats or a weight.",
        leave_out=True,
    ),
    "near_duplicate": Case(
        "warning",
        "Near-duplicate",
        "What is shown twice as often is learned twice as strongly, and its background with it.",
        "Keep the best of them and exclude the others.",
        leave_out=True,
    ),
    "watermark": Case(
        "warning",
        "Watermark, signature or other lettering along an edge",
        "Lettering that many images share is the first thing a LoRA learns.",
        "Crop or retouch a copy, or exclude these.",
        leave_out=True,
    ),
    "exif_rotation": Case(
        "note",
        "Rotated by their EXIF orientation",
        "They are trained as a viewer shows them; programs that ignore EXIF show them sideways.",
        "Nothing to do.",
    ),
    "transparent": Case(
        "note",
        "Partly transparent",
        "What is transparent is trained as the background color.",
        "Check that you want this background to be learned.",
    ),
    "no_caption": Case(
        "warning",
        "No caption",
        "Without words for what else is in an image, all of it is learned as one.",
        "Add captions: a .txt file of the same name is an image's caption.",
    ),
    "long_caption": Case(
        "warning",
        "Captions over the token limit of {subject}",
        "Text beyond the limit is not read and not learned.",
        f"Shorten them, or set {named('dataset.caption_tokens')} to 150 or 225.",
    ),
    "prompt_syntax": Case(
        "warning",
        "Prompt syntax in {subject}",
        "The text encoder reads brackets, weights and the names of networks as words: they are learned with the image.",
        "Write the captions in plain words, as the fix does.",
    ),
    "unread_files": Case(
        "note",
        "Files that are not read",
        "What they show or say is missing from the training.",
        "Save those that are to be trained as .jpg, .png or .webp.",
    ),
    "style_in_caption": Case(
        "warning",
        "Captions that name the style",
        "What a caption names is tied to these words, and does not appear without them.",
        "Let captions describe content, not style; the trigger word calls up the style.",
    ),
    "trigger_missing": Case(
        "warning",
        "Captions without “{subject}”, which most others begin with",
        "A trigger word calls up only what it was trained with.",
        f"Put it first in these captions too, or set it as {named('dataset.trigger_word')}.",
    ),
    "trigger_not_written": Case(
        "note",
        "Captions without “{subject}”, which training puts first",
        "Other trainers that read the same captions may not add it.",
        "Nothing to do here.",
    ),
    "tag_in_all": Case(
        "note",
        "“{subject}” is in every caption",
        "A tag that is never absent is learned as one with the subject, and acts as a second trigger word.",
        "Keep it if you want it in every prompt, else remove it from the captions.",
    ),
    "concept_imbalance": Case(
        "warning",
        "Shown far less than the other concepts: {subject}",
        "The concept shown most is learned first, and overtrained before the others are learned.",
        "Give its folder a higher weight, or the others a lower one.",
    ),
    "few_pictures": Case(
        "warning",
        "Few images: {subject}",
        "The fewer there are, the sooner the LoRA overfits: it memorizes them instead of what they have in common.",
        "Add varied images: other angles, backgrounds and light.",
    ),
}
