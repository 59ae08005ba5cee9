"""Stable Diffusion XL: two text encoders, and a UNet conditioned on the image's size and crop."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from trainer.engine.families.base import Conditioning
from trainer.engine.families.text import joined
from trainer.engine.families.unet import StableDiffusion
from trainer.models import lora_names
from trainer.models.lora_names import Component, Slot

ENCODERS: tuple[Component, ...] = ("text_encoder", "text_encoder_2")


class StableDiffusionXL(StableDiffusion):
    """SDXL (Podell et al. 2023, arXiv:2307.01952)."""

    def encode_text(self, ids: Tensor) -> Conditioning:
        """Both encoders' last hidden states but one, side by side, and the second's whole caption as one vector."""
        states, pooled = [], None
        for number, encoder in enumerate(self.text_encoders):
            own = ids[:, number].to(self.device)  # (B, chunks, T)
            made: Any = encoder.to(self.device)(own.flatten(0, 1), output_hidden_states=True)
            states.append(joined(made.hidden_states[-2].unflatten(0, own.shape[:2])))
            if number == 1:
                pooled = made.text_embeds.unflatten(0, own.shape[:2])[:, 0]  # of the first chunk, as sd-scripts has it
        return Conditioning(torch.cat(states, dim=-1), pooled)

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Noise or velocity, (B, C, h, w), whichever the model was made for."""
        ready = noisy.contiguous(memory_format=torch.channels_last)
        added = {"text_embeds": conditioning.pooled, "time_ids": conditioning.frames}
        made = self.unet(ready, t, conditioning.states, added_cond_kwargs=added, return_dict=False)
        return cast("Tensor", made[0])

    def lora_slots(self, targets: str, components: Sequence[Component]) -> dict[str, Slot]:
        """The key table: 722 UNet modules with `attention_mlp`, 72 and 192 for the text encoders."""
        slots = lora_names.unet_slots(self.unet.config, targets, sgm=True)
        for component in ENCODERS:
            if component in components:
                config: Any = self.component(component).config
                slots |= lora_names.text_slots(config.to_dict(), targets, component, lora_names.TWO_ENCODERS[component])
        return slots

    def kohya_name(self, component: Component, path: str) -> str:
        """The LoRA file's name of a module path: SDXL's UNet goes by its original spelling."""
        spelled = lora_names.sgm_path(path, self.unet.config.layers_per_block) if component == "unet" else path
        return lora_names.kohya_name(component, spelled, lora_names.TWO_ENCODERS)

    def _pipeline(self) -> Any:  # noqa: ANN401 - diffusers' pipelines are not typed
        return StableDiffusionXLPipeline(
            vae=self.vae,
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=self.unet,
            scheduler=self._scheduler.from_config(self._scheduler.config),
            add_watermarker=False,
        )

    def _text_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Tensor]:
        """The text, by the pipeline's names."""
        inputs = {"prompt_embeds": conditioning, "negative_prompt_embeds": negative}
        pooled = {name.replace("prompt", "pooled_prompt"): one.text()["pooled"] for name, one in inputs.items()}
        return super()._text_inputs(conditioning, negative) | pooled
