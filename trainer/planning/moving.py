"""A run whose images, base model or VAE were moved: where they are now is noted before it is resumed."""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.config import TrainConfig, paths_of
from trainer.contract.wording import named, setting
from trainer.dataset.scan import images_of
from trainer.models.compatible import check_chosen
from trainer.planning.ready import absolute
from trainer.runs import moved
from trainer.runs.folder import RunFolder

GIVEN = ("dataset.images", "dataset.captions", "model.base_model", "model.vae")  # that may be given with a resume


def move_inputs(run: RunFolder, given: Mapping[str, str], pairs: Iterable[tuple[str, str]] = ()) -> None:
    """Note where a run's files are now; its settings are not edited, and its trainer compares the contents.

    Args:
        run: One that is not being trained.
        given: New places by setting, of `GIVEN`.
        pairs: Old and new places, of files or of folders with all in them.

    Raises:
        RunBusy: It is being trained.
        InvalidSettings: The run has nothing there.
        InputsMissing: Something is missing still.
        TrainerError: There are no images in the new place, or no such base model.
    """
    worker = run.process()
    if worker is not None:
        raise run.busy(worker.pid)
    written, now = run.begun_with(), run.config()
    known = moved.recorded(run.moved_file)
    for place, path in given.items():
        known |= _shifted(written, now, _path(now, place), absolute(place, path))
    for old, new in pairs:
        known |= _shifted(written, now, absolute("", old), absolute("", new))
    found = moved.present(written, known, run.home)
    moved.require(found, run.path.name)
    if given or pairs:
        images_of(found.dataset)
        check_chosen(found)
        moved.record(run.moved_file, known)


def _path(config: TrainConfig, place: str) -> str:
    section, _, name = place.partition(".")
    path = str(getattr(getattr(config, section), name))
    if not path:
        raise InvalidSettings(f"The run was begun without {named(place)}.", hint=f"Resume it without {setting(place)}.")
    return path


def _shifted(written: TrainConfig, now: TrainConfig, old: str, new: str) -> dict[str, str]:
    """What lies at an old place or below it, by its path in the settings, and where it is now.

    Raises:
        InvalidSettings: Nothing does.
    """
    made = {}
    current = paths_of(now)
    for (_, original), (_, path) in zip(paths_of(written), current, strict=True):
        for known in (path, original):
            if PurePath(known).is_relative_to(old):
                made[original] = str(Path(new, PurePath(known).relative_to(old)))
                break
    if not made:
        seen = ", ".join(dict.fromkeys(path for _, path in current))
        raise InvalidSettings(f"The run reads nothing from {old}.", hint=f"Its files are: {seen}.")
    return made
