"""From settings to a run; and from a run to the settings of one that continues it."""

from collections.abc import Iterator
from itertools import count

from trainer.contract.errors import InvalidSettings
from trainer.contract.home import Home
from trainer.contract.settings.config import TrainConfig
from trainer.dataset.captions import first_caption
from trainer.dataset.scan import images_of
from trainer.dataset.views import plan
from trainer.planning.disk import check_space
from trainer.planning.estimate import disk_bytes
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue

NEWEST = 30  # runs that are looked at for names and models


def continuation(home: Home, run: RunFolder, file: str) -> TrainConfig:
    """Returns the run's settings for another run that continues from one of its LoRA files, under the next free name.

    Raises:
        RunMissing: The file's name leads out of the run's folder.
        InvalidSettings: The run's settings were written by another version.
    """
    config = run.config()
    adapter = config.adapter.model_copy(update={"start_from": str(run.inside(file))})
    output = config.output.model_copy(update={"name": next_name(home, config.output.name)})
    return config.model_copy(update={"adapter": adapter, "output": output})


def next_name(home: Home, name: str) -> str:
    """Returns the name, counted up until none of the newest runs has it: "ana", "ana 2", "ana 3"."""
    stem, _, number = name.rpartition(" ")
    if not (stem and number.isdecimal()):
        stem, number = name, "1"
    used = {config.output.name for config in earlier(home)}
    return next(made for n in count(int(number) + 1) if (made := f"{stem} {n}") not in used)


def earlier(home: Home) -> Iterator[TrainConfig]:
    """The newest runs' settings."""
    for run in RunFolder.all(home)[:NEWEST]:
        try:
            yield run.config()
        except InvalidSettings:  # written by another version
            continue


def start_run(home: Home, config: TrainConfig) -> RunFolder:
    """Start a run with these settings, or put it last in the queue.

    Raises:
        TrainerError: The images cannot be used, or the disk has too little room.
    """
    items, _ = images_of(config.dataset)
    captions = [first_caption(item, config.dataset, config.model.seed) for item in items]
    needed = disk_bytes(config, plan(len(items), config.dataset).steps, captions)
    if needed is not None:
        check_space(home.runs, needed)
    run = RunFolder.create(home, config)
    Queue(home).start(run)
    return run
