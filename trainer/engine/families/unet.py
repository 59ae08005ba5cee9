"""Stable Diffusion 1.x and 2.x, and everything of their build at any size: one text encoder, one UNet, one VAE."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any, cast

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn

from trainer.dataset.buckets import grid_step
from trainer.engine.device import out_of_memory
from trainer.engine.digests import digest, module_digest
from trainer.engine.families.base import (
    Conditioning,
    Encoder,
    ExportLabels,
    FamilySpec,
    NoiseSpec,
    Posterior,
    RenderOptions,
)
from trainer.engine.families.labels import labels_of
from trainer.engine.families.noise import preview_scheduler
from trainer.engine.families.parts import Parts, in_tiles
from trainer.engine.families.text import joined, token_ids
from trainer.models import lora_names
from trainer.models.lora_names import Component, Slot

ZERO_SNR_RESCALE = 0.7  # of guidance, or images burn out (Lin et al. 2023, section 3.4)


class StableDiffusion:
    """A base model, frozen, on its device."""

    def __init__(
        self,
        name: str,
        parts: Parts,
        noise: NoiseSpec,
        device: torch.device,
        *,
        clip_skip: int = 0,
        chunks: int = 1,
    ) -> None:
        self.device, self.noise, self._clip_skip, self._chunks = device, noise, clip_skip, chunks
        self._bare_unet, self._read_unet, self.unet_files = parts.unet, parts.read_unet, parts.unet_files
        self.vae, self.text_encoders, self.tokenizers = parts.vae, parts.text_encoders, parts.tokenizers
        self._scheduler = preview_scheduler(parts.scheduler, noise)
        self._keys: dict[Encoder, str] = {}
        self._tiled = False
        for module in (self.vae, *self.text_encoders):
            module.to(device)
        self.scaling_factor = float(self.vae.config.scaling_factor)
        self.spec = self._spec(name)
        self.labels: ExportLabels = labels_of(name, parts.unet.config, noise.prediction, parts.name)

    @cached_property
    def unet(self) -> UNet2DConditionModel:
        """The denoiser, which is read when it is first asked for: encoders have the memory before."""
        self._read_unet()
        return cast("UNet2DConditionModel", self._bare_unet.to(self.device))

    def component(self, name: Component) -> nn.Module:
        """The UNet or a text encoder."""
        if name == "unet":
            return cast("nn.Module", self.unet)
        return self.text_encoders[0 if name == "text_encoder" else 1]

    def encoder_key(self, which: Encoder) -> str:
        """Digest of the encoder's weights, and of how it is asked."""
        if which not in self._keys:
            modules = [self.vae] if which == "vae" else self.text_encoders
            how = self._clip_skip if which == "text" else 0
            self._keys[which] = digest(*(module_digest(cast("nn.Module", module)) for module in modules), how)
        return self._keys[which]

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Posterior:
        """Mean and std of the VAE's posterior, each (B, C, h, w) float32 on the CPU, unscaled."""
        self.vae.to(self.device)
        made = self._posterior(pixels)
        if not (made.mean.isfinite().all() and made.std.isfinite().all()) and self.vae.dtype != torch.float32:
            self.vae.float()  # some VAEs overflow in half precision; from here on this one is not asked to
            made = self._posterior(pixels)
        return made

    def _posterior(self, pixels: Tensor) -> Posterior:
        ready = pixels.to(self.device, self.vae.dtype).contiguous(memory_format=torch.channels_last)
        posterior = self.vae.encode(ready).latent_dist
        return Posterior(posterior.mean.float().cpu(), posterior.std.float().cpu())

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Token ids (B, encoders, chunks, T) int64; what is longer is cut."""
        return torch.stack([token_ids(words, captions, self._chunks) for words in self.tokenizers], dim=1)

    def encode_text(self, ids: Tensor) -> Conditioning:
        """The text encoder's last hidden state, or an earlier one if the model wants layers left out."""
        encoder: Any = self.text_encoders[0].to(self.device)
        own = ids[:, 0].to(self.device)  # (B, chunks, T)
        if self._clip_skip < 2:
            states = encoder(own.flatten(0, 1)).last_hidden_state
        else:
            hidden = encoder(own.flatten(0, 1), output_hidden_states=True).hidden_states[-self._clip_skip]
            states = encoder.get_submodule(_final_norm(encoder))(hidden)
        return Conditioning(joined(states.unflatten(0, own.shape[:2])))

    def release_encoders(self, keep_text: bool) -> None:
        """Free memory of what training does not need; the VAE decodes previews, a frozen text encoder is done."""
        self.vae.to("cpu")
        for encoder in [] if keep_text else self.text_encoders:
            encoder.to("meta")

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Noise or velocity, (B, C, h, w), whichever the model was made for."""
        ready = noisy.contiguous(memory_format=torch.channels_last)
        return cast("Tensor", self.unet(ready, t, conditioning.states, return_dict=False)[0])

    @torch.no_grad()
    def render(self, conditioning: Conditioning, negative: Conditioning, options: RenderOptions) -> list[Image.Image]:
        """Images by the stock pipeline, so that clients generate the same image from the same seed.

        The first noise is handed over in float32, as a client's would be, which keeps the latents in float32 between
        the steps; the VAE decodes outside autocast, in the dtype it was loaded in, and leaves the device again.
        """
        per_latent = self.spec.pixels_per_latent
        shape = (self.spec.latent_channels, options.height // per_latent, options.width // per_latent)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in options.seeds]
        pipeline = self._pipeline()
        pipeline.set_progress_bar_config(disable=True)
        made = pipeline(
            **self._text_inputs(conditioning, negative.repeated(len(options.seeds))),
            guidance_scale=options.guidance_scale,
            guidance_rescale=ZERO_SNR_RESCALE if self.noise.zero_terminal_snr else 0.0,
            num_inference_steps=options.steps,
            width=options.width,
            height=options.height,
            latents=torch.stack(noise).to(self.device),
            output_type="latent",
        )
        return self._decode(made.images)

    def _pipeline(self) -> Any:  # noqa: ANN401 - diffusers' pipelines are not typed
        return StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=None,
            tokenizer=None,
            unet=self.unet,
            scheduler=self._scheduler.from_config(self._scheduler.config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def _text_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Tensor]:
        """The text, by the pipeline's names."""
        return {"prompt_embeds": conditioning.states, "negative_prompt_embeds": negative.states}

    def _decode(self, latents: Tensor) -> list[Image.Image]:
        """The images of scaled latents (B, C, h, w), one after the other for memory's sake."""
        try:
            self.vae.to(self.device)
            with torch.autocast(self.device.type, enabled=False):
                return [self._image(one) for one in torch.split(latents, 1)]
        finally:
            self.vae.to("cpu")

    def _image(self, latents: Tensor) -> Image.Image:
        pixels = self._pixels(latents)
        if not pixels.isfinite().all() and self.vae.dtype != torch.float32:
            self.vae.float()  # else the image would be black
            pixels = self._pixels(latents)
        bytes_ = pixels[0].float().cpu().clamp(-1, 1).add(1).mul(127.5).round().byte()
        return Image.fromarray(bytes_.permute(1, 2, 0).numpy())

    def decode_in_tiles(self) -> None:
        """From here on decode images in tiles."""
        self._tiled = True

    def _pixels(self, latents: Tensor) -> Tensor:
        ready = latents.to(self.vae.dtype) / self.scaling_factor
        try:
            with in_tiles(self.vae) if self._tiled else nullcontext():
                return cast("Tensor", self.vae.decode(ready, return_dict=False)[0])
        except (RuntimeError, MemoryError) as error:
            if self._tiled or not out_of_memory(error):
                raise
        self.decode_in_tiles()  # here, where the error with all it holds is gone
        return self._pixels(latents)

    def lora_slots(self, targets: str, components: Sequence[Component]) -> dict[str, Slot]:
        """The key table of this architecture: 192 UNet modules with `attention_mlp`, and 72 (SD 2.x: 138) for text."""
        slots = lora_names.unet_slots(self.unet.config, targets)
        if "text_encoder" in components:
            config: Any = self.component("text_encoder").config
            slots |= lora_names.text_slots(config.to_dict(), targets)
        return slots

    def kohya_name(self, component: Component, path: str) -> str:
        """The LoRA file's name of a module path."""
        return lora_names.kohya_name(component, path)

    def _spec(self, name: str) -> FamilySpec:
        levels = [len(part.config.block_out_channels) for part in (self.vae, self._bare_unet)]
        return FamilySpec(
            name=name,
            latent_channels=int(self.vae.config.latent_channels),
            pixels_per_latent=2 ** (levels[0] - 1),
            bucket_step=grid_step(*levels),
            clip_skip=self._clip_skip,
        )


def _final_norm(encoder: nn.Module) -> str:
    """Where the last norm is: transformers 5.6 dropped a level."""
    return "text_model.final_layer_norm" if hasattr(encoder, "text_model") else "final_layer_norm"
