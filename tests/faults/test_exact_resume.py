"""N steps are k steps, kill -9, and the rest: bit for bit on the CPU, whatever the settings."""

import itertools
import signal
from pathlib import Path
from typing import get_args

import pytest
import tally
from injected import Fault
from PIL import Image, ImageDraw
from soundness import differences, faults_of

from trainer.contract.settings.learning import OptimizerSettings
from trainer.contract.settings.model import Checkpointing, Quantize

SIZES = [(80, 64), (64, 80), (64, 64), (96, 48), (80, 64)]
SCHEDULES = get_args(OptimizerSettings.model_fields["lr_scheduler"].annotation)
TEXT = {"adapter": {"text_encoder": True}}
WORDS = {"shuffle_tags": True, "tag_dropout": 0.2, "caption_dropout": 0.2}
PROTECT = {"prior_preservation": True, "class_prompt": "a ball", "class_images": 3}
CASES = {
    "plain": {},
    **{f"schedule {one}": {"optimizer": {"lr_scheduler": one, "warmup": 0.3}} for one in SCHEDULES},
    "accumulation": {"dataset": {"batch_size": 1, "accumulation": 2}},
    "text encoder": TEXT,
    "LoRA dropout": {"adapter": {"dropout": 0.2}},
    "several buckets": {"dataset": {"resolution": 64, "batch_size": 3}},
    "several sizes": {"dataset": {"resolution": 64, "further_resolutions": (32,)}},
    "flip": {"dataset": {"flip": True}},
    "captions shuffled and dropped": {"dataset": WORDS},
    "base kept without caption": {"dataset": WORDS, "objective": {"keep_uncaptioned": True}},
    "masks": {"dataset": {"masks": True}},
    "prior preservation": {"dataset": PROTECT},
    "noise offset": {"objective": {"noise_offset": 0.1}},
    "bf16": {"model": {"precision": "bf16"}, **TEXT},
    "streamed": {"model": {"offload": "on"}},
    **{f"base in {bits}": {"model": {"quantize": bits}, **TEXT} for bits in get_args(Quantize) if bits != "none"},
    **{
        f"checkpointing {one}": {"model": {"gradient_checkpointing": one}}
        for one in get_args(Checkpointing)
        if one != "none"
    },
    "everything at once": {
        "model": {"gradient_checkpointing": "blocks"},
        "dataset": {**WORDS, **PROTECT, "masks": True, "flip": True, "resolution": 64, "accumulation": 2},
        "adapter": {"text_encoder": True, "dropout": 0.1},
        "optimizer": {"warmup": 0.3},
    },
}


@pytest.fixture(scope="session")
def many_shapes(tmp_path_factory):
    """Folders of images of several sizes with tags; in one of them some have a mask."""
    folders = {masks: tmp_path_factory.mktemp("shapes") for masks in (False, True)}
    for (masks, folder), (number, size) in itertools.product(folders.items(), enumerate(SIZES)):
        image = Image.new("RGB", size, (40 * number, 90, 200))
        ImageDraw.Draw(image).ellipse([5 * number, 4, 40, 40], fill="yellow")
        image.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"ball, round, number {number}, yellow, on blue")
        if masks and number % 2:
            mask = Image.new("L", size)
            ImageDraw.Draw(mask).rectangle([0, 0, 30, 30], fill="white")
            mask.save(folder / f"{number}.mask.png")
    return folders


@pytest.fixture
def changes(many_shapes):
    """A case's settings, on images of many shapes."""

    def of(case: str, **more: dict) -> dict:
        chosen = {name: dict(values) for name, values in CASES[case].items()}
        dataset = {"views": 3, **chosen.get("dataset", {})}
        folder: Path = many_shapes[bool(dataset.pop("masks", False))]
        return {**chosen, **more, "dataset": {**dataset, "images": str(folder)}}

    return of


def few_or_all(cases, few):
    return [pytest.param(case, marks=[] if case in few else pytest.mark.faults) for case in cases]


@pytest.mark.parametrize("case", few_or_all(CASES, ["everything at once"]))
def test_a_killed_run_ends_as_one_that_was_not(stage, make_run, whole, changes, case):
    undisturbed, run = whole(**changes(case)), make_run(**changes(case))
    assert stage.train(run, Fault("kill", step=3)) == -signal.SIGKILL  # one step after the checkpoint, within a pass
    wrong = faults_of(run)
    stage.train(run)
    assert not tally.note(f"exact resume: {case}", wrong + differences(run, undisturbed))


@pytest.mark.parametrize("case", few_or_all(["plain", "text encoder", "everything at once"], ["plain"]))
def test_five_kills_in_a_row_change_nothing(stage, make_run, whole, changes, case):
    undisturbed, run = whole(**changes(case)), make_run(**changes(case))
    wrong = []
    for step in (1, 3, 3, 4, 5):
        assert stage.train(run, Fault("kill", step=step)) == -signal.SIGKILL
        wrong += faults_of(run)
    stage.train(run)
    assert not tally.note(f"exact resume: {case}, five kills", wrong + differences(run, undisturbed))
