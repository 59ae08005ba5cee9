"""Headless training in the console: the same run folder, process and events as a page would use."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from trainer.console.convert import convert
from trainer.console.doctor import checkup
from trainer.console.errors import ended
from trainer.console.flags import given_group, given_settings, make_parser
from trainer.console.plan import list_models, show_model, show_overlays, show_plan, show_previews, show_settings
from trainer.console.train import train
from trainer.contract.errors import InvalidSettings
from trainer.contract.home import Home
from trainer.contract.presets import FOLDER, list_presets, load_preset, overlay
from trainer.contract.settings.config import TrainConfig, validated
from trainer.contract.toml import Values, read_toml
from trainer.contract.units import size
from trainer.dataset.captions import first_caption
from trainer.dataset.overlay import with_overlays
from trainer.dataset.scan import images_of
from trainer.dataset.views import plan
from trainer.planning.disk import check_space
from trainer.planning.estimate import disk_bytes, estimate
from trainer.planning.ready import settled
from trainer.runs.folder import RunFolder


def main(arguments: Sequence[str]) -> int:
    """Do what the flags say; 0 on success, 2 on an error the user can act on."""
    console = Console(highlight=False)
    if list(arguments[:1]) == ["convert"]:
        return convert(arguments[1:], console)
    if any(word.partition("=")[0] == "--caption" for word in arguments):
        from trainer.console.caption import caption

        return ended(lambda: caption(arguments, console), console)
    return ended(lambda: _dispatch(make_parser().parse_args(arguments), console), console)


def _dispatch(flags: argparse.Namespace, console: Console) -> int:
    home = Home.find(flags.home)
    if flags.list_presets:
        usable, broken = list_presets(FOLDER, home.presets)
        for preset in usable:
            console.print(f"[bold]{escape(preset.name):22}[/] {escape(preset.intent)}")
        for error in broken:
            console.print(f"Note: {error.message}", style="yellow", markup=False)
        return 0
    if flags.models:
        list_models(console)
        return 0
    if flags.doctor or flags.export_dataset:
        return checkup(flags, given(flags, home)[0], home, console)
    if flags.resume:
        processes = vars(flags).pop("model.processes", None)
        if given_settings(flags) or flags.preset or flags.config:
            raise InvalidSettings(
                "A resumed run keeps its settings, but others were given.",
                hint="Leave them out, or start a new run with them.",
            )
        run = RunFolder.find(home, flags.resume)
        own = run.config().model
        model = validated({"model": {"processes": processes}}).model if processes else own
        return train(run, given_group(flags, model.processes, own.processes), flags.queue, console)
    config, origins = resolve(flags, home)
    group = given_group(flags, config.model.processes, config.model.processes)
    images, problems = images_of(config.dataset)
    made = plan(len(images), config.dataset)
    if flags.check:
        show_settings(config, origins, console)
    show_model(config.model.base_model, console)
    show_overlays(config.dataset, home, console)
    show_plan(config, made, problems, group, console)
    captions = [first_caption(item, config.dataset, config.model.seed) for item in images]
    show_previews(estimate(home, config).drawing(config, made, captions, group.size), console)
    needed = disk_bytes(config, made.steps, captions)
    if needed is not None:
        console.print(f"Disk: up to {size(needed)} in {home.runs}.", markup=False, soft_wrap=True)
        check_space(home.runs, needed)
    return 0 if flags.check else train(RunFolder.create(home, config), group, flags.queue, console)


def resolve(flags: argparse.Namespace, home: Home) -> tuple[TrainConfig, dict[str, str]]:
    """Settings from preset, file and flags, and where each came from; relative paths become absolute.

    Raises:
        InvalidSettings: Neither preset nor file, or a value that is not allowed.
    """
    if not flags.preset and not flags.config:
        raise InvalidSettings("No preset given.", hint="Try --preset pocket-style, or --list-presets.")
    config, origins = given(flags, home)
    config = settled(config)
    if config.dataset.captions or origins["dataset.captions"] == "default":  # given empty: the folder's own alone
        dataset = with_overlays(config.dataset, home)
        if dataset.captions != config.dataset.captions:
            origins["dataset.captions"] = "changed here"
        config = config.model_copy(update={"dataset": dataset})
    return config, origins


def given(flags: argparse.Namespace, home: Home) -> tuple[TrainConfig, dict[str, str]]:
    """The same as they were given, whether or not a run could be made of them.

    Raises:
        InvalidSettings: A value that is not allowed.
    """
    layers: dict[str, Values] = {}
    if flags.preset:
        layers[f"preset {flags.preset}"] = load_preset(flags.preset, FOLDER, home.presets).values
    if flags.config:
        values = read_toml(flags.config)
        values.pop("intent", None)  # a copied preset's sentence
        layers[f"file {flags.config.name}"] = values
    layers["flag"] = given_settings(flags)
    return overlay(layers)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
