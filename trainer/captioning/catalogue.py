"""The captioners: what each does and needs, its settings, and where its model is."""

import sys
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from trainer.captioning.errors import DownloadNeeded, ExtraMissing, NotACaptioner
from trainer.contract.home import CHECKOUT, user_path
from trainer.contract.settings.fields import PastedModel, PastedPath, Section, invalid, setting
from trainer.contract.units import size
from trainer.models.hub import Download, is_hub_name, local_folder, look
from trainer.models.hub_files import weights

CaptionerName = Literal["file-names", "folder-names", "metadata", "nearest", "wd14", "blip", "florence2"]
Detail = Literal["short", "detailed", "long"]
TAGGER = (("model.onnx",), ("selected_tags.csv",))
# What a model of transformers must hold beside weights, each one way or another; and what else it may
LANGUAGE = (
    ("config.json",),
    ("preprocessor_config.json", "processor_config.json"),
    ("tokenizer.json", "vocab.txt", "vocab.json"),
)
MORE = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")


class CaptionSettings(Section):
    """How the images of a folder are captioned automatically."""

    folder: PastedPath = setting("", level="basic", min_length=1, description="Folder with the images; only read.")
    captioner: CaptionerName = setting("file-names", level="basic", description="Where captions come from.")
    model: PastedModel = setting(
        "", description="The captioner's model: a folder, or a name on the Hugging Face hub; empty: its usual one."
    )
    download: bool = setting(False, description="Download the model if it is not on this computer.")
    overwrite: bool = setting(False, description="Overwrite existing captions.")
    general_threshold: float = setting(0.35, ge=0.01, le=1.0, description="WD14: confidence threshold of general tags.")
    character_threshold: float = setting(
        0.85, ge=0.01, le=1.0, description="WD14: confidence threshold of character tags; 1: no character names."
    )
    detail: Detail = setting("detailed", description="Florence-2: one clause, a sentence or two, or a paragraph.")


def caption_settings(values: dict[str, Any]) -> CaptionSettings:
    """The settings as one frozen object, the folder's path absolute.

    Raises:
        InvalidSettings: Naming every setting at fault, the value seen, and what is allowed.
    """
    try:
        made = CaptionSettings.model_validate(values)
    except ValidationError as error:
        raise invalid(error, {}) from None
    folder = str(user_path(made.folder).resolve())
    model = made.model if not made.model or is_hub_name(made.model) else str(user_path(made.model).resolve())
    return made.model_copy(update={"folder": folder, "model": model})


@dataclass(frozen=True)
class Captioner:
    """One way to caption images.

    Attributes:
        name: What chooses it.
        label: Its name for people.
        sentence: What it does.
        repository: Its usual model on the Hugging Face hub; empty where it needs none.
        megabytes: What that model has to download, about.
        needs: The files a model must hold, each one way or another.
        model_type: What transformers calls its architecture; empty for others.
        extra: The extra of pyproject.toml that it needs; empty where it needs none.
        module: What that extra brings.
    """

    name: CaptionerName
    label: str
    sentence: str
    repository: str = ""
    megabytes: int = 0
    needs: tuple[tuple[str, ...], ...] = ()
    model_type: str = ""
    extra: str = ""
    module: str = ""

    @property
    def installed(self) -> bool:
        """Whether every library it needs is here."""
        return not self.module or find_spec(self.module) is not None

    @property
    def amount(self) -> str:
        """What its usual model has to download, about, for people; empty where it needs none."""
        return size(self.megabytes * 1e6) if self.megabytes else ""

    @property
    def install_command(self) -> str:
        """What to type to install what it needs; empty where nothing is."""
        if not self.extra:
            return ""
        with (CHECKOUT / "pyproject.toml").open("rb") as file:
            wanted = tomllib.load(file)["project"]["optional-dependencies"][self.extra]
        return f'"{sys.executable}" -m pip install ' + " ".join(f'"{requirement}"' for requirement in wanted)

    def here(self, model: str = "") -> Path | None:
        """The folder of its model on this computer; None for one of the hub that is still to be fetched.

        Args:
            model: A folder or a name on the hub; empty: the usual one.

        Raises:
            NotACaptioner: The folder is not there, or lacks files.
        """
        name = model or self.repository
        if is_hub_name(name):
            return local_folder(name, lambda snapshot: None if self.lacking(_files(snapshot)) else snapshot)
        folder = user_path(name)
        lacking = self.lacking(_files(folder)) if folder.is_dir() else ["not a folder"]
        if lacking:
            raise self.refused(folder, ", ".join(lacking))
        return folder

    def refused(self, place: Path | str, why: str) -> NotACaptioner:
        """Returns the error for a folder, or a name on the hub, that does not hold its model."""
        return NotACaptioner(label=self.label, place=place, why=why, repository=self.repository)

    def check(self, settings: CaptionSettings) -> None:
        """Check that it can start: libraries installed, its model here or its download allowed; asks no network.

        Raises:
            CaptionerError: One of them is not so.
        """
        if not self.installed:
            raise ExtraMissing(label=self.label, module=self.module, command=self.install_command)
        if self.repository and self.here(settings.model) is None and not settings.download:
            usual = settings.model in ("", self.repository)
            amount = f"about {self.amount}" if usual else "files"
            raise DownloadNeeded(label=self.label, name=settings.model or self.repository, amount=amount)

    def look(self, model: str = "") -> Download:
        """Returns which files of a hub model are needed and how much is missing; asks the hub.

        Raises:
            NotACaptioner: It is no such model.
            HubError: The hub cannot be reached, or the model is not for this user.
        """
        return look(model or self.repository, self.chosen)

    def lacking(self, files: Collection[str]) -> list[str]:
        """What these files lack to be its model, in words."""
        missing = [" or ".join(ways) for ways in self.needs if not any(way in files for way in ways)]
        if self.model_type and not _weights(files):
            missing.append("weights as model.safetensors")
        return [f"{what} is missing" for what in missing]

    def chosen(self, name: str, files: Sequence[str]) -> tuple[str, ...]:
        """The files of its model among those of a repository, small ones first.

        Raises:
            NotACaptioner: Some are missing.
        """
        if lacking := self.lacking(files):
            raise self.refused(name, ", ".join(lacking))
        if not self.model_type:
            return tuple(ways[0] for ways in reversed(self.needs))
        small = [file for ways in (*self.needs, MORE) for file in ways if file in files]
        return (*small, *_weights(files))


CAPTIONERS: dict[str, Captioner] = {
    one.name: one
    for one in (
        Captioner("file-names", "File names", "The words of an image's file name, without counters."),
        Captioner("folder-names", "Folder names", "The names of the folders that an image lies in."),
        Captioner(
            "metadata",
            "Generation metadata",
            "The prompt of a generated image, if AUTOMATIC1111 or ComfyUI saved it in the file.",
        ),
        Captioner("nearest", "Nearest images", "The tags shared by the most similar captioned images of the set."),
        Captioner(
            "wd14",
            "WD14 tagger",
            "Booru tags, best for anime and drawings.",
            repository="SmilingWolf/wd-swinv2-tagger-v3",
            megabytes=468,
            needs=TAGGER,
            extra="wd14",
            module="onnxruntime",
        ),
        Captioner(
            "blip",
            "BLIP",
            "One short sentence, best for photos.",
            repository="Salesforce/blip-image-captioning-large",  # the smaller one is stored as a pickle only
            megabytes=1880,
            needs=LANGUAGE,
            model_type="blip",
        ),
        Captioner(
            "florence2",
            "Florence-2",
            "A description, short or long.",
            repository="florence-community/Florence-2-base",  # Microsoft's own needs its code to be run
            megabytes=470,
            needs=LANGUAGE,
            model_type="florence2",
        ),
    )
}


def _weights(files: Collection[str]) -> list[str]:
    """One set of weights in their own precision: transformers asks for the half ones by another name."""
    return weights([file for file in files if "fp16" not in file and not file.startswith("diffusion")])


def _files(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*") if path.is_file()]
