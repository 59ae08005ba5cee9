"""Sentences by BLIP and Florence-2 in transformers; its own code alone is run, none that comes with a model."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    BlipForConditionalGeneration,
    BlipProcessor,
    Florence2ForConditionalGeneration,
    Florence2Processor,
)

from trainer.captioning.catalogue import CAPTIONERS, Captioner, Detail
from trainer.dataset.captions import Item
from trainer.dataset.images import load_image
from trainer.engine.device import DTYPES, choose_device, choose_precision

TASKS: dict[Detail, str] = {
    "short": "<CAPTION>",
    "detailed": "<DETAILED_CAPTION>",
    "long": "<MORE_DETAILED_CAPTION>",
}
BLIP_TOKENS = 50
FLORENCE_TOKENS = {"short": 60, "detailed": 150, "long": 300}
BEAMS = 3


class Blip:
    """BLIP (Li et al. 2022, arXiv:2201.12086) with its model loaded."""

    def __init__(self, folder: Path) -> None:
        """Loads the model.

        Raises:
            NotACaptioner: The folder holds another.
        """
        self.model, self.processor = _load(CAPTIONERS["blip"], folder, BlipForConditionalGeneration, BlipProcessor)

    def __call__(self, item: Item) -> str:
        """What is seen, in one short sentence.

        Raises:
            UnreadableImage: The image cannot be decoded.
        """
        inputs = self.processor(images=load_image(item.path), return_tensors="pt")
        return _generated(self.model, self.processor, inputs, BLIP_TOKENS)


class Florence2:
    """Florence-2 (Xiao et al. 2023, arXiv:2311.06242) with its model loaded."""

    def __init__(self, folder: Path, detail: Detail) -> None:
        """Loads the model.

        Args:
            folder: Where it lies.
            detail: How much it says.

        Raises:
            NotACaptioner: The folder holds another, or one in Microsoft's own layout.
        """
        self.model, self.processor = _load(
            CAPTIONERS["florence2"], folder, Florence2ForConditionalGeneration, Florence2Processor
        )
        self.task, self.tokens = TASKS[detail], FLORENCE_TOKENS[detail]

    def __call__(self, item: Item) -> str:
        """What is seen, as long as was asked for.

        Raises:
            UnreadableImage: The image cannot be decoded.
        """
        inputs = self.processor(images=load_image(item.path), text=self.task, return_tensors="pt")
        return _generated(self.model, self.processor, inputs, self.tokens)


def _load(captioner: Captioner, folder: Path, architecture: Any, processor: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Model and processor, on the best device there is."""
    if wrong := _another(folder, captioner.model_type):
        raise captioner.refused(folder, wrong)
    device = choose_device("auto")
    dtype = torch.float32 if device == "cpu" else DTYPES[choose_precision("auto", device)]
    try:
        model, loading = architecture.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=dtype, output_loading_info=True
        )
        words = processor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise captioner.refused(folder, f"it cannot be loaded ({error})") from error
    lacking = sorted(loading["missing_keys"])
    if lacking:  # transformers would go on with random numbers in their place
        raise captioner.refused(folder, f"its weights lack {len(lacking)} of the model's, first {lacking[0]}")
    return model.to(device).eval(), words


def _another(folder: Path, model_type: str) -> str:
    """What config.json says where it is not this architecture's; empty where it is."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "config.json is no JSON"
    kind = config.get("model_type") if isinstance(config, dict) else None
    return "" if kind == model_type else f"config.json says {kind}"


@torch.inference_mode()
def _generated(model: Any, processor: Any, inputs: Any, tokens: int) -> str:  # noqa: ANN401
    """What the model writes."""
    inputs = inputs.to(model.device, model.dtype)  # whole numbers keep their type
    written = model.generate(**inputs, max_new_tokens=tokens, num_beams=BEAMS, do_sample=False)
    return str(processor.batch_decode(written, skip_special_tokens=True)[0])
