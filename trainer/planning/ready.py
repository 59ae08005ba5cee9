"""Settings made ready for a run: paths absolute, base model found, a name for the file."""

from trainer.contract.errors import InvalidSettings
from trainer.contract.home import user_path
from trainer.contract.settings.config import TrainConfig, validated
from trainer.contract.wording import setting
from trainer.dataset.buckets import grid_step
from trainer.models.compatible import check_chosen
from trainer.models.lookup import depths_of, resolved
from trainer.models.lora_header import Start, check_start


def settled(config: TrainConfig) -> TrainConfig:
    """The settings, ready to be a run's: paths absolute, and a name for the file.

    Raises:
        InvalidSettings: No image folder, or a base model or a LoRA file that these settings do not suit.
        ModelError: No base model of that name here, or something else.
    """
    if not config.dataset.images:
        raise InvalidSettings("No image folder given.", hint=f"Set {setting('dataset.images')}.")
    values = config.model_dump()
    paths = [(values["dataset"], "images"), (values["dataset"], "captions"), (values["model"], "vae")]
    paths += [(values["adapter"], "start_from")]
    paths += [(concept, name) for concept in values["dataset"]["concepts"] for name in ("images", "captions")]
    for section, name in paths:
        if section[name]:
            section[name] = _absolute(section[name])
    values["model"]["base_model"] = resolved(config.model.base_model)
    values["output"]["name"] = config.output.name or config.preset or "lora"
    made = validated(values)
    start_of(made)
    return made


def start_of(config: TrainConfig) -> Start | None:
    """Returns the LoRA file that a run continues, judged together with its base model; None if it starts fresh.

    Raises:
        InvalidSettings: The base model or the LoRA file does not suit these settings, or one another.
        ModelError: No base model of that name here, or something else.
    """
    return check_start(config.adapter, check_chosen(config))


def rounded(config: TrainConfig) -> dict[int, int]:
    """Returns which training resolutions the base model's grid does not allow, in px, and what each is trained at."""
    step = grid_step(*depths_of(config.model))
    wanted = (config.dataset.resolution, *config.dataset.further_resolutions)
    trained = {side: max(side // step, 1) * step for side in wanted}
    return {side: made for side, made in trained.items() if side != made}


def _absolute(path: str) -> str:
    return str(user_path(path).resolve())
