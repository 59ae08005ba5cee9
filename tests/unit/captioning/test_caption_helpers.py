"""Captions without a model: from names, from what generators write into their files, and from the nearest images."""

import json
import random

import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from trainer.captioning.from_metadata import of_comfy, of_parameters, plain_prompt, prompt_of
from trainer.captioning.from_names import from_file_name, from_folder_names
from trainer.captioning.from_similar import Nearest, look_at
from trainer.dataset.captions import Item
from trainer.dataset.errors import UnreadableImage

A1111 = (
    "a (cat:1.2) on ((a mat)), [soft] light <lora:ana:0.8>\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, Seed: 1"
)
CAT = "a cat on a mat, soft light"
SAMPLED = {"positive": ["2", 0], "negative": ["3", 0], "latent_image": ["5", 0]}
COMFY = {
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "dog", "clip": ["4", 1]}},
    "1": {"class_type": "KSampler", "inputs": SAMPLED},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "some.safetensors"}},
}


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("sunset_beach_012.jpg", "sunset beach"),
        ("angry-face.png", "angry face"),
        ("red-haired woman.png", "red-haired woman"),
        ("00013-1234567-a cat on a mat.png", "a cat on a mat"),
        ("1girl, solo.png", "1girl, solo"),
        ("deep/er/ana smiling - Copy.png", "ana smiling"),
        ("IMG_1234.jpg", ""),
        ("DSC01234.JPG", ""),
        ("photo (3).jpg", ""),
        ("ComfyUI_00001_.png", ""),
        ("Screenshot 2024-05-01.png", ""),
        ("2024-05-01 12.33.44.png", ""),
        ("550e8400-e29b-41d4-a716-446655440000.png", ""),
    ],
)
def test_a_file_name_tells_its_words_and_no_counters(name, caption):
    assert from_file_name(name) == caption


@pytest.mark.parametrize(
    ("folder", "name", "caption"),
    [
        ("10_ana person", "a.png", "ana person"),
        ("set", "night_time/5_rain/a.png", "night time, rain"),
        ("set", "2023_holidays/a.png", "2023 holidays"),
        ("set", "beach/a.png", "beach"),
    ],
)
def test_folders_are_tags_without_kohyas_repeats(tmp_path, folder, name, caption):
    assert from_folder_names(tmp_path / folder, name) == caption


def png(path, **texts):
    told = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        told.add_itxt(key, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=told)
    return path


@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le"])
@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_a1111s_prompt_is_read_from_the_comment_of_jpeg_and_webp(tmp_path, ending, order):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + A1111.encode(order)
    Image.new("RGB", (8, 8)).save(tmp_path / f"a.{ending}", exif=exif)
    assert prompt_of(tmp_path / f"a.{ending}") == CAT


def test_a1111s_prompt_is_read_from_png(tmp_path):
    assert prompt_of(png(tmp_path / "a.png", parameters=A1111)) == CAT


def test_a_prompt_behind_the_pixels_of_a_png_is_read_though_they_cannot_be_decoded(tmp_path):
    said, plain = png(tmp_path / "a.png", parameters=A1111).read_bytes(), png(tmp_path / "b.png").read_bytes()
    chunk = said[said.index(b"iTXt") - 4 : said.index(b"IDAT") - 4]
    pixels, end = plain.index(b"IDAT") + 4, plain.index(b"IEND") - 4
    (tmp_path / "c.png").write_bytes(plain[:pixels] + bytes(3) + plain[pixels + 3 : end] + chunk + plain[end:])
    assert prompt_of(tmp_path / "c.png") == CAT


def test_a_file_of_a_format_that_starts_programs_is_not_asked_for_its_prompt(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(UnreadableImage):
        prompt_of(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("cat\nSteps: 20, Sampler: x", "cat"),
        ("cat,\nblue\nNegative prompt: dog\nbad\nSteps: 20, Sampler: x", "cat,\nblue"),
        ("Negative prompt: dog\nSteps: 20, Sampler: x", ""),
        ("five Steps: up", "five Steps: up"),
    ],
)
def test_of_a1111s_text_only_the_positive_prompt_is_taken(text, prompt):
    assert of_parameters(text) == prompt


@pytest.mark.parametrize(
    ("prompt", "caption"),
    [
        (r"hatsune miku \(vocaloid\), (smile:1.1)", "hatsune miku (vocaloid), smile"),
        ("a AND b BREAK c", "a, b, c"),
        ("a,, ,b\nc", "a, b, c"),
        ("ANDREA", "ANDREA"),
    ],
)
def test_weights_and_keywords_are_no_part_of_a_caption(prompt, caption):
    assert plain_prompt(prompt) == caption


def test_comfyuis_prompt_is_the_one_its_sampler_takes_for_positive(tmp_path):
    assert prompt_of(png(tmp_path / "a.png", prompt=json.dumps(COMFY))) == "a cat"


def test_comfyuis_prompt_is_followed_through_other_nodes():
    nodes = {
        **COMFY,
        "1": {"class_type": "KSampler", "inputs": {**SAMPLED, "positive": ["7", 0]}},
        "7": {
            "class_type": "ControlNetApplyAdvanced",
            "inputs": {"positive": ["8", 0], "negative": ["3", 0], "image": ["9", 0]},
        },
        "8": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["2", 0], "guidance": 3.5}},
        "2": {"class_type": "CLIPTextEncodeSDXL", "inputs": {"text_g": ["10", 0], "text_l": "fur", "width": 1024}},
        "10": {"class_type": "PrimitiveString", "inputs": {"value": "a cat"}},
    }
    assert of_comfy(json.dumps(nodes)) == "a cat, fur"


def test_comfyuis_workflow_serves_where_there_is_no_prompt(tmp_path):
    workflow = {
        "nodes": [
            {"id": 3, "type": "CLIPTextEncode", "inputs": [], "widgets_values": ["dog"]},
            {"id": 2, "type": "CLIPTextEncode", "inputs": [{"name": "clip", "link": 9}], "widgets_values": ["a cat"]},
            {
                "id": 1,
                "type": "KSampler",
                "inputs": [
                    {"name": "positive", "link": 5},
                    {"name": "negative", "link": 6},
                    {"name": "latent_image", "link": 7},
                ],
                "widgets_values": [1, "fixed", 20, 8, "euler", "normal", 1],
            },
        ],
        "links": [[5, 2, 0, 1, 1, "CONDITIONING"], [6, 3, 0, 1, 2, "CONDITIONING"], [7, 8, 0, 1, 3, "LATENT"]],
    }
    assert prompt_of(png(tmp_path / "a.png", workflow=json.dumps(workflow))) == "a cat"


def test_a_graph_that_runs_in_a_circle_ends():
    nodes = {
        "1": {"inputs": {"positive": ["2", 0], "latent_image": ["5", 0]}},
        "2": {"inputs": {"conditioning": ["3", 0]}},
        "3": {"inputs": {"conditioning": ["2", 0]}},
    }
    assert of_comfy(json.dumps(nodes)) == ""


def test_nodes_that_many_others_share_are_visited_once():
    nodes = {"start": {"inputs": {"positive": ["0", 0], "latent_image": ["x", 0]}}}
    for number in range(3000):
        following = [str(number + 1), 0]
        nodes[str(number)] = {"inputs": {"conditioning_1": following, "conditioning_2": following}}
    nodes["3000"] = {"inputs": {"text": "a cat"}}
    assert of_comfy(json.dumps(nodes)) == "a cat"


def test_inputs_that_are_no_names_tell_nothing():
    nodes = {"1": {"inputs": {"positive": ["2", 0], "latent_image": ["5", 0]}}, "2": {"inputs": [[1, 2]]}}
    assert of_comfy(json.dumps(nodes)) == ""


def test_mangled_graphs_tell_nothing_and_raise_nothing():
    rng = random.Random(0)
    whole = json.dumps(COMFY)
    for _ in range(300):
        text = list(whole)
        for _ in range(rng.randrange(1, 6)):
            text[rng.randrange(len(text))] = rng.choice('{}[],:"0a')
        assert isinstance(of_comfy("".join(text)), str)
    for odd in ("", "[]", "3", "null", '{"nodes": 1}', '{"1": 2}', '{"nodes": [{}], "links": []}', "[" * 5000):
        assert of_comfy(odd) == ""


def test_an_image_without_metadata_has_no_prompt(tmp_path):
    assert prompt_of(png(tmp_path / "a.png")) == ""


def test_what_is_no_image_is_told(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImage):
        prompt_of(tmp_path / "a.png")


# --- nearest ----------------------------------------------------------------------------------------------------------


def scene(path, kind, seed, size=(120, 90)):
    """A drawing of a kind: same colors and place, details by chance."""
    rng = random.Random(seed)
    sky, ground = {"beach": ("#7ec8f2", "#f2dfa7"), "night": ("#101030", "#203018"), "wood": ("#a8d8a0", "#3b5d2a")}[
        kind
    ]
    image = Image.new("RGB", size, sky)
    pen = ImageDraw.Draw(image)
    pen.rectangle([0, 50 + rng.randrange(-4, 5), *size], fill=ground)
    for _ in range(6):
        x, width = rng.randrange(110), rng.randrange(4, 9)
        if kind == "wood":
            pen.rectangle([x, 5, x + width, 80], fill="#5b4028")
        elif kind == "night":
            pen.ellipse([x, x % 40, x + 3, x % 40 + 3], fill="white")
        else:
            pen.line([x, 70, x + 30, 75], fill="#c8b070")
    image.save(path)
    return path


def item(path, caption=""):
    return Item(path, caption, 120, 90, path.name)


def a_set(folder):
    tags = {"beach": "sand, sea", "night": "stars, dark", "wood": "trees, green"}
    return [
        item(scene(folder / f"{kind}{number}.png", kind, number), f"{tags[kind]}, number {number}")
        for kind in tags
        for number in range(4)
    ]


def quiet(_done, _total):
    pass


@pytest.mark.parametrize(("kind", "tags"), [("beach", "sand, sea"), ("night", "stars, dark"), ("wood", "trees, green")])
def test_an_image_is_offered_the_tags_that_the_nearest_share(tmp_path, kind, tags):
    nearest = Nearest(a_set(tmp_path), quiet)
    hits = [nearest.suggest(item(scene(tmp_path / f"x{seed}.png", kind, seed))) for seed in range(100, 110)]
    assert all(hit.startswith(tags) for hit in hits)


def test_hardly_another_image_is_offered_the_whole_caption(tmp_path):
    nearest = Nearest(a_set(tmp_path), quiet)
    with Image.open(tmp_path / "wood2.png") as image:
        image.resize((240, 180)).save(tmp_path / "x.jpg", quality=80)
    assert nearest.suggest(item(tmp_path / "x.jpg")) == "trees, green, number 2"


def test_nothing_is_offered_where_nothing_is_alike(tmp_path):
    noise = Image.effect_noise((64, 64), 120).convert("RGB")
    noise.save(tmp_path / "noise.png")
    assert (
        Nearest([one for one in a_set(tmp_path) if "beach" in one.name], quiet).suggest(item(tmp_path / "noise.png"))
        == ""
    )
    assert Nearest([], quiet).suggest(item(tmp_path / "noise.png")) == ""


def test_an_images_own_caption_is_no_suggestion_for_itself(tmp_path):
    one = item(scene(tmp_path / "a.png", "beach", 1), "mine")
    assert Nearest([one], quiet).suggest(one) == ""


def test_a_descriptor_does_not_depend_on_the_size(tmp_path):
    small = look_at(scene(tmp_path / "a.png", "wood", 1))
    with Image.open(tmp_path / "a.png") as image:
        image.resize((480, 360), Image.Resampling.NEAREST).save(tmp_path / "b.png")
    assert abs(small - look_at(tmp_path / "b.png")).max() < 0.02
