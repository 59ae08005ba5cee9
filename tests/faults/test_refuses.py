"""A run whose inputs are others now is not gone on with, and it says which."""

import shutil

import pytest
from injected import Fault
from PIL import Image

from trainer.contract.events import RunFailed
from trainer.contract.toml import read_toml
from trainer.runs.folder import RunFolder


@pytest.fixture(scope="module")
def killed(stage, make_run, images, tiny_model, tmp_path_factory):
    """A run with images and base model of its own, killed after a checkpoint and a LoRA file."""
    own = tmp_path_factory.mktemp("own")
    shutil.copytree(images, own / "pictures")
    shutil.copytree(tiny_model, own / "base")
    Image.new("L", (80, 64), 255).save(own / "pictures" / "image 1.mask.png")
    run = make_run(
        model={"base_model": str(own / "base")}, dataset={"images": str(own / "pictures"), "views": 2, "resolution": 32}
    )
    stage.train(run, Fault("kill", step=4))
    assert list(run.path.glob("*.safetensors"))
    return own, run


@pytest.fixture
def inputs(killed, tmp_path):
    """Copies of images, base model and run, to be changed."""
    own, run = killed
    shutil.copytree(own, tmp_path / "own")
    shutil.copytree(run.home.root, tmp_path / "home")
    copy = RunFolder(tmp_path / "home" / "runs" / run.path.name)
    copy.config_file.write_text(copy.config_file.read_text().replace(str(own), str(tmp_path / "own")))
    return tmp_path / "own", copy


def another_image(folder, _run):
    Image.new("RGB", (80, 64), "red").save(folder / "pictures" / "image 2.png")


def one_gone(folder, _run):
    (folder / "pictures" / "image 2.png").unlink()


def one_more(folder, _run):
    Image.new("RGB", (80, 64), "red").save(folder / "pictures" / "fresh.png")


def other_captions(folder, _run):
    for number in (1, 3):
        (folder / "pictures" / f"image {number}.txt").write_text("another")


def another_mask(folder, _run):
    Image.new("L", (80, 64), 40).save(folder / "pictures" / "image 1.mask.png")


def no_mask(folder, _run):
    (folder / "pictures" / "image 1.mask.png").unlink()


def another_base(folder, _run):
    import tiny

    tiny.model(folder / "base", seed=5)


def setting(line, other):
    def change(_folder, run):
        text = run.config_file.read_text()
        assert line in text
        run.config_file.write_text(text.replace(line, other))

    return change


CHANGES = {
    "picture": (another_image, "image 2.png changed"),
    "gone": (one_gone, "image 2.png is gone"),
    "new": (one_more, "fresh.png is new"),
    "captions": (other_captions, "the caption of image 1.png and 1 more changed"),
    "mask": (another_mask, "the mask of image 1.png changed"),
    "no mask": (no_mask, "the mask of image 1.png changed"),
    "base model": (another_base, "the base model changed"),
    "rank": (setting("rank = 2", "rank = 4"), "adapter.rank was 2 and is 4"),
    "seed": (setting("seed = 42", "seed = 43"), "model.seed was 42 and is 43"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_refused_by_name_with_a_way_to_go_on_anyway(stage, inputs, change):
    folder, run = inputs
    do, told = CHANGES[change]
    do(folder, run)
    assert stage.train(run) == 2
    failure = run.view().ended
    assert isinstance(failure, RunFailed)
    assert (failure.code, failure.message) == ("resume_refused", f"The run cannot be resumed: since it began, {told}.")
    newest = max(run.path.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
    assert f"--config {run.config_file} --adapter.start_from {newest}" in failure.hint
    assert read_toml(run.config_file)


def test_unchanged_it_goes_on(stage, inputs):
    _, run = inputs
    assert stage.train(run) == 0
    assert run.view().started.resumed_at == 2
