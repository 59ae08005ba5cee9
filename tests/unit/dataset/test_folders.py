import os
import sys
from importlib import import_module

import pytest
from PIL import Image, features

from tests.unit.dataset.test_captions import draw
from trainer.contract.settings.dataset import Concept, DatasetSettings
from trainer.dataset.errors import FolderMissing, NoImages, NothingToTrain
from trainer.dataset.formats import ORIENTATION_TAG, PLUGINS, SUFFIXES, image_size, readable_formats
from trainer.dataset.scan import images_of, look, scan


def names(folder, captions=None):
    return [item.name for item in scan(folder, captions)[0]]


def codes(folder):
    return [problem.code for problem in scan(folder)[1] if problem.code != "no_caption"]


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".tiff", ".avif", ".jfif", ".webp", ".BMP"])
def test_further_formats_are_read(tmp_path, suffix):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    draw(tmp_path / f"a{suffix}", (16, 8), format="JPEG" if suffix == ".jfif" else None)
    ((item,), _) = scan(tmp_path)
    assert (item.width, item.height) == (16, 8)


def test_of_an_animation_the_first_image_counts(tmp_path):
    frames = [Image.new("P", (16, 8), number) for number in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert image_size(tmp_path / "a.gif") == (16, 8)


@pytest.mark.parametrize("suffix", [".heic", ".jxl"])
def test_a_format_that_needs_a_package_names_it(tmp_path, suffix):
    name = {".heic": "HEIF", ".jxl": "JXL"}[suffix]
    if name in readable_formats():
        pytest.skip("the package is installed here")
    draw(tmp_path / "a.png", caption="x")
    (tmp_path / f"b{suffix}").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / f"c{suffix}").write_bytes(b"\0\0\0\x18ftypheic")
    (problem,) = scan(tmp_path)[1]
    assert PLUGINS[name][1] in problem.message
    assert len(problem.images) == 2


def test_a_format_that_starts_other_programs_is_not_opened_under_an_images_name(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    draw(tmp_path / "b.png", caption="x")
    assert names(tmp_path) == ["b.png"]


def test_a_png_that_says_at_its_end_how_it_is_turned_is_believed(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    path = draw(tmp_path / "a.png", (16, 8), exif=exif)
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    end = data.index(b"IEND") - 4
    moved = data[:start] + data[start + len(chunk) : end] + chunk + data[end:]
    path.write_bytes(moved)
    assert image_size(path) == (8, 16)


def test_a_nested_folder_is_walked_to_its_end(tmp_path):
    deep = tmp_path
    for number in range(60):
        deep = deep / f"d{number}"
    draw(deep / "a.png")
    assert names(tmp_path) == ["/".join([*(f"d{number}" for number in range(60)), "a.png"])]


def test_a_link_that_leads_out_of_the_folder_is_refused_and_named(tmp_path):
    outside = draw(tmp_path / "outside" / "secret.png", caption="secret")
    inside = tmp_path / "inside"
    draw(inside / "a.png")
    (inside / "b.png").symlink_to(outside)
    (inside / "all").symlink_to(outside.parent)
    (inside / "a.txt").symlink_to(outside.with_suffix(".txt"))
    items, problems = scan(inside)
    assert [(item.name, item.caption) for item in items] == [("a.png", "")]
    (refused,) = [problem for problem in problems if problem.code == "link_outside"]
    assert set(refused.images) == {inside / "a.txt", inside / "all", inside / "b.png"}
    assert refused.why


def test_links_within_the_folder_bring_an_image_in_once(tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / ".store" / "x.png")
    draw(tmp_path / "real" / "c.png")
    (tmp_path / "again.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / ".store" / "x.png")
    (tmp_path / "b2.png").symlink_to(tmp_path / ".store" / "x.png")
    (tmp_path / "twice").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    assert names(tmp_path) == ["a.png", "b.png", "real/c.png"]


def test_a_link_into_a_folder_that_is_taken_for_itself_brings_nothing_in(tmp_path):
    draw(tmp_path / "a.png", caption="x")
    draw(tmp_path / "second" / "deep" / "b.png", caption="x")
    (tmp_path / "link").symlink_to(tmp_path / "second" / "deep")
    (tmp_path / "c.png").symlink_to(tmp_path / "second" / "deep" / "b.png")
    concept = Concept(images=str(tmp_path / "second"))
    items, problems = images_of(DatasetSettings(images=str(tmp_path), concepts=(concept,)))
    assert [(item.name, item.concept) for item in items] == [("a.png", 0), ("deep/b.png", 1)]
    assert problems == []


@pytest.mark.skipif(sys.platform != "win32", reason="only Windows has junctions")
def test_a_junction_that_leads_out_of_the_folder_is_refused_and_named(tmp_path):
    draw(tmp_path / "outside" / "secret.png")
    draw(tmp_path / "inside" / "a.png", caption="x")
    import_module("_winapi").CreateJunction(str(tmp_path / "outside"), str(tmp_path / "inside" / "all"))
    assert names(tmp_path / "inside") == ["a.png"]
    assert codes(tmp_path / "inside") == ["link_outside"]


def test_links_that_lead_nowhere_or_in_a_circle_are_named(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "d.png")
    (tmp_path / "d.png").symlink_to(tmp_path / "c.png")
    assert names(tmp_path) == ["a.png"]
    assert codes(tmp_path) == ["link_broken"]


def test_the_folder_itself_may_be_a_link(tmp_path):
    draw(tmp_path / "real" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert names(tmp_path / "link") == ["a.png"]


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_file_whose_name_is_no_text_is_passed_over_and_named(tmp_path):
    draw(tmp_path / "a.png")
    try:
        os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")  # noqa: PTH104 - bytes
    except OSError:
        pytest.skip("this disk holds no such names")
    draw(tmp_path / "b.png", caption="x")
    items, (problem,) = scan(tmp_path)
    assert [item.name for item in items] == ["b.png"]
    assert problem.code == "name_unreadable"
    problem.message.encode()


def test_folders_named_as_in_kohyas_tools_weigh_their_images_and_name_them(tmp_path):
    draw(tmp_path / "10_ana woman" / "a.png")
    draw(tmp_path / "2_street" / "b.png", caption="a street")
    draw(tmp_path / "2023_holidays" / "c.png", caption="a beach")
    items, problems = scan(tmp_path)
    found = [(item.weight, item.caption) for item in items]
    assert found == [(10.0, "ana woman"), (1.0, "a beach"), (2.0, "a street")]
    (note,) = problems
    assert note.code == "folder_repeats"
    assert "10_ana woman" in note.message
    assert "Only their ratio counts" in note.hint
    assert not note.images


def test_kohyas_folder_names_can_be_switched_off(tmp_path):
    draw(tmp_path / "10_ana woman" / "a.png")
    items, problems = images_of(DatasetSettings(images=str(tmp_path), folder_repeats=False))
    assert [(item.weight, item.caption) for item in items] == [(1.0, "")]
    assert [problem.code for problem in problems] == ["no_caption"]


def test_several_folders_have_their_own_rules_and_weights(tmp_path):
    for name in ("ana", "ben"):
        draw(tmp_path / name / "x.png", caption=f"{name} himself")
    ben = {"images": str(tmp_path / "ben"), "weight": 2.5, "trigger_word": "ben", "flip": True, "keep_tags": 3}
    settings = DatasetSettings(images=str(tmp_path / "ana"), trigger_word="ana", concepts=[ben])
    items, _ = images_of(settings)
    assert [(item.concept, item.weight, item.caption) for item in items] == [
        (0, 1.0, "ana himself"),
        (1, 2.5, "ben himself"),
    ]
    rules = [settings.of_folder(number) for number in range(2)]
    assert [(one.trigger_word, one.flip, one.keep_tags, one.caption_dropout) for one in rules] == [
        ("ana", False, 1, 0.0),
        ("ben", True, 3, 0.0),
    ]


def test_a_concept_within_the_folder_keeps_its_images_to_itself(tmp_path):
    draw(tmp_path / "all" / "a.png")
    draw(tmp_path / "all" / "ben" / "b.png")
    concept = {"images": str(tmp_path / "all" / "ben")}
    items, _ = images_of(DatasetSettings(images=str(tmp_path / "all"), concepts=[concept]))
    assert [(item.concept, item.name) for item in items] == [(0, "a.png"), (1, "b.png")]


def test_a_concepts_folder_that_is_missing_is_refused(tmp_path):
    draw(tmp_path / "a.png")
    with pytest.raises(FolderMissing, match="nowhere"):
        images_of(DatasetSettings(images=str(tmp_path), concepts=[str(tmp_path / "nowhere")]))


def test_a_mask_beside_an_image_is_no_image_and_belongs_to_it(tmp_path):
    draw(tmp_path / "a.png", caption="x")
    draw(tmp_path / "a.mask.png")
    draw(tmp_path / "lost.mask.png")
    items, (problem,) = scan(tmp_path)
    assert [(item.name, item.mask) for item in items] == [("a.png", tmp_path / "a.mask.png")]
    assert problem.code == "mask_without_picture"
    assert "lost.mask.png" in problem.message


def test_the_overlay_goes_before_all(tmp_path):
    draw(tmp_path / "pictures" / "a.png", caption="own words")
    draw(tmp_path / "pictures" / "b.png", caption="left")
    draw(tmp_path / "home" / "m.png")
    (file := tmp_path / "home" / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": "other", "focus": [0.25, 0.5], "mask": "m.png"}\n'
        '{"file_name": "b.png", "left_out": true}\n'
    )
    ((item,), problems) = scan(tmp_path / "pictures", file)
    assert (item.caption, item.focus, item.mask) == ("other", (0.25, 0.5), tmp_path / "home" / "m.png")
    assert problems == []
    assert [item.name for item in look(tmp_path / "pictures", file)[0]] == ["a.png", "b.png"]


def test_a_folder_whose_images_are_all_left_out_is_refused(tmp_path):
    draw(tmp_path / "pictures" / "a.png")
    (file := tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "left_out": true}\n')
    with pytest.raises(NothingToTrain, match="excluded"):
        scan(tmp_path / "pictures", file)


def test_a_mask_of_the_overlay_that_is_gone_is_named(tmp_path):
    draw(tmp_path / "pictures" / "a.png", caption="x")
    (file := tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "mask": "gone.png"}\n')
    (problem,) = scan(tmp_path / "pictures", file)[1]
    assert (problem.code, problem.images) == ("mask_missing", (tmp_path / "pictures" / "a.png",))


def test_a_folder_that_holds_other_files_only_says_so(tmp_path):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(NoImages, match="1 other file"):
        scan(tmp_path)


def test_every_suffix_has_a_format():
    assert {".jpg", ".png", ".webp", ".bmp", ".gif", ".tiff", ".avif"} <= set(SUFFIXES)


def made(root, *files):
    """Drawn images, and folders for names that end in a slash."""
    for name in files:
        if name.endswith("/"):
            (root / name).mkdir(parents=True, exist_ok=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            draw(root / name, (16, 8))
    return root


RUN = ("runs/ana-20261121/config.toml/", "runs/ana-20261121/control/", "runs/ana-20261121/samples/000000-0.png")
PROJECT = ("img/10_mira woman/a.png", "reg/1_woman/b.png", "model/sample/c.png", "log/d.png")


@pytest.mark.parametrize("where", ["", "Atelier/", "tief/unten/heim ä/"])
def test_a_run_s_previews_are_no_images_wherever_the_home_lies(tmp_path, where):
    folder = made(tmp_path, "a.png", *(where + name for name in RUN))
    assert names(folder) == ["a.png"]
    assert codes(folder) == ["own_folders"]


def test_of_a_home_only_its_own_folders_are_left_out(tmp_path):
    ours = [f"{name}/x/b.png" for name in ("cache", "datasets", "presets", "thumbnails", "temporary")]
    folder = made(tmp_path, "a.png", "holiday/runs/c.png", *ours)
    (folder / ".queue.lock").touch()
    assert names(folder) == ["a.png", "holiday/runs/c.png"]
    (problem,) = [one for one in scan(folder)[1] if one.code == "own_folders"]
    assert "and 4 more" in problem.message


def test_the_checkout_among_the_images_adds_none_of_its_own(tmp_path):
    parts = ("app/", "trainer/", "presets/", "assets/demo/style/b.png", "tests/c.png")
    folder = made(tmp_path, "a.png", "atelier/photos/d.png", *(f"atelier/{part}" for part in parts))
    (folder / "atelier" / "launch.py").touch()
    assert names(folder) == ["a.png", "atelier/photos/d.png"]


def test_a_run_s_own_folder_can_be_chosen(tmp_path):
    assert names(made(tmp_path, *RUN) / "runs" / "ana-20261121" / "samples") == ["000000-0.png"]


@pytest.mark.parametrize("training", ["img", "IMG", "image", "Images", "train", "train_data", "instance", "Mira 2"])
def test_of_a_kohya_project_only_the_training_images_are_data(tmp_path, training):
    folder = made(tmp_path, *(name.replace("img/", f"{training}/") for name in PROJECT))
    assert names(folder) == [f"{training}/10_mira woman/a.png"]
    assert "project_folders" in codes(folder)


@pytest.mark.parametrize(
    "other",
    [
        *(
            "Reg",
            "regularization",
            "reg_images",
            "Regularisation Images",
            "reg-img",
            "reg_woman",
            "class",
            "class_images",
        ),
        *("logs", "samples", "output", "outputs", "loras"),
    ],
)
def test_other_names_of_such_folders_are_known(tmp_path, other):
    assert names(made(tmp_path, "img/5_x/a.png", f"{other}/1_y/b.png")) == ["img/5_x/a.png"]


def test_regularization_images_are_said_to_be_class_images(tmp_path):
    problems = {one.code: one for one in scan(made(tmp_path, *PROJECT))[1]}
    assert "reg" in problems["class_folders"].message
    assert "class images" in problems["class_folders"].hint
    assert "reg" not in problems["project_folders"].message


@pytest.mark.parametrize(
    "files",
    [
        ("10_mira/a.png", "reg/1_woman/b.png", "log/c.png"),  # without img
        ("img/a.png", "reg/b.png", "samples/c.png"),  # without repeats
        ("10_mira/a.png", "reg_1_woman/b.png"),
        ("mira/a.png", "reg/woman/b.png"),
        ("a.png", "regularization/b.png"),
        ("all/project/train/10_mira/a.png", "all/project/reg/1_woman/b.png", "all/project/log/c.png"),  # further down
        ("img/10_mira/a.png", "img/reg/1_woman/b.png"),
        ("5_x/a.png", "log/b.png"),
    ],
)
def test_layouts_like_a_project_s_are_known_too(tmp_path, files):
    assert names(made(tmp_path, *files)) == [files[0]]


@pytest.mark.parametrize(
    "files",
    [
        ("model/a.png", "b/b.png"),
        ("images/a.png", "samples/b.png"),
        ("friends/a.png", "class/b.png", "reg miller/c.png"),
        ("reg/a.png",),
        ("reg/1_woman/a.png", "log/b.png"),
    ],
)
def test_without_a_project_s_layout_such_names_mean_nothing(tmp_path, files):
    assert sorted(names(made(tmp_path, *files))) == sorted(files)
    assert {"project_folders", "class_folders"}.isdisjoint(codes(tmp_path))
