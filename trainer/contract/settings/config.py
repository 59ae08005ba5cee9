"""Every setting, declared once: type, range, unit, help. TOML, flags, page, API and error text come from here."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

from pydantic import Field, ValidationError

from trainer.contract.settings.dataset import DatasetSettings
from trainer.contract.settings.fields import Section, invalid
from trainer.contract.settings.learning import AdapterSettings, ObjectiveSettings, OptimizerSettings
from trainer.contract.settings.model import ModelSettings
from trainer.contract.settings.outputs import PREVIEW_GRID_PX, OutputSettings, PreviewSettings


class TrainConfig(Section):
    """One run, complete."""

    preset: str = Field(
        "", description="The preset this run started from.", json_schema_extra={"level": "advanced", "unit": ""}
    )
    project: str = Field(
        "", description="The project this run belongs to.", json_schema_extra={"level": "advanced", "unit": ""}
    )
    goal: Literal["style", "character", "concept"] = Field(
        "style", description="What the LoRA learns.", json_schema_extra={"level": "advanced", "unit": ""}
    )
    model: ModelSettings = ModelSettings()
    dataset: DatasetSettings = DatasetSettings()
    adapter: AdapterSettings = AdapterSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    preview: PreviewSettings = PreviewSettings()
    output: OutputSettings = OutputSettings()

    @property
    def preview_size(self) -> tuple[int, int]:
        """Width and height of previews in px: by default the training resolution, down to what a VAE can decode."""
        own = self.dataset.resolution // PREVIEW_GRID_PX * PREVIEW_GRID_PX
        return self.preview.width or own, self.preview.height or own


SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in TrainConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}


def validated(values: dict[str, Any]) -> TrainConfig:
    """The settings as one frozen object.

    Raises:
        InvalidSettings: Naming every setting at fault, the value seen, and what is allowed.
    """
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise invalid(error, SECTIONS) from None


def paths_of(config: TrainConfig) -> list[tuple[str, str]]:
    """What a run reads, as settings and the paths they hold: ("dataset.images", "/home/me/ana"); empty ones left away.

    The base model's may be a name instead.
    """
    return [(place, section[name]) for place, section, name in _paths_in(config.model_dump())]


def with_paths(config: TrainConfig, change: Callable[[str, str], str]) -> TrainConfig:
    """The settings with each of `paths_of` replaced by `change(setting, path)`.

    Raises:
        InvalidSettings: As `validated`.
    """
    values = config.model_dump()
    for place, section, name in _paths_in(values):
        section[name] = change(place, section[name])
    return validated(values)


def _paths_in(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Where paths stand in the settings: the setting, and the dictionary and key that hold one."""
    sections = {"dataset": ("images", "captions"), "model": ("base_model", "vae"), "adapter": ("start_from",)}
    holders = [(f"{section}.{name}", values[section], name) for section, names in sections.items() for name in names]
    for concept in values["dataset"]["concepts"]:
        holders += [("dataset.concepts", concept, name) for name in ("images", "captions")]
    yield from (holder for holder in holders if holder[1][holder[2]])
