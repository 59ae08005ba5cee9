"""Settings made ready for a run: paths absolute, base model found, a name for the file."""

from trainer.contract.errors import InvalidSettings
from trainer.contract.home import user_path
from trainer.contract.settings.config import TrainConfig, validated, with_paths
from trainer.contract.wording import setting
from trainer.dataset.buckets import grid_step
from trainer.dataset.class_images import with_regularization
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
    found = with_paths(config, absolute)
    values = found.model_copy(update={"dataset": with_regularization(found.dataset)}).model_dump()
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


def absolute(place: str, path: str) -> str:
    """Returns what is valid in every folder: a full path, or a base model's name.

    Raises:
        InvalidSettings: No file can have that path; it says of which setting.
        ModelError: No base model of that name here.
    """
    try:
        return resolved(path) if place == "model.base_model" else str(user_path(path).resolve())
    except InvalidSettings as error:
        places = error.places or {place: f"{error.message} {error.hint}"}
        raise InvalidSettings(error.message, hint=error.hint, places=places) from None
