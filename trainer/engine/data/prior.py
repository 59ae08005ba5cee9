"""Prior preservation (Ruiz et al. 2023, arXiv:2208.12242): class images that the base model generates before training.

They stand among the views of the user's own, and what the base model answers to them noised is their target.
"""

import io
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from trainer.contract.files import atomic_write
from trainer.contract.settings.config import TrainConfig
from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.buckets import Crop, Size
from trainer.dataset.captions import Item, tags_of, with_choices
from trainer.dataset.errors import UnreadableImage
from trainer.dataset.images import load_image
from trainer.engine.data.batches import EncodedDataset, TextStates, encode
from trainer.engine.data.cache import TensorCache
from trainer.engine.data.encoding import Cut, Progress
from trainer.engine.digests import digest, dtype_name, module_digest
from trainer.engine.families.base import Family, RenderOptions


def class_prompts(items: Sequence[Item], settings: DatasetSettings, seed: int) -> list[str]:
    """Returns the prompts of the class images: the chosen one, else the captions without their trigger words.

    Images of a folder without a trigger word are left out: their captions are what is to be learnt.
    """
    if not settings.prior_preservation:
        return []
    if settings.class_prompt:
        return [settings.class_prompt]
    rng = random.Random(seed)
    bare = []
    for item in items:
        trigger = settings.of_folder(item.concept).trigger_word
        if trigger:
            bare.append(without_trigger(with_choices(item.caption, rng), trigger))
    return list(dict.fromkeys(bare)) or [""]


def without_trigger(caption: str, trigger_word: str) -> str:
    """The caption without the trigger word, wherever it stands."""
    words = re.sub(rf"(?<!\w){re.escape(trigger_word)}(?!\w)", "", caption, flags=re.IGNORECASE)
    return ", ".join(tags_of(" ".join(words.split())))


class ClassImages:
    """Generates the class images that the base model's predictions are kept at."""

    def __init__(self, config: TrainConfig, family: Family, text: TextStates, accelerator: Accelerator) -> None:
        self._config, self._family, self._text, self._accelerator = config, family, text, accelerator

    def add(
        self,
        data: EncodedDataset,
        prompts: Sequence[str],
        *,
        dtype: torch.dtype,
        cache: TensorCache,
        generating: Progress,
        encoding: Progress,
    ) -> EncodedDataset:
        """Returns the data set with class images, generated now unless an earlier run has, before training.

        Args:
            data: The user's own images; class images get their sizes, so that they share forward passes.
            prompts: Taken in turn.
            dtype: Of the base model.
            cache: Images lie beside it, below `drawn`, and count towards its limit.
            generating: Gets the number of images that are there.
            encoding: Gets the number of images that are encoded.
        """
        wanted = self._config.dataset.class_images
        how = [module_digest(self._family.component("unet")), self._family.encoder_key("vae")]
        how += [self._family.encoder_key("text"), dtype_name(dtype), str(self._family.noise)]
        cuts = []
        for number in range(wanted):
            prompt, size = prompts[number % len(prompts)], data.buckets[number % len(data.buckets)]
            options, ids = self._options(number, size), self._family.tokenize([prompt]).tolist()
            path = cache.folder.parent / "drawn" / f"{digest(prompt, ids, options, *how)}.png"
            if not _whole(path):
                self._generate(path, prompt, options)
            cache.note(path)
            cuts.append(Cut(Item(path, prompt, size.width, size.height), Crop(size, 0, 0, size), (False,)))
            generating(number + 1, wanted)
        plain = self._config.dataset.model_copy(update={"alpha_mask": False})
        return replace(
            data, class_images=encode(cuts, self._family, plain, dtype=dtype, cache=cache, progress=encoding)
        )

    def _options(self, number: int, size: Size) -> RenderOptions:
        """Returns the previews' options with a seed of its own."""
        wished = self._config.preview
        return RenderOptions((number,), wished.steps, wished.guidance_scale, size.width, size.height)

    @torch.no_grad()
    def _generate(self, path: Path, prompt: str, options: RenderOptions) -> None:
        device = self._accelerator.device
        with self._accelerator.autocast():
            [image] = self._family.render(self._text([prompt], device), self._text([""], device), options)
        content = io.BytesIO()
        image.save(content, "PNG")
        atomic_write(path, content.getvalue())


def _whole(path: Path) -> bool:
    """Whether an image is there and not damaged."""
    try:
        load_image(path)
    except UnreadableImage:
        return False
    return True
