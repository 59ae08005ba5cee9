"""Nothing in a folder is passed over in silence: other files are counted, and images are named by their path."""

import pytest

from tests.unit.dataset.test_captions import draw
from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.errors import NoImages, NothingToTrain
from trainer.dataset.problems import base_of, relative
from trainer.dataset.scan import images_of, scan


def touched(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def said(folder):
    return [one.message for one in scan(folder)[1] if one.code == "unread_files"]


def test_raw_photographs_and_layers_beside_images_are_counted_by_kind(tmp_path):
    for number in range(3):
        draw(tmp_path / f"{number}.jpg", caption="x")
    touched(tmp_path, *(f"{number}.NEF" for number in range(20)), *(f"more/{number}.psd" for number in range(5)))
    assert said(tmp_path) == ["25 other files are not read: 20 .nef, 5 .psd."]


@pytest.mark.parametrize(
    ("names", "message", "advice"),
    [
        (["a.mp4"], "1 other file is not read: 1 .mp4.", "Save those"),
        (["x.zip", "y.zip"], "2 other files are not read: 2 .zip.", "Unpack archives"),
        (["x.parquet"], "1 other file is not read: 1 .parquet.", "as .csv"),
        (["gone.txt", "x.rw2"], "2 other files are not read: 1 .rw2, 1 .txt.", "a.png and a.txt, or a.png.txt. Save"),
        (["a.1", "a.2", "a.3", "a.4", "a.5", "a.6", "a.7"], "1 .1, 1 .2, 1 .3, 1 .4, 1 .5 and 2 more.", "Save"),
        (["plain", "odd.\x1b[31m", "odd.name with blanks"], "3 other files are not read: 3 without a suffix.", "Save"),
    ],
)
def test_other_kinds_are_named_with_what_can_be_done(tmp_path, names, message, advice):
    draw(tmp_path / "a.jpg", caption="x")
    touched(tmp_path, *names)
    (problem,) = scan(tmp_path)[1]
    assert problem.message.endswith(message)
    assert advice in problem.hint


def test_what_other_programs_keep_beside_images_is_not_counted(tmp_path):
    draw(tmp_path / "a.png", caption="x")
    draw(tmp_path / "a.mask.png", (8, 4))
    names = ("Thumbs.db", ".DS_Store", "desktop.ini", "a.json", "a.npz", "a_te.npz", "a.xmp", "IMG_1.AAE", "README.md")
    touched(tmp_path, *names, "LICENSE")
    (tmp_path / "captions.csv").write_text("a.png,y\n")
    assert scan(tmp_path)[1] == []


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    touched(tmp_path, *(f"{number}.nef" for number in range(4)), "a.psd")
    with pytest.raises(NoImages, match=r"\(5 other files: 4 \.nef, 1 \.psd\)"):
        scan(tmp_path)


def test_images_of_one_name_in_two_folders_are_told_apart(tmp_path):
    for day in ("day1", "day2"):
        draw(tmp_path / day / "a.jpg")
        (tmp_path / day / "b.txt").write_bytes("groß".encode("cp1252"))
        draw(tmp_path / day / "b.jpg")
        (tmp_path / day / "c.png").write_bytes(b"no image")
        draw(tmp_path / day / "lost.mask.png")
    (tmp_path / "day2" / "up").symlink_to("/")
    messages = {problem.code: problem.message for problem in scan(tmp_path)[1]}
    assert "(first: day1/a.jpg)" in messages["no_caption"]
    assert messages["caption_encoding"].startswith("day1/b.txt and 1 more are not UTF-8")
    assert "day1/c.png" in messages["unreadable_image"]
    assert "day1/lost.mask.png and 1 more" in messages["mask_without_picture"]
    assert "day2/up" in messages["link_outside"]


def test_images_of_one_name_in_two_concepts_are_told_apart(tmp_path):
    for name in ("ana", "ben"):
        draw(tmp_path / name / "01.png")
        touched(tmp_path, f"{name}/01.cr2")
    settings = DatasetSettings(images=str(tmp_path / "ana"), concepts=[{"images": str(tmp_path / "ben")}])
    messages = [problem.message for problem in images_of(settings)[1]]
    assert [one for one in messages if "first: ana/01.png" in one]
    assert [one for one in messages if "first: ben/01.png" in one]
    assert "In ben: 1 other file is not read: 1 .cr2." in messages


def test_where_all_images_are_broken_the_first_is_named_by_its_path(tmp_path):
    touched(tmp_path, "day1/a.jpg", "day2/a.jpg")
    with pytest.raises(NothingToTrain, match=r"2 cannot be read \(day1/a\.jpg"):
        scan(tmp_path)


def test_a_file_elsewhere_keeps_its_whole_path(tmp_path):
    base = base_of([tmp_path / "ana", tmp_path / "ben"])
    assert base == tmp_path
    assert relative(tmp_path / "ana" / "a.png", base) == "ana/a.png"
    assert relative(tmp_path.parent / "a.png", base) == str(tmp_path.parent / "a.png")
