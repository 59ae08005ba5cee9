import hashlib
import math
import os

import corpus
import numpy as np
import pytest
import tomlkit
from corpus import drawn
from PIL import Image, ImageFilter

from trainer.contract.errors import FileExists
from trainer.contract.settings.config import validated
from trainer.dataset.clip_tokens import END, reading, tokenizer
from trainer.dataset.errors import DatasetError, NothingToTrain
from trainer.dataset.export import export
from trainer.dataset.formats import ORIENTATION_TAG
from trainer.dataset.overlay import Entry, change, entries_of, existing_overlay, overlay_file, undo
from trainer.dataset.scan import images_of, look
from trainer.doctor.captions import without_style
from trainer.doctor.examine import examine
from trainer.doctor.sharpness import softness
from trainer.engine.families.parts import clip_tokenizer


def found(folder, home, goal="character", **dataset):
    config = validated({"goal": goal, "dataset": {"images": str(folder), "resolution": 512, **dataset}})
    return {finding.code: finding for finding in examine(*look(folder, existing_overlay(home, folder)), config, home)}


def mended(finding, name):
    """The image's caption as the fix would have it, where nothing else was changed."""
    return finding.fix[name](Entry()).text


def digests(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    return corpus.sound(tmp_path / "set")


def said_of(made, home):
    """What the doctor says of each image of a corpus, notes apart."""
    config = validated({"goal": "style", "dataset": {"images": str(made.folder), "resolution": 512}})
    bad, noted = {}, {}
    for finding in examine(*look(made.folder), config, home):
        names = finding.fix or {path.name: None for path in finding.images}
        for name in names:
            (noted if finding.level == "note" else bad).setdefault(name, set()).add(finding.code)
    return bad, noted


def proved(folder, home, seed, clean, defects):
    made = corpus.make(folder, seed, clean, defects)
    before = digests(made.folder)
    bad, noted = said_of(made, home)
    kinds = {path: bad.get(path.name, set()) | noted.get(path.name, set()) for path in made.defects}
    for said in kinds.values():
        if "unreadable_image" in said:  # what was cut off a WebP takes its size along
            said.add("truncated")
    missed = [path.name for path, kind in made.defects.items() if kind not in kinds[path]]
    false = {path.name: bad[path.name] for path in made.clean if path.name in bad}
    assert digests(made.folder) == before
    assert len(missed) <= 0.05 * len(made.defects), missed
    assert len(false) <= 0.02 * len(made.clean), false
    return missed, false


def test_of_a_small_corpus_the_defects_are_found_and_the_clean_images_let_be(tmp_path, home):
    proved(tmp_path / "corpus", home, 11, 36, 32)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_of_300_images_and_64_defects_95_percent_are_found_with_2_percent_false_alarms(tmp_path, home, seed):
    proved(tmp_path / "corpus", home, seed, 300, 64)


def test_a_sound_set_has_no_findings(folder, home):
    assert found(folder, home, trigger_word="ana") == {}


def test_every_finding_says_which_images_and_why_and_what_helps(folder, home):
    drawn(folder / "small.png", 40, (200, 200), "ana, small")
    finding = found(folder, home)["too_small"]
    assert "small.png (200 x 200)" in finding.message
    assert "512 x 512 px" in finding.message
    assert (finding.images, finding.level, finding.folder) == ((folder / "small.png",), "warning", folder)
    assert finding.why.endswith(".")
    assert finding.hint.endswith(".")


def test_images_of_one_name_are_told_apart_by_their_folders(folder, home):
    for day, seed in (("day1", 40), ("day2", 41)):
        drawn(folder / day / "small.png", seed, (200, 200), f"ana, small {day}")
        (folder / day / "copy.png").write_bytes((folder / "05.png").read_bytes())
    findings = found(folder, home)
    assert "day1/small.png (200 x 200), day2/small.png (200 x 200)" in findings["too_small"].message
    assert "day1/copy.png (as 05.png), day2/copy.png (as 05.png)" in findings["exact_duplicate"].message


def test_images_of_one_name_are_told_apart_by_their_concepts(folder, home, tmp_path):
    drawn(folder / "x.png", 40, (200, 200), "ana, small")
    drawn(tmp_path / "ben" / "x.png", 41, (200, 200), "ben, small")
    (tmp_path / "ben" / "05.png").write_bytes((folder / "05.png").read_bytes())
    dataset = {"images": str(folder), "concepts": [{"images": str(tmp_path / "ben")}]}
    config = validated({"dataset": dataset})
    messages = [finding.message for finding in examine(*images_of(config.dataset), config, home)]
    assert any(": set/x.png (200 x 200)" in one for one in messages)
    assert any(": ben/x.png (200 x 200)" in one for one in messages)
    assert any("ben/05.png (as set/05.png)" in one for one in messages)


def test_a_fix_leaves_images_out_keeps_what_was_changed_before_and_can_be_undone(folder, home):
    drawn(folder / "small.png", 40, (200, 200), "ana, small")
    before = digests(folder)
    change(home, folder, {"small.png": Entry(focus=(0.1, 0.2))})
    finding = found(folder, home)["too_small"]
    change(home, folder, {"small.png": Entry(focus=(0.3, 0.4))})
    change(home, folder, finding.fix, "leave out")
    assert entries_of(home, folder) == {"small.png": Entry(focus=(0.3, 0.4), left_out=True)}
    assert "too_small" not in found(folder, home)
    assert undo(home, folder).names == ["small.png"]
    assert "too_small" in found(folder, home)
    assert digests(folder) == before


def test_copies_are_told_from_images_that_are_nearly_the_same_and_the_larger_one_is_kept(folder, home):
    with Image.open(folder / "03.png") as image:
        image.resize((540, 504)).save(folder / "again.jpg", quality=80)
    (folder / "copy.png").write_bytes((folder / "05.png").read_bytes())
    for name in ("again", "copy"):
        (folder / f"{name}.txt").write_text(f"ana, {name}")
    findings = found(folder, home)
    assert list(findings["exact_duplicate"].fix) == ["copy.png"]
    assert list(findings["near_duplicate"].fix) == ["again.jpg"]
    assert findings["near_duplicate"].images == (folder / "03.png", folder / "again.jpg")


def test_a_file_that_breaks_off_into_zeros_is_found_though_decoders_do_not_mind(folder, home):
    with Image.open(folder / "04.png") as image:
        image.save(folder / "04.jpg")
    (folder / "04.png").unlink()
    data = (folder / "04.jpg").read_bytes()
    (folder / "04.jpg").write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert found(folder, home)["truncated"].images == (folder / "04.jpg",)


def test_a_file_that_changes_is_looked_at_again(folder, home):
    assert "blurry" not in found(folder, home)
    with Image.open(folder / "00.png") as image:
        blurred = image.filter(ImageFilter.GaussianBlur(9))
    blurred.save(folder / "00.png")
    os.utime(folder / "00.png", ns=(1, 1))
    assert found(folder, home)["blurry"].images == (folder / "00.png",)


@pytest.mark.parametrize("sigma", [2.0, 3.0, 5.0])
def test_the_softness_of_an_edge_is_the_blur_that_made_it(sigma):
    x = np.arange(512) - 256.0
    edge = np.array([128 + 90 * math.erf(value / sigma / math.sqrt(2)) for value in x])
    plane = np.tile(edge, (512, 1)).astype(np.float32)
    assert softness(plane) == pytest.approx(sigma, rel=0.2)


@pytest.mark.parametrize("seed", [21, 102])
def test_sharp_lights_before_soft_halos_are_not_taken_for_the_edges_along_a_shake(seed):
    night = corpus.night(np.random.default_rng(seed), 640, 512)
    assert softness(np.asarray(night.convert("L"), np.float32)) < 2


def test_words_that_are_cut_off_are_shown_and_the_fix_is_what_is_read(folder, home):
    text = "ana, " + ", ".join(f"{word} {noun}" for word in corpus.MANNERS for noun in corpus.NOUNS[:4])
    (folder / "02.txt").write_text(text)
    finding = found(folder, home)["long_caption"]
    kept = mended(finding, "02.png")
    assert text.startswith(kept)
    assert reading(kept, 75).cut == ""
    assert f"cut: “{text[len(kept) :].lstrip(', ')[:20]}" in finding.message


def test_tokens_are_those_of_transformers():
    theirs = clip_tokenizer(END)
    for text in (
        "a fox, wet",
        "Ein Bär – „groß“ 12,5",
        "it's 3rd  <|endoftext|> x",
        "狐🦊 ﬁ é",
        "a" * 300,
        "((a:1.2)), _x_",
    ):
        assert (
            tokenizer().encode(text).ids == theirs(text, add_special_tokens=False, split_special_tokens=True).input_ids
        )


@pytest.mark.parametrize(
    ("caption", "plain"),
    [
        ("an oil painting of a fox", "a fox"),
        ("a fox, watercolor, sitting", "a fox, sitting"),
        ("a fox in the style of Rembrandt", "a fox"),
        ("a woman in anime style, smiling", "a woman, smiling"),
        ("a man painting a fence", "a man painting a fence"),
        ("a sketch book on a table, art supplies", "a sketch book on a table, art supplies"),
        ("a house by the sea", "a house by the sea"),
    ],
)
def test_words_that_name_the_style_are_found_and_taken_out(caption, plain):
    assert without_style(caption) == plain


def test_captions_that_name_the_style_matter_for_a_style_alone(folder, home):
    (folder / "01.txt").write_text("an oil painting of a fox")
    finding = found(folder, home, "style")["style_in_caption"]
    assert mended(finding, "01.png") == "a fox"
    assert "style_in_caption" not in found(folder, home)


def test_captions_without_the_word_that_most_begin_with_get_it(folder, home):
    (folder / "01.txt").write_text("fox, a bird")
    finding = found(folder, home)["trigger_missing"]
    assert (finding.level, mended(finding, "01.png")) == ("warning", "ana, fox, a bird")
    assert found(folder, home, trigger_word="ana")["trigger_not_written"].level == "note"


def test_a_tag_of_every_caption_is_noted_but_not_the_trigger_word(folder, home):
    for path in folder.glob("*.txt"):
        path.write_text(f"{path.read_text()}, blue hat")
    finding = found(folder, home)["tag_in_all"]
    assert "“blue hat”" in finding.message
    assert mended(finding, "03.png") == f"ana, {corpus.NOUNS[3]}, 3 birds"


def test_a_fix_of_captions_leaves_wildcards_whole(folder, home):
    for path in folder.glob("*.txt"):
        path.write_text(f"{path.read_text()}, hat")
    (folder / "01.txt").write_text("{red, hat|blue}, hat, fox")
    findings = found(folder, home)
    assert mended(findings["trigger_missing"], "01.png") == "ana, {red, hat|blue}, hat, fox"
    assert mended(findings["tag_in_all"], "01.png") == "{red, hat|blue}, fox"


def test_where_a_fix_would_take_choices_or_further_captions_away_it_leaves_the_caption_alone(folder, home):
    (folder / "01.txt").write_text("a {fox in the style of Rembrandt|cat} at night")
    (folder / "02.txt").write_text("an oil painting of a fox")
    (folder / "03.txt").unlink()
    (folder / "captions.toml").write_text('"03.png" = ["an oil painting of a bear", "a bear"]\n')
    finding = found(folder, home, "style")["style_in_caption"]
    assert [path.name for path in finding.images] == ["01.png", "02.png", "03.png"]
    assert {name: mended(finding, name) for name in finding.fix} == {"02.png": "a fox"}
    assert "03.png" not in found(folder, home)["trigger_missing"].fix


def test_of_a_wildcard_the_longest_choice_is_counted_and_not_all_of_them(folder, home):
    words = " ".join(corpus.MANNERS * 4)  # 40 tokens
    (folder / "02.txt").write_text(f"ana, {{{words}|{words}|{words}}}")
    assert "long_caption" not in found(folder, home)
    (folder / "02.txt").write_text(f"ana, {{x|{words} {words}}}")
    finding = found(folder, home)["long_caption"]
    assert [path.name for path in finding.images] == ["02.png"]
    assert finding.fix is None


def test_an_image_that_is_turned_is_noted_and_one_whose_exif_data_is_damaged_is_not(folder, home):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    for name in ("00", "01"):
        with Image.open(folder / f"{name}.png") as image:
            image.save(folder / f"{name}.png", exif=exif.tobytes() if name == "00" else b"Exif\0\0MM\0*\xff")
    assert found(folder, home)["exif_rotation"].images == (folder / "00.png",)


def test_concepts_out_of_balance_and_too_few_images_are_told(folder, home, tmp_path):
    drawn(tmp_path / "second" / "one.png", 90, caption="ben")
    config = validated(
        {"goal": "style", "dataset": {"images": str(folder), "concepts": [{"images": str(tmp_path / "second")}]}}
    )
    items, problems = images_of(config.dataset)
    findings = {finding.code: finding for finding in examine(items, problems, config, home)}
    assert findings["concept_imbalance"].images == (tmp_path / "second" / "one.png",)
    assert "13; for a style, 20" in findings["few_pictures"].message


def test_a_look_can_be_ended_early(folder, home):
    config = validated({"dataset": {"images": str(folder)}})

    def told(_done, _of):
        raise DatasetError("enough", hint="")

    with pytest.raises(DatasetError, match="enough"):
        examine(*look(folder), config, home, told)


def test_an_exported_folder_holds_what_is_trained_byte_for_byte_with_the_captions_changed_here(folder, home, tmp_path):
    drawn(folder / "deep" / "small.png", 40, (200, 200), "ana, small")
    before = digests(folder)
    change(home, folder, {**found(folder, home)["too_small"].fix, "03.png": Entry(text="ana, émue")})
    assert export(home, folder, tmp_path / "new") == 12
    assert (tmp_path / "new" / "03.txt").read_text(encoding="utf-8") == "ana, émue"
    assert (tmp_path / "new" / "04.png").read_bytes() == (folder / "04.png").read_bytes()
    assert not list((tmp_path / "new").rglob("small*"))
    assert digests(folder) == before
    assert {item.caption for item in look(tmp_path / "new")[0]} == {
        "ana, émue" if item.name == "03.png" else item.caption
        for item in look(folder)[0]
        if item.name != "deep/small.png"
    }


def test_an_export_writes_neither_into_the_folder_nor_over_another(folder, home, tmp_path):
    with pytest.raises(DatasetError, match="only read"):
        export(home, folder, folder / "new")
    with pytest.raises(FileExists):
        export(home, tmp_path / "set", tmp_path)
    (tmp_path / "empty").mkdir()
    assert export(home, folder, tmp_path / "empty") == 12


def test_images_of_one_name_are_exported_each_with_its_own_caption_and_mask(home, tmp_path):
    for name, size in (("a.jpg", (30, 20)), ("a.png", (20, 30)), ("A.webp", (40, 20)), ("a-2.png", (20, 20))):
        drawn(tmp_path / "set" / "deep" / name, size=size)
    base = drawn(overlay_file(home, tmp_path / "set").parent / "masks" / "1f.png", size=(20, 30))
    texts = {"a.jpg": "first", "a.png": "second", "A.webp": "third", "a-2.png": "fourth"}
    entries = {
        f"deep/{name}": Entry(text, mask="masks/1f.png" if name == "a.png" else None) for name, text in texts.items()
    }
    change(home, tmp_path / "set", entries)
    assert export(home, tmp_path / "set", tmp_path / "new") == 4
    made = {item.caption: item for item in look(tmp_path / "new")[0]}
    assert {text: (item.width, item.height) for text, item in made.items()} == {
        "first": (30, 20),
        "second": (20, 30),
        "third": (40, 20),
        "fourth": (20, 20),
    }
    assert made["fourth"].name == "deep/a-2.png"
    assert [text for text, item in made.items() if item.mask] == ["second"]
    assert made["second"].mask.read_bytes() == base.read_bytes()
    assert len({item.name.rpartition(".")[0].lower() for item in made.values()}) == 4


def test_several_captions_of_an_image_are_exported_as_several(folder, home, tmp_path):
    (folder / "03.txt").unlink()
    drawn(folder / "deep" / "x.png", 40)
    several = {"03.png": ['ana, "a" fox', "a fox | running"], "deep/x.png": ["one", "two", "drei Füchse"]}
    (folder / "captions.toml").write_text(tomlkit.dumps(several), encoding="utf-8")
    export(home, folder, tmp_path / "new")
    found = {item.name: (item.caption, *item.others) for item in look(tmp_path / "new")[0]}
    assert found == {item.name: (item.caption, *item.others) for item in look(folder)[0]}
    assert found["deep/x.png"] == ("one", "two", "drei Füchse")


def test_an_export_of_nothing_is_refused(folder, home, tmp_path):
    change(home, folder, {path.name: Entry(left_out=True) for path in folder.glob("*.png")})
    with pytest.raises(NothingToTrain, match="all are excluded"):
        export(home, folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_export_that_fails_leaves_nothing_behind(folder, home, tmp_path):
    def told(done, _of):
        if done == 5:
            raise DatasetError("the disk is full", hint="")

    with pytest.raises(DatasetError, match="the disk is full"):
        export(home, folder, tmp_path / "new", told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]
