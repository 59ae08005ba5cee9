"""Masks that would spoil or stop a training are named before it starts."""

import numpy as np
import pytest
import tiny
from PIL import Image
from PIL.ExifTags import Base

from app.desk.plan import cautions, found_in
from trainer.console.main import main
from trainer.contract.events import EventLog
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.dataset.scan import images_of
from trainer.doctor.masks import mask_problems
from trainer.engine import prepare
from trainer.runs.folder import RunFolder


def said(folder, **settings):
    """Findings by code, of the reader and of the look at what is left."""
    config = validated({"model": {"base_model": "pocket"}, "dataset": {"images": str(folder), **settings}})
    items, problems = images_of(config.dataset)
    made = [
        one
        for one in (*problems, *mask_problems(items, config, Home(folder.parent / "home")))
        if one.code.startswith("mask")
    ]
    assert len({one.code for one in made}) == len(made), "each is said once"
    return {one.code: one for one in made}


@pytest.fixture
def folder(tmp_path):
    return tiny.images(tmp_path / "set" / "day 1", count=2, size=(160, 128)).parent


def black(size=(160, 128)):
    return np.zeros(size[::-1], np.uint8)


def a_speck():
    mask = black()
    mask[3, 3] = 255
    return Image.fromarray(mask)


EMPTY = {
    "black": lambda: Image.fromarray(black()),
    "one bit": lambda: Image.new("1", (160, 128), 0),
    "sixteen bits": lambda: Image.fromarray(black().astype(np.uint16)),
    "white but transparent": lambda: Image.new("RGBA", (160, 128), (255, 255, 255, 0)),
    "black and opaque": lambda: Image.new("LA", (160, 128), (0, 255)),
    "of black colors": lambda: Image.new("RGB", (160, 128)),
    "a palette": lambda: Image.new("P", (160, 128), 0),
    "classes 0 and 1": lambda: Image.fromarray(black() + 1),
    "smaller than its image": lambda: Image.new("L", (80, 64)),
    "a speck that no latent shows": a_speck,
}


@pytest.mark.parametrize("kind", EMPTY)
def test_a_mask_that_leaves_nothing_is_named_with_its_folder(folder, kind):
    EMPTY[kind]().save(folder / "day 1" / "image 0.mask.png")
    found = said(folder, resolution=64)
    assert list(found) == ["mask_empty"]
    assert "day 1/image 0.mask.png" in found["mask_empty"].message
    assert found["mask_empty"].images == (folder / "day 1" / "image 0.png",)


def test_console_page_and_trainer_name_it_before_the_start(folder, home, capsys):
    Image.fromarray(black()).save(folder / "day 1" / "image 0.mask.png")
    flags = ["--preset", "pocket-style", "--home", str(home.root), "--images", str(folder), "--check"]
    assert main(flags) == 0
    assert "nothing of their images to learn: day 1/image 0.mask.png" in " ".join(capsys.readouterr().out.split())
    config = validated({"model": {"base_model": "pocket"}, "dataset": {"images": str(folder), "resolution": 64}})
    assert "day 1/image 0.mask.png" in " ".join(cautions(home, config, found_in(config.dataset)[0], "en"))
    run = RunFolder.create(home, config)
    with EventLog(run.events_file) as log:
        prepare._images(run, config, log)
    assert [one.code for one in run.view().warnings if one.code.startswith("mask")] == ["mask_empty"]


def test_a_mask_of_which_the_crop_leaves_nothing_is_named(tmp_path):
    folder = tiny.images(tmp_path / "wide", count=1, size=(800, 100))
    mask = np.zeros((100, 800), np.uint8)
    mask[:, :8] = 255
    Image.fromarray(mask).save(folder / "image 0.mask.png")
    assert list(said(folder, resolution=64)) == ["mask_empty"]


@pytest.mark.parametrize("fill", [255, 128])
def test_masks_that_leave_something_are_let_be(folder, fill):
    mask = black()
    mask[40:60, 40:60] = fill
    Image.fromarray(mask).save(folder / "day 1" / "image 0.mask.png")
    assert said(folder) == {}


def test_transparency_that_hides_all_is_such_a_mask_where_it_is_one(folder):
    Image.new("RGBA", (160, 128), (9, 9, 9, 0)).save(folder / "day 1" / "image 1.png")
    assert said(folder) == {}
    assert "day 1/image 1.png (transparent)" in said(folder, alpha_mask=True)["mask_empty"].message


def turned(folder):
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    with Image.open(folder / "day 1" / "image 0.png") as image:
        image.save(folder / "day 1" / "image 0.png", exif=exif)


@pytest.mark.parametrize("size", [(128, 160), (160, 64), (64, 64)])
def test_a_mask_of_another_shape_is_named_with_both_sizes(folder, size):
    Image.new("L", size, "white").save(folder / "day 1" / "image 0.mask.png")
    message = said(folder)["mask_shape"].message
    assert f"day 1/image 0.mask.png is {size[0]} x {size[1]} px, its image 160 x 128" in message


def test_a_mask_that_is_not_turned_as_its_image_is_named(folder):
    turned(folder)
    Image.new("L", (160, 128), "white").save(folder / "day 1" / "image 0.mask.png")
    assert "160 x 128 px, its image 128 x 160" in said(folder)["mask_shape"].message


@pytest.mark.parametrize("kept", [0, 20, 0.6])
def test_a_mask_that_cannot_be_read_is_named(folder, kept):
    path = folder / "day 1" / "image 0.mask.png"
    noise = np.random.default_rng(0).integers(0, 255, (128, 160), np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else kept])
    assert "day 1/image 0.mask.png (" in said(folder)["mask_unreadable"].message
