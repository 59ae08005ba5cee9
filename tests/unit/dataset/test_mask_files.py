"""Masks by the names that people and other trainers give them."""

import pytest
from PIL import Image

from tests.unit.dataset.test_captions import draw
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.dataset.mask_files import told_apart
from trainer.dataset.scan import scan
from trainer.doctor.masks import mask_problems

ARE_MASKS = [
    ("p00.jpg", "p00-masklabel.png"),
    ("p00.jpg", "p00-MaskLabel.PNG"),
    ("p00.jpg", "p00.mask.webp"),
    ("p00.png", "masks/p00.png"),
    ("p00.jpg", "mask/p00.png"),
    ("day 1/p00.jpg", "day 1/Masks/p00.png"),
    ("day 1/p00.jpg", "masks/day 1/p00.png"),
    ("images/p00.jpg", "masks/p00.png"),
    ("x/img/day 1/p00.jpg", "x/mask/day 1/p00.png"),
    ("p00.jpg", "masks/p00-masklabel.png"),
    ("p00.jpg", "masks/p00_mask.png"),
    ("p00.jpg", "masks/p00.jpg.png"),
    ("p00.jpg", "p00_mask.png"),
    ("p00.jpg", "p00-mask.jpg"),
    ("p00.jpg", "p00 mask.png"),
    ("p00.jpg", "p00masklabel.png"),
    ("p00.jpg", "p00-mask-1.png"),
    ("p00.jpg", "mask_p00.png"),
    ("p00.jpg", "Masks/P00.PNG"),
    ("P00.JPG", "p00_Mask.png"),
    ("p00.jpg", "_masks/p00.png"),
    ("p00.jpg", "alpha masks/p00.png"),
    ("p00.jpg", "loss_masks/p00_mask.png"),
    ("p00.jpg", "mask_images/p00.png"),
    ("img/day 1/p00.jpg", "mask/p00.png"),
]


@pytest.mark.parametrize(("image", "mask"), ARE_MASKS)
def test_a_mask_under_any_usual_name_is_no_image_and_belongs_to_its_image(tmp_path, image, mask):
    for name in (image, mask):
        draw(tmp_path / name)
    ((item,), problems) = scan(tmp_path)
    assert (item.name, item.mask) == (image, tmp_path / mask)
    assert [one.code for one in problems] == ["no_caption"]


@pytest.mark.parametrize(
    "names",
    [
        ("man_in_mask.png", "woman-mask.png"),  # no image is called man_in
        ("masks/venice 1.png", "masks/venice 2.png", "street/a.png"),  # photos of masks
        ("mask.png", "-mask.png", "unmasked/a.png"),
        ("mask_1.png", "mask 2.png", "masked/a.png", "a.png", "damask.png"),
        ("day 1/a.png", "day 2/a.png", "masks/a.png"),  # of which?
    ],
)
def test_images_that_only_sound_like_masks_are_images(names):
    assert told_apart(names) == (list(names), {})


def test_in_a_folder_of_masks_those_without_an_image_are_not_trained_but_named(tmp_path):
    draw(tmp_path / "a.png", caption="x")
    for name in ("a", "b", "c"):
        draw(tmp_path / "masks" / f"{name}.png")
    draw(tmp_path / "lost-masklabel.png")
    items, (problem,) = scan(tmp_path)
    assert [item.name for item in items] == ["a.png"]
    assert problem.code == "mask_without_picture"
    assert "lost-masklabel.png and 2 more" in problem.message


def test_of_several_masks_the_one_beside_the_image_counts():
    names = ["a.jpg", "masks/a.png", "a_mask.png", "a-masklabel.png", "a.mask.png"]
    for last in range(2, len(names) + 1):
        assert told_apart(names[:last])[1]["a"] == names[last - 1]
        assert told_apart(names[:last])[0] == ["a.jpg"]


def test_two_images_that_differ_in_their_suffix_may_have_masks_of_their_own(tmp_path):
    for name in ("a.png", "a.jpg", "masks/a.png.png", "masks/a.jpg.png"):
        draw(tmp_path / name)
    assert {item.name: item.mask.name for item in scan(tmp_path)[0]} == {"a.png": "a.png.png", "a.jpg": "a.jpg.png"}


def test_an_image_made_for_inpainting_is_no_training_image(tmp_path):
    draw(tmp_path / "a.png", caption="x")
    draw(tmp_path / "a-condlabel.png")
    items, (problem,) = scan(tmp_path)
    assert [item.name for item in items] == ["a.png"]
    assert problem.message == "1 other file is not read: 1 -condlabel.png."


def test_a_mask_in_a_folder_that_is_empty_is_named_by_its_path(tmp_path):
    draw(tmp_path / "day 1" / "a.png", (64, 64), caption="x")
    Image.new("L", (64, 64)).save(draw(tmp_path / "day 1" / "masks" / "a.png"))
    items, _ = scan(tmp_path)
    (problem,) = mask_problems(items, validated({"dataset": {"images": str(tmp_path)}}), Home(tmp_path / "home"))
    assert "learn: day 1/masks/a.png." in problem.message
