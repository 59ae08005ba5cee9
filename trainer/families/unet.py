"""Stable Diffusion 1.x, and everything of its build at any size: one CLIP text encoder, one UNet, one VAE."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from trainer.contract.errors import BaseModelMissing, NotABaseModel
from trainer.families import names
from trainer.families.base import (
    Component,
    Conditioning,
    ExportLabels,
    FamilySpec,
    NoiseSpec,
    Posterior,
    RenderOptions,
    Slot,
)

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
SD1_SHAPE = {"block_out_channels": [320, 640, 1280, 1280], "in_channels": 4, "cross_attention_dim": 768}


class StableDiffusion:
    """A base model from a diffusers folder: frozen, channels-last, in the working dtype."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype, gradient_checkpointing: bool) -> None:
        check_folder(folder)
        self.device = device
        # fp16 overflows in many VAEs: black pictures
        vae_dtype = torch.float32 if dtype == torch.float16 else dtype
        load = {"local_files_only": True, "use_safetensors": True}
        try:
            self.unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype, **load)
            self.vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=vae_dtype, **load)
            self.text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype, **load)
            self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
            self.scheduler = _scheduler(folder)
            self.noise = _noise_spec(self.scheduler.config)
        except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
            raise NotABaseModel(folder, f"a part cannot be read: {str(error).splitlines()[0]}") from error
        for module in (self.unet, self.vae, self.text_encoder):
            module.requires_grad_(requires_grad=False).eval().to(device)
        self.unet.to(memory_format=torch.channels_last)
        self.vae.to(memory_format=torch.channels_last)
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            self.unet.train()  # diffusers recomputes only in training mode; the frozen base has no dropout
        self.scaling_factor = float(self.vae.config.scaling_factor)
        self.spec = self._spec()
        self.labels = _labels(self.unet.config, folder.name)

    def component(self, name: Component) -> nn.Module:
        """The UNet or the text encoder."""
        return cast("nn.Module", self.unet if name == "unet" else self.text_encoder)

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Posterior:
        """Mean and std of the VAE's posterior, each (B, C, h, w) float32 on the CPU, unscaled."""
        self.vae.to(self.device)
        ready = pixels.to(self.device, self.vae.dtype).contiguous(memory_format=torch.channels_last)
        posterior = self.vae.encode(ready).latent_dist
        return Posterior(posterior.mean.float().cpu(), posterior.std.float().cpu())

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Token ids (B, T) int64, T = the tokenizer's maximum; what is longer is cut."""
        longest = self.tokenizer.model_max_length
        made = self.tokenizer(
            list(captions), padding="max_length", max_length=longest, truncation=True, return_tensors="pt"
        )
        return cast("Tensor", made.input_ids)

    def encode_text(self, ids: Tensor) -> Conditioning:
        """The text encoder's last hidden state."""
        self.text_encoder.to(self.device)
        return Conditioning(self.text_encoder(ids.to(self.device)).last_hidden_state)

    def release_encoders(self, keep_text: bool) -> None:
        """Free the device of what training does not need."""
        self.vae.to("cpu")
        if not keep_text:
            self.text_encoder.to("cpu")

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Noise or velocity, (B, C, h, w), whichever the model was made for."""
        ready = noisy.contiguous(memory_format=torch.channels_last)
        return cast("Tensor", self.unet(ready, t, conditioning.states, return_dict=False)[0])

    @torch.no_grad()
    def render(self, conditioning: Conditioning, negative: Conditioning, options: RenderOptions) -> Image.Image:
        """One picture by the stock pipeline, so that clients draw the same from the same seed.

        The first noise is handed over in float32, as a client's would be, which keeps the latents in float32 between
        the steps; the VAE decodes outside autocast, in the dtype it was loaded in, and leaves the device again.
        """
        per_latent = self.spec.pixels_per_latent
        shape = (1, self.spec.latent_channels, options.height // per_latent, options.width // per_latent)
        pipeline = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=None,
            tokenizer=None,
            unet=self.unet,
            scheduler=self.scheduler.from_config(self.scheduler.config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        made = pipeline(
            prompt_embeds=conditioning.states,
            negative_prompt_embeds=negative.states,
            guidance_scale=options.guidance_scale,
            num_inference_steps=options.steps,
            width=options.width,
            height=options.height,
            latents=torch.randn(shape, generator=torch.Generator().manual_seed(options.seed)).to(self.device),
            output_type="latent",
        )
        return self._decode(made.images)

    def _decode(self, latents: Tensor) -> Image.Image:
        """The picture of scaled latents (1, C, h, w)."""
        try:
            self.vae.to(self.device)
            with torch.autocast(self.device.type, enabled=False):
                pixels = self.vae.decode(latents.to(self.vae.dtype) / self.scaling_factor, return_dict=False)[0]
        finally:
            self.vae.to("cpu")
        bytes_ = pixels[0].float().cpu().clamp(-1, 1).add(1).mul(127.5).round().byte()
        return Image.fromarray(bytes_.permute(1, 2, 0).numpy())

    def lora_slots(self, targets: str, text_encoder: bool) -> dict[str, Slot]:
        """The key table of this architecture: SD 1.5 has 192 UNet modules with `attention_mlp`, and 72 for text."""
        slots = names.unet_slots(self.unet.config, targets)
        return slots | names.text_slots(self.text_encoder.config.to_dict(), targets) if text_encoder else slots

    def kohya_name(self, component: Component, path: str) -> str:
        """The LoRA file's name of a module path."""
        return names.kohya_name(component, path)

    def _spec(self) -> FamilySpec:
        per_latent = 2 ** (len(self.vae.config.block_out_channels) - 1)
        smallest = 2 ** (len(self.unet.config.block_out_channels) - 1)  # the UNet halves its latents this far
        return FamilySpec(
            name="sd15",
            latent_channels=int(self.vae.config.latent_channels),
            pixels_per_latent=per_latent,
            bucket_step=per_latent * smallest,
            default_size=int(self.unet.config.sample_size) * per_latent,
        )


def check_folder(folder: Path) -> None:
    """Refuse what is not a Stable Diffusion folder, in plain words.

    Raises:
        BaseModelMissing: Nothing there.
        NotABaseModel: Something else is.
    """
    if not folder.exists():
        raise BaseModelMissing(folder)
    if folder.is_file():
        raise NotABaseModel(folder, "it is a single file; this version reads folders in the diffusers layout")
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise NotABaseModel(folder, f"it has no {', '.join(missing)}")
    if (folder / "text_encoder_2").is_dir():
        raise NotABaseModel(folder, "it has a second text encoder, as Stable Diffusion XL does")


def _scheduler(folder: Path) -> Any:  # noqa: ANN401 - diffusers' schedulers share no public base with these methods
    """The model's own scheduler, of the class its configuration names."""
    import diffusers

    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    kind: Any = getattr(diffusers, config.get("_class_name", "PNDMScheduler"), None)
    if not hasattr(kind, "from_config") or not hasattr(kind, "step"):
        raise NotABaseModel(folder, f"its scheduler is of an unknown kind ({config.get('_class_name')})")
    return kind.from_config(config)


def _noise_spec(config: Any) -> NoiseSpec:  # noqa: ANN401 - a FrozenDict with attribute access
    """The training noise described by a scheduler's configuration."""
    return NoiseSpec(
        num_timesteps=int(config.num_train_timesteps),
        beta_start=float(config.beta_start),
        beta_end=float(config.beta_end),
        beta_schedule=str(config.beta_schedule),
        prediction="v_prediction" if config.get("prediction_type") == "v_prediction" else "epsilon",
        zero_terminal_snr=bool(config.get("rescale_betas_zero_snr", False)),
    )


def _labels(unet_config: Any, folder_name: str) -> ExportLabels:  # noqa: ANN401 - a FrozenDict with attribute access
    """Metadata labels: Stable Diffusion 1.x by its shape, anything else by its own name so no client mistakes it."""
    if all(unet_config.get(key) == value for key, value in SD1_SHAPE.items()):
        return ExportLabels("sd_v1", "stable-diffusion-v1/lora", "diffusers", "")
    note = f'This LoRA fits only the model "{folder_name}" it was trained on, not Stable Diffusion 1.x.'
    return ExportLabels(f"atelier_{folder_name}", f"atelier-{folder_name}/lora", "diffusers", note)
