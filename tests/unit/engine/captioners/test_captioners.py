"""The captioners with models: the real code on tiny random ones; what each needs, and what is wrong without it."""

import json
import sys
from typing import get_args

import hub_server
import numpy as np
import pytest
import tiny_captioners
import torch
from huggingface_hub import constants
from PIL import Image

from trainer.captioning import catalogue as contract
from trainer.captioning.catalogue import CAPTIONERS, CaptionerName, caption_settings
from trainer.captioning.errors import DownloadNeeded, ExtraMissing, NotACaptioner
from trainer.contract.errors import InvalidSettings
from trainer.dataset.captions import Item
from trainer.dataset.errors import UnreadableImage
from trainer.engine.captioners import language
from trainer.engine.captioners.opening import open_captioner
from trainer.models.hub_errors import HubOffline, HubUnreachable

wd14 = pytest.importorskip("trainer.engine.captioners.wd14", reason="needs onnxruntime", exc_type=ImportError)
MODELS = ("wd14", "blip", "florence2")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder for each captioner's tiny model."""
    folder = tmp_path_factory.mktemp("captioners")
    tiny_captioners.tagger(folder / "wd14")
    tiny_captioners.blip(folder / "blip")
    tiny_captioners.florence2(folder / "florence2")
    return folder


@pytest.fixture(autouse=True)
def few_words(monkeypatch):
    """A random model does not end by itself."""
    monkeypatch.setattr(language, "BLIP_TOKENS", 6)
    monkeypatch.setattr(language, "FLORENCE_TOKENS", {"short": 4, "detailed": 6, "long": 8})


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "an image.png"
    gradient = np.linspace(0, 255, 90 * 60 * 3).reshape(60, 90, 3).astype(np.uint8)
    Image.fromarray(gradient).save(path)
    return Item(path, "", 90, 60, path.name)


def told(_phase, _done, _total):
    pass


def opened(name, model, tmp_path, **more):
    settings = caption_settings({"folder": str(tmp_path), "captioner": name, "model": str(model), **more})
    return open_captioner(settings, [], told)


def test_every_captioner_is_listed_with_what_it_does():
    assert tuple(CAPTIONERS) == get_args(CaptionerName)
    assert all(one.label and one.sentence.endswith(".") for one in CAPTIONERS.values())
    assert all(bool(one.megabytes) == bool(one.repository) for one in CAPTIONERS.values())


# --- the tagger -------------------------------------------------------------------------------------------------------


def test_a_tagger_tells_what_its_network_is_sure_of(tmp_path, image):
    weights = tiny_captioners.tagger(tmp_path / "model", seed=3)
    with Image.open(image.path) as file:
        pixels = torch.from_numpy(wd14.prepared(file, tiny_captioners.SIDE)).permute(2, 0, 1)[None]
    patches = torch.nn.functional.conv2d(pixels, torch.from_numpy(weights["patch"]), stride=tiny_captioners.PATCH)
    logits = patches.relu().mean(dim=(2, 3)) @ torch.from_numpy(weights["head"]) + torch.from_numpy(weights["bias"])
    sure = logits.sigmoid()[0].tolist()
    by_sureness = sorted(zip(sure, tiny_captioners.TAGS, strict=True), key=lambda one: -one[0])
    general = [wd14.readable(name) for share, (name, kind) in by_sureness if kind == "0" and share >= 0.2]
    characters = [wd14.readable(name) for share, (name, kind) in by_sureness if kind == "4" and share >= 0.1]
    assert general
    assert characters
    tagger = wd14.Tagger(tmp_path / "model", 0.2, 0.1)
    assert tagger(image) == ", ".join(characters + general)
    assert wd14.Tagger(tmp_path / "model", 1.0, 1.0)(image) == ""


def test_a_tagger_sees_blue_first_and_white_around_in_numbers_to_255():
    seen = wd14.prepared(Image.new("RGB", (40, 20), (10, 20, 200)), 448)
    assert seen.shape == (448, 448, 3)
    assert seen.dtype == np.float32
    assert seen[224, 224].tolist() == [200, 20, 10]
    assert seen[5, 224].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("tag", "caption"),
    [
        ("long_hair", "long hair"),
        ("^_^", "^_^"),
        ("o_o", "o_o"),
        ("hatsune_miku_(vocaloid)", "hatsune miku (vocaloid)"),
    ],
)
def test_tags_have_blanks_but_faces_stay_faces(tag, caption):
    assert wd14.readable(tag) == caption


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda folder: (folder / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda folder: (folder / "selected_tags.csv").unlink(), "selected_tags.csv is missing"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"<html>"), "model.onnx cannot be read"),
        (lambda folder: (folder / "selected_tags.csv").write_text("a,b\n1,2\n"), "selected_tags.csv cannot be read"),
        (lambda folder: tiny_captioners.tagger(folder, rows=3), "of 3 tags"),
        (lambda folder: tiny_captioners.tagger(folder, channels=1), "model.onnx takes"),
    ],
)
def test_what_is_no_tagger_says_why(tmp_path, damage, why):
    tiny_captioners.tagger(tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(NotACaptioner, match="WD14 tagger") as caught:
        opened("wd14", tmp_path / "model", tmp_path)
    assert why in caught.value.message


# --- BLIP and Florence-2 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["blip", "florence2"])
def test_a_language_model_writes_the_same_for_the_same_image(tiny, tmp_path, image, name):
    caption = opened(name, tiny / name, tmp_path)
    written = caption(image)
    assert written
    assert caption(image) == written
    assert not any(token in written for token in ("[SEP]", "[CLS]", "<s>", "</s>", "<image>"))


def test_florence_is_asked_for_as_much_as_is_wished(tiny, tmp_path):
    short, long = (opened("florence2", tiny / "florence2", tmp_path, detail=one) for one in ("short", "long"))
    assert (short.task, long.task) == ("<CAPTION>", "<MORE_DETAILED_CAPTION>")
    assert short.tokens < long.tokens


def test_every_weight_is_the_one_in_the_file(tiny, tmp_path):
    from transformers import BlipForConditionalGeneration

    own = opened("blip", tiny / "blip", tmp_path)
    other = BlipForConditionalGeneration.from_pretrained(tiny / "blip")
    assert not own.model.training
    for key, value in other.state_dict().items():
        assert torch.equal(own.model.state_dict()[key].float(), value)


def test_weights_that_are_not_whole_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    tiny_captioners.florence2(folder)
    whole = load_file(folder / "model.safetensors")
    dropped = next(key for key in whole if "vision" in key and key.endswith("weight"))
    save_file({key: value for key, value in whole.items() if key != dropped}, folder / "model.safetensors")
    with pytest.raises(NotACaptioner, match="its weights lack 1"):
        opened("florence2", folder, tmp_path)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "weights as model.safetensors is missing"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json or vocab.txt or vocab.json is missing"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no weights"), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "clip"}'), "config.json says clip"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is no JSON"),
    ],
)
def test_what_is_no_florence_says_why(tmp_path, damage, why):
    tiny_captioners.florence2(tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(NotACaptioner) as caught:
        opened("florence2", tmp_path / "model", tmp_path)
    assert why in caught.value.message


def test_another_captioners_model_is_refused(tiny, tmp_path):
    with pytest.raises(NotACaptioner, match=r"config\.json says blip"):
        opened("florence2", tiny / "blip", tmp_path)


def test_no_code_that_comes_with_a_model_is_run(tmp_path):
    folder = tiny_captioners.florence2(tmp_path / "model")
    (folder / "evil.py").write_text("raise SystemExit('ran')\nclass Florence2ForConditionalGeneration: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Florence2ForConditionalGeneration", "AutoConfig": "evil.C"}
    (folder / "config.json").write_text(json.dumps(config))
    assert isinstance(opened("florence2", folder, tmp_path), language.Florence2)
    assert "evil" not in sys.modules


@pytest.mark.parametrize("name", MODELS)
def test_an_image_that_cannot_be_decoded_is_told(tiny, tmp_path, image, name):
    image.path.write_bytes(image.path.read_bytes()[:200])
    with pytest.raises(UnreadableImage, match=r"an image\.png"):
        opened(name, tiny / name, tmp_path)(image)


# --- libraries, folders, downloads ------------------------------------------------------------------------------------


def test_a_missing_library_is_named_with_what_to_type(monkeypatch, tmp_path):
    monkeypatch.setattr(contract, "find_spec", lambda _module: None)
    assert not CAPTIONERS["wd14"].installed
    with pytest.raises(ExtraMissing, match="onnxruntime, which is not installed") as caught:
        CAPTIONERS["wd14"].check(caption_settings({"folder": str(tmp_path), "captioner": "wd14"}))
    assert f'"{sys.executable}" -m pip install "onnxruntime>=' in caught.value.hint
    CAPTIONERS["metadata"].check(caption_settings({"folder": str(tmp_path), "captioner": "metadata"}))


def test_a_folder_that_is_not_there_is_no_model(tmp_path):
    with pytest.raises(NotACaptioner, match="not a folder"):
        CAPTIONERS["blip"].here(str(tmp_path / "nothing"))


@pytest.mark.parametrize(("name", "value"), [("captioner", "blop"), ("general_threshold", 2), ("folder", "")])
def test_a_wrong_setting_is_named(tmp_path, name, value):
    with pytest.raises(InvalidSettings, match=f"^{name} = "):
        caption_settings({"folder": str(tmp_path), name: value})


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with hub_server.serve() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_asked_or_fetched_unless_it_is_allowed(hub, tmp_path, name):
    with pytest.raises(DownloadNeeded, match=r"about (\d+ MB|\d\.\d GB) that are not on this computer"):
        open_captioner(caption_settings({"folder": str(tmp_path), "captioner": name}), [], told)
    assert hub.requests == []


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_fetched_once_with_no_more_than_it_needs(hub, tiny, tmp_path, image, name):
    files = {path.name: path.read_bytes() for path in (tiny / name).iterdir()}
    never = {
        "pytorch_model.bin": b"x" * 2000,
        "README.md": b"a",
        "model.fp16.safetensors": b"y" * 2000,
        "evil.py": b"z",
    }
    hub.add("ana/captioner", {**files, **never})
    settings = caption_settings(
        {"folder": str(tmp_path), "captioner": name, "model": "ana/captioner", "download": True}
    )
    amount = CAPTIONERS[name].look("ana/captioner").missing_bytes
    phases = []
    first = open_captioner(settings, [], lambda *report: phases.append(report))(image)
    fetched = {file for file, _ in hub.sent}
    assert not fetched & set(never)
    assert amount == sum(len(files[file]) for file in fetched)
    assert "download" in [phase for phase, _, _ in phases]
    hub.requests.clear()
    unasked = settings.model_copy(update={"download": False})
    assert open_captioner(unasked, [], told)(image) == first
    assert hub.requests == []


def test_a_repository_that_holds_no_such_model_says_what_is_missing(hub):
    hub.add("ana/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x" * 2000, "tokenizer.json": b"{}"})
    with pytest.raises(NotACaptioner, match=r"weights as model\.safetensors is missing"):
        CAPTIONERS["blip"].look("ana/pickled")


def test_without_network_the_hub_is_named(hub, tmp_path, monkeypatch):
    settings = caption_settings({"folder": str(tmp_path), "captioner": "blip", "download": True})
    hub.refuse = 500
    with pytest.raises(HubUnreachable, match="Salesforce/blip-image-captioning-large"):
        open_captioner(settings, [], told)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubOffline):
        open_captioner(settings, [], told)
