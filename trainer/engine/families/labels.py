"""What a LoRA file says of its base model's architecture, so that clients and Civitai file it rightly."""

from typing import Any

from trainer.engine.families.base import ExportLabels
from trainer.models.identify import Prediction

SGM = "https://github.com/Stability-AI/generative-models"
SHAPES = {  # of the UNets that were published
    "sd15": {"block_out_channels": [320, 640, 1280, 1280], "in_channels": 4, "cross_attention_dim": 768},
    "sd2": {"block_out_channels": [320, 640, 1280, 1280], "in_channels": 4, "cross_attention_dim": 1024},
    "sdxl": {"block_out_channels": [320, 640, 1280], "in_channels": 4, "cross_attention_dim": 2048},
}
LABELS = {
    ("sd15", "epsilon"): ExportLabels("sd_v1", "stable-diffusion-v1/lora", "diffusers", "SD1", ""),
    ("sd15", "v_prediction"): ExportLabels("sd_v1_v", "stable-diffusion-v1/lora", "diffusers", "SD1", ""),
    ("sd2", "epsilon"): ExportLabels("sd_v2", "stable-diffusion-v2-512/lora", "diffusers", "SD2", ""),
    ("sd2", "v_prediction"): ExportLabels("sd_v2_v", "stable-diffusion-v2-768-v/lora", "diffusers", "SD2", ""),
    ("sdxl", "epsilon"): ExportLabels("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", SGM, "SDXL", ""),
    ("sdxl", "v_prediction"): ExportLabels("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", SGM, "SDXL", ""),
}


def labels_of(family: str, unet_config: Any, prediction: Prediction, name: str) -> ExportLabels:  # noqa: ANN401
    """The family's labels if the UNet has its published shape, else the model's own name, so no client mistakes it.

    `unet_config` is diffusers' FrozenDict.
    """
    if all(_plain(unet_config.get(key)) == value for key, value in SHAPES[family].items()):
        return LABELS[family, prediction]
    note = f'This LoRA fits only the model "{name}" it was trained on, not Stable Diffusion.'
    return ExportLabels(f"atelier_{name}", f"atelier-{name}/lora", "diffusers", "Unknown", note)


def _plain(value: Any) -> Any:  # noqa: ANN401
    return list(value) if isinstance(value, tuple) else value
