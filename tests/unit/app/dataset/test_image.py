import base64
import io
from types import SimpleNamespace

import numpy as np
import originals
import pytest
import tiny
import torch
from PIL import Image

from app.dataset import image
from app.dataset.image import PNG
from tests.unit.dataset.test_captions import draw
from tests.unit.dataset.test_overlay import digest
from trainer.contract.presets import FOLDER, list_presets
from trainer.contract.settings.model import ModelSettings
from trainer.dataset.buckets import grid_step
from trainer.dataset.captions import Item, captions_of
from trainer.dataset.images import read_mask
from trainer.dataset.overlay import Entry, change, entries_of, existing_overlay, overlay_file, undo
from trainer.dataset.scan import look
from trainer.engine.data.batches import choose_cuts, encode_dataset
from trainer.engine.data.cache import TensorCache
from trainer.engine.families.base import Posterior
from trainer.models.lookup import PUBLISHED, depths_of

AS = {"preset": "sd15-character", "trigger_word": "ana", "resolution": 256}


@pytest.fixture
def folder(tmp_path):
    """A wide image whose columns all differ, a turned one, a large one, and one that is partly transparent."""
    folder = tmp_path / "pictures"
    draw(folder / "wide.png", (600, 200), "a bear, snow")
    ramp = np.tile(np.linspace(0, 255, 600, dtype=np.uint8), (200, 1))
    Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2], axis=2)).save(folder / "wide.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((330, 200), 90).convert("RGB").save(folder / "turned.jpg", exif=exif)
    Image.effect_noise((1500, 1100), 90).convert("RGB").save(folder / "large.jpg")
    clear = Image.effect_noise((123, 321), 90).convert("RGBA")
    clear.putalpha(Image.radial_gradient("L").resize(clear.size))
    clear.save(folder / "clear.png")
    return folder


def ask(home, what, folder, **more):
    functions = {function.__name__: function for function in image.answers(home)}
    return functions[what]({"folder": str(folder), **AS, **more}, None)


def opened(url):
    kind, _, data = url.partition(";base64,")
    assert kind.startswith("data:image/")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def png(size, mode="RGBA", color="white"):
    content = io.BytesIO()
    Image.new(mode, size, color).save(content, "PNG")
    return PNG + base64.b64encode(content.getvalue()).decode()


class Recorder:
    """In a family's place: keeps what its VAE is fed with."""

    spec = SimpleNamespace(bucket_step=64, pixels_per_latent=8)
    scaling_factor = 1.0

    def __init__(self):
        self.fed = []

    def encoder_key(self, part):
        return part

    def encode_image(self, pixels):
        self.fed += pixels
        latents = torch.zeros(len(pixels), 4, pixels.shape[2] // 8, pixels.shape[3] // 8)
        return Posterior(latents, latents.clone())


@pytest.mark.parametrize("name", ["wide.png", "turned.jpg", "clear.png", "large.jpg"])
@pytest.mark.parametrize("focus", [None, (0.1, 0.9)])
def test_the_image_shown_is_the_tensor_that_the_model_is_fed_with(home, folder, tmp_path, name, focus):
    change(home, folder, {name: Entry(focus=focus)})
    shown = np.asarray(opened(ask(home, "look_at", folder, name=name)["trained"]))
    (item,) = [one for one in look(folder, existing_overlay(home, folder))[0] if one.name == name]
    rules, family = image.Looked(folder=str(folder), name=name, **AS).config(home).dataset, Recorder()
    cache = TensorCache(tmp_path / "cache")
    encode_dataset([item], family, rules, dtype=torch.float32, cache=cache, progress=lambda *_: None)
    expected = torch.from_numpy(shown.copy()).permute(2, 0, 1).float() / 127.5 - 1
    assert torch.equal(expected, family.fed[0])


@pytest.mark.parametrize("kind", ["sd15", "sd2", "sdxl"])
@pytest.mark.parametrize("size", [(1500, 1100), (1000, 400), (333, 801)])
def test_the_crop_is_that_of_the_published_model_that_trains(home, kind, size):
    """The page knows the model's grid before the model is here."""
    networks = originals.bare_parts(kind, tiny=False)
    levels = [len(networks[part].config.block_out_channels) for part in ("vae", "unet")]
    assert PUBLISHED[kind] == tuple(levels)
    family = Recorder()
    family.spec = SimpleNamespace(bucket_step={"sd15": 64, "sd2": 64, "sdxl": 32}[kind])
    asked = {"folder": str(home.root), "preset": f"{kind}-style", "resolution": 992}
    config = image.AsTrained(**asked).config(home)
    item = Item(home.root / "a.png", "", *size, focus=(0.1, 0.7))
    assert [image.crop_of(item, config)] == [cut.crop for cut in choose_cuts([item], family, config.dataset)]


def test_the_grid_is_that_of_the_model_in_a_folder(tiny_model):
    levels = depths_of(ModelSettings(base_model=str(tiny_model)))
    assert levels == (3, 2)
    assert grid_step(*levels) == tiny.load(tiny_model).spec.bucket_step == 8
    assert depths_of(ModelSettings(base_model="pocket")) != PUBLISHED["sd15"]


def test_the_frame_is_what_the_crop_keeps(home, folder):
    seen = ask(home, "look_at", folder, name="wide.png")
    frame, shown = seen["frame"], opened(seen["trained"])
    left, right = (np.asarray(shown)[100, edge, 0] / 255 for edge in (2, -3))  # the ramp says where a column was
    assert left == pytest.approx(frame["left"], abs=0.02)
    assert right == pytest.approx(frame["left"] + frame["width"], abs=0.02)
    assert frame["height"] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("x", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_the_crop_follows_the_focus_point_and_stays_within_the_image(home, folder, x):
    frame = ask(home, "frame", folder, name="wide.png", focus=(x, 0.5))["frame"]
    assert frame["left"] <= x <= frame["left"] + frame["width"] + 1e-9
    assert frame["left"] >= 0
    assert frame["left"] + frame["width"] <= 1 + 1e-9
    middle = frame["left"] + frame["width"] / 2
    assert middle == pytest.approx(x, abs=0.01) or frame["left"] == 0 or frame["left"] + frame["width"] > 0.999


def test_a_focus_point_is_one_change_that_leaves_the_rest_of_the_entry(home, folder):
    before = digest(folder)
    change(home, folder, {"wide.png": Entry("another")})
    answer = ask(home, "set_focus", folder, name="wide.png", focus=(0.25, 0.5))
    assert answer["changed"] == ["wide.png"]
    assert entries_of(home, folder) == {"wide.png": Entry("another", (0.25, 0.5))}
    ask(home, "set_focus", folder, name="wide.png", focus=None)
    undo(home, folder)
    assert entries_of(home, folder)["wide.png"].focus == (0.25, 0.5)
    assert digest(folder) == before


def test_the_words_shown_are_those_of_the_view_with_the_trigger_word(home, folder):
    seen = [ask(home, "look_at", folder, name="wide.png", view=view) for view in range(3)]
    config = image.Looked(folder=str(folder), name="wide.png", **AS).config(home)
    (item,) = [one for one in look(folder)[0] if one.name == "wide.png"]
    assert [one["words"] for one in seen] == captions_of(item, config.dataset, config.model.seed)[:3]
    assert all(sorted(one["words"].split(", ")) == ["a bear", "ana", "snow"] for one in seen)
    assert all(one["words"].startswith("ana, ") for one in seen)


def test_tokens_are_counted_and_words_that_are_not_read_are_told_apart(home, folder):
    change(home, folder, {"wide.png": Entry("bear " * 100)})
    seen = ask(home, "look_at", folder, name="wide.png", preset="sdxl-character", trigger_word="")
    assert seen["tokens"] == f"100 of {seen['tokens'].split()[2]} tokens"
    assert seen["words"].split() + seen["cut"].split() == ["bear"] * 100
    assert len(seen["words"].split()) == int(seen["tokens"].split()[2]) < 100


def test_size_and_share_of_the_crop_are_told(home, folder):
    seen = ask(home, "look_at", folder, name="wide.png")
    shown = opened(seen["trained"])
    assert f"{shown.width} × {shown.height} px" in seen["facts"]
    assert shown.width % 64 == shown.height % 64 == 0
    assert "%" in seen["facts"]


@pytest.mark.parametrize("preset", [preset.name for preset in list_presets(FOLDER)[0]])
def test_every_preset_can_be_looked_at(home, folder, preset):
    seen = ask(home, "look_at", folder, name="clear.png", preset=preset, resolution=0)
    assert opened(seen["trained"]).mode == "RGB"


def test_a_mask_is_kept_in_grey_under_its_content_and_can_be_undone(home, folder):
    answer = ask(home, "set_mask", folder, name="wide.png", png=png((300, 100), color="red"))
    assert answer["changed"] == ["wide.png"]
    name = entries_of(home, folder)["wide.png"].mask
    file = overlay_file(home, folder).parent / name
    with Image.open(file) as mask:
        assert (mask.mode, mask.size) == ("L", (300, 100))
    seen = ask(home, "look_at", folder, name="wide.png")
    assert seen["own_mask"]
    assert opened(seen["mask"]).size == (300, 100)
    ask(home, "set_mask", folder, name="wide.png", png=None)
    assert ask(home, "look_at", folder, name="wide.png")["mask"] is None
    undo(home, folder)
    assert entries_of(home, folder)["wide.png"].mask == name
    assert file.is_file()


def test_a_mask_lies_where_the_reader_finds_it(home, folder):
    ask(home, "set_mask", folder, name="wide.png", png=png((300, 100), color="black"))
    items = {item.name: item for item in look(folder, existing_overlay(home, folder))[0]}
    assert read_mask(items["wide.png"].mask, 600, 200).getextrema() == (0, 0)
    assert items["clear.png"].mask is None


def test_a_mask_that_leaves_nothing_out_is_none_and_says_so(home, folder):
    ask(home, "set_mask", folder, name="wide.png", png=png((300, 100), color="black"))
    answer = ask(home, "set_mask", folder, name="wide.png", png=png((300, 100)))
    assert answer["status"].startswith("All of wide.png is trained: no mask")
    assert entries_of(home, folder) == {}


def test_all_learnt_goes_before_a_mask_that_the_folder_holds(home, folder):
    Image.new("L", (600, 200), "black").save(folder / "wide.mask.png")
    ask(home, "set_mask", folder, name="wide.png", png=png((300, 100)))
    assert opened(ask(home, "look_at", folder, name="wide.png")["mask"]).getextrema() == (255, 255)
    ask(home, "set_mask", folder, name="wide.png", png=None)
    assert opened(ask(home, "look_at", folder, name="wide.png")["mask"]).getextrema() == (0, 0)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (png((300, 300)), "300 × 300"),
        (png((3000, 1000), "1"), "3000 × 1000"),
        (PNG + base64.b64encode(b"no image").decode(), "cannot identify"),
        (PNG + "%%%", "wide.png"),
        ("data:image/svg+xml;base64,PHN2Zz4=", "wide.png"),
    ],
)
def test_what_is_no_mask_of_this_image_is_refused(home, folder, mask, said):
    answer = ask(home, "set_mask", folder, name="wide.png", png=mask)
    assert said in answer["error"]
    assert entries_of(home, folder) == {}


def test_a_mask_of_another_image_format_is_refused(home, folder):
    content = io.BytesIO()
    Image.new("L", (300, 100)).save(content, "BMP")
    answer = ask(home, "set_mask", folder, name="wide.png", png=PNG + base64.b64encode(content.getvalue()).decode())
    assert "wide.png" in answer["error"]


@pytest.mark.parametrize("what", ["look_at", "frame", "set_focus", "set_mask"])
def test_an_image_that_is_not_in_the_folder_is_told(home, folder, what):
    answer = ask(home, what, folder, name="../wide.png", focus=(0.5, 0.5), png=None)
    assert "../wide.png" in answer["error"]


@pytest.mark.parametrize("what", ["look_at", "frame", "set_focus", "set_mask"])
def test_an_image_deleted_meanwhile_is_told(home, folder, what):
    ask(home, "look_at", folder, name="wide.png")
    (folder / "wide.png").unlink()
    assert "'wide.png'" in ask(home, what, folder, name="wide.png", focus=(0.5, 0.5), png=None)["error"]


@pytest.mark.parametrize("resolution", [512.5, 7, 10**6])
def test_a_resolution_that_cannot_be_trained_is_told_with_what_to_do(home, folder, resolution):
    told = ask(home, "look_at", folder, name="wide.png", resolution=resolution)["error"]
    assert f"{resolution}:" in told
    assert "whole number of px" in told


def test_a_mask_too_large_to_be_kept_is_told(home, folder):
    told = ask(home, "set_mask", folder, name="wide.png", png=PNG + "A" * image.MASK_BYTES * 2)["error"]
    assert "6.0 MB" in told
    assert len(told) < 200


def test_a_preset_that_is_gone_is_told(home, folder):
    assert "gone" in ask(home, "look_at", folder, name="wide.png", preset="gone")["error"]


def test_a_mask_is_shown_as_the_trainer_reads_it(home, folder):
    """What is transparent in it is not learnt, and one of another shape than its image's is no mask."""
    half = Image.new("RGBA", (600, 200), "white")
    half.paste((255, 255, 255, 0), (0, 0, 300, 200))
    half.save(folder / "wide.mask.png")
    shown = np.asarray(opened(ask(home, "look_at", folder, name="wide.png")["mask"]))
    assert shown[:, :290].max() == 0
    assert shown[:, 310:].min() == 255
    Image.new("L", (200, 200), "white").save(folder / "wide.mask.png")
    assert ask(home, "look_at", folder, name="wide.png")["mask"] is None
