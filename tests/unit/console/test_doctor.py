"""The doctor as a user calls it in the console, and a training after it."""

import corpus
import pytest
from corpus import drawn
from PIL import Image, ImageFilter

from tests.unit.doctor.test_examine import digests
from trainer.console import main, train
from trainer.dataset.overlay import Entry, change, entries_of, history, overlay_file
from trainer.dataset.scan import images_of, look


@pytest.fixture
def folder(tmp_path):
    return corpus.sound(tmp_path / "set")


@pytest.fixture
def console(home, capsys):
    """Run a command; gives back its exit code and what it said, on one line."""

    def run(*arguments):
        code = main.main([*map(str, arguments), "--home", str(home.root)])
        return code, " ".join(capsys.readouterr().out.split())

    return run


@pytest.fixture
def doctor(console, folder):
    return lambda *flags: console("doctor", folder, "--dataset.trigger_word", "ana", *flags)


@pytest.fixture
def training(console, folder):
    return lambda *flags: console("train", "--preset", "pocket-style", "--images", folder, "--check", *flags)


def with_a_hat(folder):
    """A tag in every caption, and one without the word that the others begin with."""
    for path in folder.glob("*.txt"):
        path.write_text(f"{path.read_text()}, blue hat")
    (folder / "01.txt").write_text("fox, a bird, blue hat")


def test_what_is_wrong_is_told_with_its_fix_and_a_lost_image_is_an_error(doctor, folder, home):
    code, said = doctor()
    assert code == 0
    assert said.startswith(f"12 images in {folder}, for a style at 512 px. ! few_pictures Few images: 12")
    (folder / "broken.png").write_bytes(b"no image")
    code, said = doctor()
    assert code == 1
    assert "✗ unreadable_image" in said
    assert said.endswith("Fix here, with undo and without touching a file: --fix unreadable_image")
    assert not overlay_file(home, folder).exists()


def test_what_is_not_read_and_which_of_two_images_is_meant_is_said_by_the_doctor_and_in_the_plan(
    doctor, training, folder
):
    for day, seed in (("day1", 40), ("day2", 41)):
        drawn(folder / day / "a.jpg", seed, (200, 200), f"ana, {day}")
        (folder / day / "a.txt").unlink()
        (folder / day / "raw.nef").touch()
    said = doctor()[1]
    assert "· unread_files 2 other files are not read: 2 .nef." in said
    assert "too_small Smaller than the training resolution of 512 x 512 px: day1/a.jpg (200 x 200), day2/a.jpg" in said
    said = training()[1]
    assert "Note: 2 other files are not read: 2 .nef." in said
    assert "images have no caption (first: day1/a.jpg)" in said


@pytest.mark.parametrize("codes", [["trigger_missing", "tag_in_all"], ["tag_in_all", "trigger_missing"]])
@pytest.mark.parametrize("flags", [1, 2])
def test_fixes_of_several_codes_at_one_caption_go_together(console, folder, home, codes, flags):
    with_a_hat(folder)
    before = digests(folder)
    given = ["--fix", *codes] if flags == 1 else ["--fix", codes[0], "--fix", codes[1]]
    code, said = console("--doctor", folder, *given)
    assert code == 0
    assert f"trigger_missing: 1 images fixed in {folder}." in said
    assert f"tag_in_all: 12 images fixed in {folder}." in said
    assert entries_of(home, folder)["01.png"] == Entry("ana, fox, a bird")
    assert entries_of(home, folder)["03.png"] == Entry(f"ana, {corpus.NOUNS[3]}, 3 birds")
    assert [step.what for step in history(home, folder).done] == codes
    assert digests(folder) == before


def test_two_findings_of_one_code_at_the_same_captions_are_both_mended(doctor, folder, home):
    for number, path in enumerate(sorted(folder.glob("*.txt"))):
        path.write_text(f"{corpus.NOUNS[number]}, blue hat, red scarf" if number else "blue hat, red scarf")
    assert doctor("--fix", "tag_in_all")[1].count("tag_in_all: ") == 2
    captions = [entries_of(home, folder)[f"{number:02}.png"].text for number in range(12)]
    assert captions == ["red scarf", *corpus.NOUNS[1:12]]  # the last tag of a caption stays


def test_an_image_is_no_copy_any_more_once_the_other_one_is_left_out(doctor, folder, home):
    with Image.open(folder / "03.png") as image:
        large = image.resize((900, 840)).filter(ImageFilter.GaussianBlur(12))
    large.save(folder / "large.png")
    (folder / "large.txt").write_text("ana, large")
    assert "near_duplicate" in doctor()[1]
    code, said = doctor("--fix", "blurry", "near_duplicate")
    assert code == 0
    assert "near_duplicate:" not in said
    assert entries_of(home, folder) == {"large.png": Entry(left_out=True)}


def test_a_fix_keeps_what_else_was_changed_and_is_taken_back_by_its_name(doctor, folder, home):
    with_a_hat(folder)
    change(home, folder, {"01.png": Entry(focus=(0.2, 0.3)), "03.png": Entry("ana, changed, blue hat")})
    assert doctor("--fix", "tag_in_all")[0] == 0
    assert entries_of(home, folder)["01.png"] == Entry("fox, a bird", (0.2, 0.3))
    assert entries_of(home, folder)["03.png"] == Entry("ana, changed")
    code, said = doctor("--undo")
    assert (code, said) == (0, "Undone: tag_in_all, for 12 images: 00.png, 01.png, 02.png, 03.png, 04.png, ….")
    assert entries_of(home, folder)["03.png"] == Entry("ana, changed, blue hat")
    assert doctor("--undo")[1] == "Undone: a change, for 2 images: 01.png, 03.png."
    assert doctor("--undo") == (0, "There is nothing to undo.")


def test_a_fix_that_nothing_calls_for_is_refused_and_changes_nothing(doctor, folder, home):
    with_a_hat(folder)
    code, said = doctor("--fix", "tag_in_all", "blurry")
    assert code == 2
    assert "There is nothing to fix called blurry." in said
    assert "Fixes are proposed for: tag_in_all, trigger_not_written." in said
    assert entries_of(home, folder) == {}


def test_a_training_after_a_fix_is_with_it_and_says_so(doctor, training, folder, home):
    with_a_hat(folder)
    assert "edits made in Atelier" not in training()[1]
    assert doctor("--fix", "tag_in_all")[0] == 0
    code, said = training()
    assert code == 0
    assert f"With the edits made in Atelier: {overlay_file(home, folder)} " in said
    flags = main.parser_of("train").flags(["--preset", "pocket-style", "--images", str(folder)])
    config, origins = train.resolve(flags, home)
    assert origins["dataset.captions"] == "changed here"
    assert images_of(config.dataset)[0][3].caption == f"ana, {corpus.NOUNS[3]}, 3 birds"


def test_captions_that_the_settings_name_and_those_they_rule_out_go_before_what_was_changed_here(
    training, folder, home, tmp_path
):
    change(home, folder, {"03.png": Entry("changed here")})
    (tmp_path / "own.jsonl").write_text('{"file_name": "03.png", "text": "my own"}\n')
    for captions in (tmp_path / "own.jsonl", ""):
        code, said = training("--dataset.captions", captions)
        assert code == 0
        assert str(overlay_file(home, folder)) not in said
    (tmp_path / "run.toml").write_text('[dataset]\ncaptions = ""\n')  # as a run's own file says that had none
    assert str(overlay_file(home, folder)) not in training("--config", tmp_path / "run.toml")[1]


def test_an_export_needs_a_folder_and_takes_folder_names_as_the_settings_say(console, folder, tmp_path):
    assert "--to NEW" in console("--export-dataset", folder)[1]
    drawn(folder / "10_ana woman" / "bare.png", 70)
    code, said = console("export-dataset", folder, "--to", tmp_path / "new")
    assert (code, said) == (0, f"13 images with their captions in {tmp_path / 'new'}.")
    assert (tmp_path / "new" / "10_ana woman" / "bare.txt").read_text() == "ana woman"
    assert len(look(tmp_path / "new")[0]) == 13
    console("--export-dataset", folder, "--to", tmp_path / "plain", "--dataset.folder_repeats", "false")
    assert not (tmp_path / "plain" / "10_ana woman" / "bare.txt").exists()
