"""The strength strip, by trainers and by `python -m trainer.engine.strength_strip`, on the tiny model."""

import shutil

import numpy
import pytest
import warm
from PIL import Image

from trainer.__main__ import main
from trainer.contract.events import Phase, Warned, read_events
from trainer.engine import loop, outputs, previews, strength_strip
from trainer.runs import process
from trainer.runs.sheets import CELL_PX, GAP_PX, STRENGTHS, TOP_PX, UNDER_PX, strip_name

LEARNS = {"optimizer": {"learning_rate": 0.02}, "preview": {"steps": 2, "prompts": ["ball", "box", "hat"]}}


def events(run, kind):
    return [event for event in read_events(run.events_file)[0] if isinstance(event, kind)]


def sheet(path):
    with Image.open(path) as image:
        return numpy.asarray(image.convert("RGB")).astype(float)


def cell(strip, column):
    """One image of a strip."""
    left = GAP_PX + column * (CELL_PX + GAP_PX // 2)
    return strip[TOP_PX : TOP_PX + CELL_PX, left : left + CELL_PX]


def preview(run, step, index):
    """A preview at the size of a strip's cell."""
    with Image.open(run.samples / f"{step:06}-{index}.png") as image:
        return numpy.asarray(image.resize((CELL_PX, CELL_PX), Image.Resampling.NEAREST)).astype(float)


def difference(one, other):
    """Mean absolute difference of two images, of 255."""
    return abs(one - other).mean()


def contents(run):
    """Every file of the run but the log, which grows, with its bytes."""
    files = [path for path in run.path.rglob("*") if path.is_file() and path != run.log_file]
    return {str(path.relative_to(run.path)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model, images):
    """One whole run of 10 steps, text encoder included."""
    from trainer.contract.home import Home
    from trainer.contract.settings.config import validated
    from trainer.runs.folder import RunFolder

    config = validated(
        {
            "model": {"base_model": str(tiny_model), "precision": "fp32", "device": "cpu"},
            "dataset": {"images": str(images), "views": 4, "batch_size": 2, "resolution": 64},
            "adapter": {"rank": 4, "alpha": 2.0, "text_encoder": True, "dropout": 0.1},
            "output": {"name": "geprüft", "files": 2},
            **LEARNS,
        }
    )
    run = RunFolder.create(Home(tmp_path_factory.mktemp("home with ä")), config)
    assert warm.start(run).wait() == 0
    return run


def test_a_run_ends_with_the_strip_of_its_last_file_and_of_no_other(finished):
    assert [path.name for path in finished.path.glob("*.strength.png")] == ["geprüft.strength.png"]
    with Image.open(finished.path / "geprüft.strength.png") as image:
        width = 2 * GAP_PX + 6 * CELL_PX + 5 * (GAP_PX // 2)
        assert image.size == (width, TOP_PX + CELL_PX + UNDER_PX)


def test_at_strength_0_stands_the_first_preview_and_at_1_the_last(finished):
    strip = sheet(finished.path / "geprüft.strength.png")
    first, last = preview(finished, 0, 0), preview(finished, 10, 0)
    assert difference(cell(strip, STRENGTHS.index(0.0)), first) < 0.1
    assert difference(cell(strip, STRENGTHS.index(1.0)), last) < 0.1
    assert difference(first, last) > 1.0


def test_the_stronger_the_farther_from_the_base(finished):
    strip = sheet(finished.path / "geprüft.strength.png")
    distances = [difference(cell(strip, column), cell(strip, 0)) for column in range(len(STRENGTHS))]
    assert distances == sorted(distances)
    assert len(set(distances)) == len(STRENGTHS)


def test_the_progress_of_the_strip_is_told(finished):
    told = [(event.done, event.total) for event in events(finished, Phase) if event.name == "preview"]
    assert told == [(0, 6)], "images as small as these are generated together"


def test_drawn_again_from_the_file_the_strip_is_the_same_and_nothing_else_changes(finished):
    strip = finished.path / "geprüft.strength.png"
    drawn_in_training, before = sheet(strip), contents(finished)
    strip.unlink()
    assert process.generate_strip(finished, "geprüft.safetensors").wait(timeout=300) == 0
    assert difference(sheet(strip), drawn_in_training) < 2.0
    before.pop(strip.name)
    after = contents(finished)
    after.pop(strip.name)
    assert after == before


def test_an_earlier_file_has_a_strip_of_its_own(finished, tmp_path):
    copy = type(finished)(tmp_path / "home" / "runs" / "copy")
    shutil.copytree(finished.path, copy.path)
    (early,) = copy.path.glob("geprüft-*.safetensors")
    assert strength_strip.main([str(copy.path), early.name]) == 0
    made, last = sheet(copy.path / strip_name(early.name)), sheet(copy.path / "geprüft.strength.png")
    assert difference(cell(made, 0), cell(last, 0)) < 0.1
    assert difference(cell(made, 4), cell(last, 4)) > 1.0


def test_a_file_that_is_not_the_runs_is_refused_in_the_log(finished):
    shutil.copy(finished.path / "geprüft.safetensors", finished.path.parent / "foreign.safetensors")
    before = contents(finished)
    assert process.generate_strip(finished, "../foreign.safetensors").wait(timeout=300) == 2
    assert '"../foreign.safetensors"' in finished.log_file.read_text(encoding="utf-8").splitlines()[-1]
    assert contents(finished) == before


def test_a_stopped_run_has_its_strip_a_paused_one_has_none(new_run, monkeypatch):
    stopped, paused = new_run("stopped", **LEARNS), new_run("paused", **LEARNS)
    for run, wish in ((stopped, "stop"), (paused, "pause")):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "rest", warm.asking(wish))
            assert main([str(run.path)]) == 0
    assert [path.name for path in stopped.path.glob("*.strength.png")] == ["bälle-000001.strength.png"]
    assert not list(paused.path.glob("*.strength.png"))


@pytest.mark.parametrize("wish", ["stop", "pause"])
def test_asked_to_end_while_it_draws_the_strip_a_run_is_complete_without(new_run, monkeypatch, wish):
    run = new_run(dataset={"views": 1})
    monkeypatch.setattr(outputs, "write_sidecars", lambda training: training.run.request(wish))
    assert main([str(run.path)]) == 0
    assert run.status() == "completed"
    assert not list(run.path.glob("*.strength.png"))


def fails(*_):
    raise ValueError("a sheet of 20 px")


def test_a_strip_that_fails_is_a_warning(new_run, monkeypatch):
    run = new_run(dataset={"views": 1})
    monkeypatch.setattr(previews, "strength_sheet", fails)
    assert main([str(run.path)]) == 0
    assert run.status() == "completed"
    assert any("strength strip of bälle.safetensors" in warning.message for warning in events(run, Warned))
