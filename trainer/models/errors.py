"""What can be wrong with a base model or a LoRA file."""

from pathlib import Path

from trainer.contract.errors import InvalidSettings, TrainerError
from trainer.contract.wording import action, setting

VAES = ("vae", "autoencoderkl")


class ModelError(TrainerError):
    """The base model cannot be used."""

    code = "model"


class BaseModelMissing(ModelError):
    """Nothing at the base model's path."""

    code = "base_model_missing"
    what = "No base model at {path}."
    remedy = (
        "Give a .safetensors file, a folder in the diffusers layout (it holds model_index.json), a name on the Hugging "
        f'Face hub (owner/name), a model on this computer (see {action("models")}), or "pocket".'
    )


class NotABaseModel(ModelError):
    """The path exists but holds something else; a hint says what to choose instead of it."""

    code = "not_a_base_model"
    what = "{path} is not a base model that can be trained on: {seen}."
    remedy = (
        "Choose a Stable Diffusion 1.x, 2.x or SDXL model: one .safetensors file, or a folder in the diffusers layout."
    )

    def __init__(self, path: Path, seen: str, hint: str = "") -> None:
        self.seen = seen
        super().__init__(hint=hint, path=path, seen=seen)


class NotNumbers(ModelError):
    """Weights of the base model, or of the VAE in its place, are NaN or infinite."""

    code = "not_numbers"
    what = "The base model holds values that are not numbers (NaN or infinity): {tensor} of its {part}."
    remedy = "Download or copy it again, or choose another one; a merge can be made again without what spoils it."

    def __init__(self, part: str, tensor: str) -> None:
        hint = f"Choose another VAE: {setting('model.vae', 'FILE')}." if part.lower() in VAES else ""
        super().__init__(hint=hint, part=part, tensor=tensor)


class UnsupportedModel(ModelError):
    """Layers of the installed libraries have other names than the file format expects."""

    code = "unsupported_model"


class LoraRefused(InvalidSettings):
    """A LoRA file cannot be continued: unreadable, damaged, of another kind, or made for another model."""

    code = "lora_refused"
    what = "The LoRA file {file} {why}."
    remedy = f"Choose another .safetensors file for {setting('adapter.start_from')}, or leave it empty to start fresh."

    def __init__(self, path: Path, why: str, hint: str = "") -> None:
        super().__init__(hint=hint, places={"adapter.start_from": f"{path.name} {why}."}, file=path, why=why)


class ConversionRefused(ModelError):
    """The file is no checkpoint, or one that is not safe to read."""

    code = "conversion_refused"
