"""What goes wrong with images and captions."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import corpus
import numpy as np
from PIL import Image

from failures.book import case
from trainer.dataset.overlay import Entry, change

CAPTION = "a red house by the lake"


def drawn(scene, name, seed=0, size=(600, 560), caption=CAPTION, kind=corpus.illustration):
    """One large image in the case's folder."""
    folder = scene.folder / "pictures"
    folder.mkdir(exist_ok=True)
    path = folder / name
    kind(np.random.default_rng(seed), *size).save(path)
    if caption:
        path.with_suffix(".txt").write_text(caption)
    return path


def series(scene, count=12, caption="{}"):
    """A folder of large images, each with a caption of its own."""
    for number in range(count):
        drawn(scene, f"{number:02}.png", number, caption=caption.format(f"{corpus.NOUNS[number]}, {number} birds"))
    return scene.folder / "pictures"


@case("pictures", "folder_missing")
def a_folder_that_is_not_there(scene):
    return scene.refused(dataset__images=scene.folder / "pictures")


@case("pictures", "folder_missing")
def an_image_instead_of_a_folder(scene):
    return scene.refused(dataset__images=scene.images() / "image 0.png")


@case("pictures", "no_images")
def a_folder_without_images(scene):
    return scene.refused(dataset__images=scene.images(0, **{"a__doc": "", "b__doc": "", "c__zip": ""}))


@case("pictures", "nothing_to_train")
def images_that_are_all_broken(scene):
    return scene.refused(dataset__images=scene.images(0, a__png="<html>", b__png="<html>"))


@case("pictures", "unreadable_image")
def an_image_that_is_a_web_page(scene):
    return scene.doctor(scene.images(3, a__png="<html>not found</html>"), "unreadable_image")


@case("pictures", "truncated")
def an_image_that_is_cut_short(scene):
    path = drawn(scene, "a.png")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return scene.doctor(path.parent, "truncated")


@case("pictures", "link_outside")
def a_link_out_of_the_folder(scene):
    (scene.images() / "more").symlink_to(scene.folder)
    return scene.doctor(scene.folder / "pictures", "link_outside")


@case("pictures", "link_broken")
def a_link_that_leads_nowhere(scene):
    (scene.images() / "a.png").symlink_to(scene.folder / "pictures" / "gone.png")
    return scene.doctor(scene.folder / "pictures", "link_broken")


@case("pictures", "own_folders")
def runs_among_the_images(scene):
    folder = scene.images()
    for name in ("config.toml", "control"):
        (folder / "runs" / "ana-20261121-231500" / name).mkdir(parents=True)
    shutil.copy(folder / "image 0.png", folder / "runs" / "ana-20261121-231500")
    return scene.doctor(folder, "own_folders")


def kohya_project(scene, beside):
    """A folder of kohya_ss, with an image in one that lies beside the training images."""
    folder = scene.images()
    (folder / "img" / "10_mira woman").mkdir(parents=True)
    (folder / beside).mkdir(parents=True)
    shutil.copy(folder / "image 0.png", folder / beside)
    return folder


@case("pictures", "project_folders")
def samples_in_a_kohya_project(scene):
    return scene.doctor(kohya_project(scene, "model/sample"), "project_folders")


@case("pictures", "class_folders")
def regularization_images_in_a_kohya_project(scene):
    return scene.doctor(kohya_project(scene, "reg/1_woman"), "class_folders")


@case("pictures", "folder_closed")
def a_folder_that_may_not_be_opened(scene):
    closed, plain = scene.images() / "private", os.scandir
    closed.mkdir()

    def scandir(folder):
        if str(folder) == str(closed):
            raise PermissionError(13, "Permission denied", str(folder))
        return plain(folder)

    scene.patch.setattr(os, "scandir", scandir)
    return scene.doctor(scene.folder / "pictures", "folder_closed")


@case("pictures", "name_unreadable")
def a_name_that_is_no_text(scene):
    Path(os.fsdecode(os.fsencode(scene.images()) + b"/\xff.png")).touch()
    return scene.doctor(scene.folder / "pictures", "name_unreadable")


@case("pictures", "folder_repeats")
def folders_named_as_in_kohyas_tools(scene):
    shutil.copytree(scene.images(3), scene.folder / "set" / "10_ana woman")
    return scene.doctor(scene.folder / "set", "folder_repeats")


@case("pictures", "mask_without_picture")
def a_mask_without_its_image(scene):
    folder = scene.images()
    Image.new("L", (80, 64)).save(folder / "gone.mask.png")
    return scene.doctor(folder, "mask_without_picture")


@case("pictures", "mask_shape")
def a_mask_of_another_shape(scene):
    folder = scene.images()
    Image.new("L", (64, 80), "white").save(folder / "image 0.mask.png")
    return scene.doctor(folder, "mask_shape")


@case("pictures", "mask_unreadable")
def a_mask_that_is_cut_short(scene):
    return scene.doctor(scene.images(**{"image 0__mask__png": "<html>"}), "mask_unreadable")


@case("pictures", "mask_empty")
def a_mask_that_is_black(scene):
    folder = scene.images()
    Image.new("L", (80, 64)).save(folder / "image 0.mask.png")
    return scene.doctor(folder, "mask_empty")


@case("pictures", "mask_missing")
def a_mask_that_is_gone(scene):
    folder = scene.images()
    change(scene.home, folder, {"image 0.png": Entry(mask="masks/gone.png")}, "mask")
    return scene.doctor(folder, "mask_missing")


@case("pictures", "unread_files")
def photographs_in_a_raw_format_beside_the_images(scene):
    return scene.doctor(scene.images(5, a__nef="raw", b__nef="raw", a__psd="layers"), "unread_files")


@case("pictures", "too_small")
def a_small_image(scene):
    return scene.doctor(drawn(scene, "a.png", size=(300, 260)).parent, "too_small")


@case("pictures", "blurry")
def a_blurred_image(scene):
    from PIL import ImageFilter

    path = drawn(scene, "a.png", kind=corpus.landscape)
    Image.open(path).filter(ImageFilter.GaussianBlur(8)).save(path)
    return scene.doctor(path.parent, "blurry")


@case("pictures", "extreme_aspect")
def a_long_and_narrow_image(scene):
    return scene.doctor(drawn(scene, "a.png", size=(1600, 560)).parent, "extreme_aspect")


@case("pictures", "exact_duplicate")
def the_same_image_twice(scene):
    path = drawn(scene, "a.png")
    shutil.copy(path, path.with_name("b.png"))
    return scene.doctor(path.parent, "exact_duplicate")


@case("pictures", "near_duplicate")
def nearly_the_same_image_twice(scene):
    path = drawn(scene, "a.png", size=(800, 700))
    Image.open(path).resize((640, 560)).save(path.with_name("b.png"))
    return scene.doctor(path.parent, "near_duplicate")


@case("pictures", "watermark")
def an_image_with_lettering_at_its_edge(scene):
    rng = np.random.default_rng(1)
    path = drawn(scene, "a.png", size=(900, 700), kind=corpus.portrait)
    corpus.watermarked(Image.open(path), rng).save(path)
    return scene.doctor(path.parent, "watermark")


@case("pictures", "exif_rotation")
def an_image_that_lies_on_its_side(scene):
    path, exif = drawn(scene, "a.png"), Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path.with_suffix(".jpg"), exif=exif)
    path.unlink()
    return scene.doctor(path.parent, "exif_rotation")


@case("pictures", "transparent")
def an_image_with_a_hole(scene):
    path = drawn(scene, "a.png")
    image = Image.open(path)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(path)
    return scene.doctor(path.parent, "transparent")


@case("pictures", "few_pictures")
def few_images(scene):
    return scene.doctor(drawn(scene, "a.png").parent, "few_pictures")


@case("pictures", "concept_imbalance")
def concepts_of_which_one_is_shown_far_more(scene):
    first, second = series(scene), scene.folder / "others"
    shutil.copytree(first, second)
    settings = scene.folder / "mine.toml"
    settings.write_text(f'[[dataset.concepts]]\nimages = "{second}"\nweight = 10.0\n')
    return scene.doctor(first, "concept_imbalance", "--config", settings, page=False)


@case("pictures", "dataset")
def a_copy_into_the_folder_itself(scene):
    folder = scene.images()
    return scene.console("--export-dataset", folder, "--to", folder / "copy", "--home", scene.home.root)


@case("pictures", "dataset")
def a_file_of_captions_with_a_damaged_line(scene):
    file = scene.folder / "captions.jsonl"
    file.write_text('{"file_name": "picture 0.png", "text": 7}\n')
    return scene.refused(dataset__captions=file)


@case("captions", "no_caption")
def an_image_without_a_caption(scene):
    folder = scene.images()
    (folder / "image 0.txt").unlink()
    return scene.doctor(folder, "no_caption")


@case("captions", "caption_without_picture")
def a_caption_for_an_image_that_is_gone(scene):
    folder = scene.images(3, captions__toml='"gone.png" = "a bear"\n')
    return scene.doctor(folder, "caption_without_picture")


@case("captions", "caption_unreadable")
def a_list_of_captions_that_is_no_toml(scene):
    return scene.doctor(scene.images(3, captions__toml="a bear\n"), "caption_unreadable")


@case("captions", "caption_unreadable")
def a_table_of_captions_without_the_columns(scene):
    return scene.doctor(scene.images(3, captions__csv="picture;words\n"), "caption_unreadable")


@case("captions", "caption_tables_differ")
def two_tables_with_other_captions(scene):
    folder = scene.images(3, captions__csv="image 0.png,a bear\n", old__csv="image 0.png,a dog\n")
    return scene.doctor(folder, "caption_tables_differ")


@case("captions", "prompt_syntax")
def captions_that_were_prompts(scene):
    return scene.doctor(drawn(scene, "a.png", caption="a (red:1.3) house, <lora:x:0.6>").parent, "prompt_syntax")


@case("captions", "caption_encoding")
def a_caption_in_an_old_encoding(scene):
    folder = scene.images()
    (folder / "image 0.txt").write_bytes("ein roter Bär, grün".encode("cp1252"))
    return scene.doctor(folder, "caption_encoding")


@case("captions", "long_caption")
def a_caption_that_is_too_long(scene):
    return scene.doctor(drawn(scene, "a.png", caption=", ".join([CAPTION] * 20)).parent, "long_caption")


@case("captions", "style_in_caption")
def a_caption_that_names_the_style(scene):
    return scene.doctor(drawn(scene, "a.png", caption="a watercolor painting of a house").parent, "style_in_caption")


@case("captions", "trigger_missing")
def captions_without_the_word_that_others_begin_with(scene):
    folder = series(scene, caption="sks, {}")
    (folder / "00.txt").write_text("a house, no birds")
    return scene.doctor(folder, "trigger_missing")


@case("captions", "trigger_not_written")
def captions_without_the_trigger_word(scene):
    folder = series(scene, caption="sks, {}")
    (folder / "00.txt").write_text("a house, no birds")
    given = ("--dataset.trigger_word", "sks")
    return scene.doctor(folder, "trigger_not_written", *given, trigger_word="sks")


@case("captions", "tag_in_all")
def a_tag_that_all_captions_have(scene):
    return scene.doctor(series(scene, caption="sks, {}, snow"), "tag_in_all")
