"""Each model family from a single file and from a folder: weights, words, frames, LoRA layers, and what is refused."""

import copy
import json
import shutil

import numpy as np
import originals
import pytest
import tiny
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.learning import AdapterSettings
from trainer.contract.wording import for_console
from trainer.dataset.buckets import Crop, Size, crop_to
from trainer.dataset.captions import Item
from trainer.dataset.images import GAP
from trainer.engine.adapters.lora import attach
from trainer.engine.adapters.lora_file import export
from trainer.engine.data.batches import EncodedDataset, Sample, TextStates
from trainer.engine.data.cache import TensorCache
from trainer.engine.data.encoding import to_pixels
from trainer.engine.families import original, parts
from trainer.engine.families.base import RenderOptions
from trainer.engine.families.labels import labels_of
from trainer.engine.families.parts import CONFIGS, clip_tokenizer, load_vae
from trainer.engine.families.text import token_ids
from trainer.models.identify import NAMES

LAYERS = {"sd15": (192, 72), "sd2": (192, 138), "sdxl": (722, 72, 192)}  # UNet and text encoders, as published
PADS = {"sd15": ["<|endoftext|>"], "sd2": ["!"], "sdxl": ["<|endoftext|>", "!"]}  # in their tokenizers' files
SAID = {"modelspec.prediction_type": "epsilon"}  # the weights of a random SD 2.x tell nothing
CAPTIONS = ["", "a ball", "1girl, (silver hair:1.2), naïve café, 日本 🎈 <3", "one two three " * 25]
PARTS = ("unet", "text_encoder", "text_encoder_2")
OPTIONS = RenderOptions(seeds=(3,), steps=1, guidance_scale=2.0, width=64, height=64)

only_sd15 = pytest.mark.parametrize("name", ["sd15"])
only_sdxl = pytest.mark.parametrize("name", ["sdxl"])
not_sdxl = pytest.mark.parametrize("name", ["sd15", "sd2"])
every_family = pytest.mark.parametrize("name", LAYERS)


class Shelf:
    """Each family's tiny model in every form, made once; tests that change one load their own."""

    def __init__(self, path):
        self.path = path
        self.made = {}

    def _once(self, what, name, make):
        if (what, name) not in self.made:
            self.made[what, name] = make()
        return self.made[what, name]

    def stock(self, name):
        """The model as the stock pipeline holds it."""
        return self._once("stock", name, lambda: stock_pipeline(name))

    def file(self, name):
        return self._once("file", name, lambda: save_original(self.stock(name), name, self.path))

    def folder(self, name):
        if not (self.path / name).exists():
            self.stock(name).save_pretrained(self.path / name)
        return self.path / name

    def family(self, name):
        return self._once("family", name, lambda: tiny.load(self.file(name)))

    def full(self, name):
        """The published build: shapes without weights."""
        return self._once("full", name, lambda: originals.bare_parts(name, tiny=False))

    def adapter(self, name):
        """A random LoRA on every layer of a family of its own."""
        return self._once("adapter", name, lambda: random_adapter(twin(self.family(name)), name))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    return Shelf(tmp_path_factory.mktemp("models"))


@pytest.fixture
def file(shelf, name):
    return shelf.file(name)


@pytest.fixture
def folder(shelf, name):
    return shelf.folder(name)


@pytest.fixture
def family(shelf, name):
    return shelf.family(name)


@pytest.fixture
def stock(shelf, name):
    return shelf.stock(name)


@pytest.fixture
def adapter(shelf, name):
    return shelf.adapter(name)


def stock_pipeline(name):
    words = {f"tokenizer{'_2' if number else ''}": clip_tokenizer(pad) for number, pad in enumerate(PADS[name])}
    rest = {**words, "scheduler": DDIMScheduler(**originals.NOISE, clip_sample=False, steps_offset=1)}
    if name == "sdxl":
        return StableDiffusionXLPipeline(**originals.parts(name, tiny=True), **rest)
    safety = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(**originals.parts(name, tiny=True), **rest, **safety)


def save_original(stock, name, folder):
    parts = {part: module for part, module in stock.components.items() if isinstance(module, torch.nn.Module)}
    save_file(originals.original(name, parts), folder / f"{name}.safetensors", SAID)
    return folder / f"{name}.safetensors"


def twin(family):
    """The same family with networks of its own."""
    made, networks = copy.copy(family), (family.unet, family.vae, family.text_encoders)
    made.unet, made.vae, made.text_encoders = copy.deepcopy(networks)
    return made


def random_adapter(family, name):
    both = {"text_encoder": True, "text_encoder_2": name == "sdxl"}
    made = attach(family, AdapterSettings(rank=2, alpha=1.0, **both), seed=1)
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for live in made.layers.values():
            live.up.copy_(torch.randn(live.up.shape, generator=rng) * 0.1)
    return made


def modules(family):
    encoders = zip(PARTS[1:], family.text_encoders, strict=False)
    return {"unet": family.unet, "vae": family.vae, **dict(encoders)}


def weights(family):
    """Every tensor, by part and name."""
    return {f"{part}.{key}": t for part, module in modules(family).items() for key, t in module.state_dict().items()}


def pixels(seed=1):
    return torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def noisy(seed=1):
    return torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(seed)), torch.tensor([3, 900])


def answers(family):
    """What the whole model says of two captions, an image and noise."""
    said = family.encode_text(family.tokenize(["a ball", "box"])).framed(torch.full((2, 6), 64))
    posterior = family.encode_image(pixels())
    return said.states, posterior.mean, posterior.std, family.predict(*noisy(), said)


def differing(ours, theirs):
    assert ours.keys() == theirs.keys()
    return {key for key in ours if not torch.equal(ours[key], theirs[key])}


# --- weights ---------------------------------------------------------------------------------------------------------


@every_family
def test_a_file_and_a_folder_of_one_model_are_the_same_model(family, folder, file, stock):
    other = tiny.load(folder)
    assert differing(weights(family), weights(other)) == set()
    assert differing(weights(family), {f"{p}.{k}": t for p in modules(family) for k, t in _state(stock, p)}) == set()
    assert other.scaling_factor == family.scaling_factor == stock.vae.config.scaling_factor
    assert (other.spec, other.noise) == (family.spec, family.noise)
    assert torch.equal(other.tokenize(CAPTIONS), family.tokenize(CAPTIONS))
    with torch.no_grad():  # configurations differ where weights do not: heads, activations
        said = [
            one.encode_text(one.tokenize(["a ball", "box"])).framed(torch.full((2, 6), 64)) for one in (family, other)
        ]
        assert differing(said[0].text(), said[1].text()) == set()
        drawn = [one.predict(*noisy(), conditioning) for one, conditioning in zip((family, other), said, strict=True)]
        torch.testing.assert_close(drawn[0], drawn[1])
        torch.testing.assert_close(family.encode_image(pixels()).mean, other.encode_image(pixels()).mean)
    assert family.labels.base_model_version == f"atelier_{file.stem}"  # nothing of this size was published


def _state(pipeline, part):
    return getattr(pipeline, part).state_dict().items()


def _merged(tensors):
    """As merges of SD 1.x are found: without a level that other files have, and with what is no part of the model."""
    flat = {key.replace(".transformer.text_model.", ".transformer."): tensor for key, tensor in tensors.items()}
    averaged = {f"model_ema.{key.replace('.', '')}": t * 2 for key, t in tensors.items() if "input_blocks.1." in key}
    return flat | averaged | {"first_stage_model.loss.logvar": torch.zeros(()), "model_ema.decay": torch.ones(())}


def _converted(tensors):
    """As SD 2.x is found after a conversion from a folder: without what diffusers never loads."""
    kept = {key: tensor for key, tensor in tensors.items() if ".resblocks.23." not in key}
    return {key: tensor for key, tensor in kept.items() if not key.endswith((".text_projection", ".logit_scale"))}


@pytest.mark.parametrize(("name", "change"), [("sd15", _merged), ("sd2", _converted)])
def test_files_are_read_as_they_are_found(file, family, change, tmp_path):
    save_file(change(load_file(file)), tmp_path / file.name, SAID)
    assert differing(weights(tiny.load(tmp_path / file.name)), weights(family)) == set()


@every_family
def test_the_published_builds_are_read_off_the_shapes_of_their_tensors(shelf, name):
    """Tiny models have too few channels for several attention heads; here the numbers of heads differ."""
    full, template = shelf.full(name), json.loads((CONFIGS / f"{name}.json").read_text())
    tensors = originals.original(name, full)
    unet, vae = original.unet(tensors, template["unet"]), original.vae(tensors, template["vae"])
    with torch.device("meta"):
        read_unet = UNet2DConditionModel.from_config(template["unet"] | original.unet_widths(unet, template["unet"]))
        read_vae = AutoencoderKL.from_config(template["vae"] | original.vae_widths(vae))
    assert plain(read_unet.config) == plain(full["unet"].config)
    assert plain(read_vae.config) == plain(full["vae"].config)
    for part, kind in zip(PARTS[1:], template["text_encoders"], strict=False):
        widths = original.text_widths(original.text(tensors, kind["original"]))
        published = full[part].config.to_dict()
        assert {**published, **widths} == published
        assert kind["hidden_act"] == published["hidden_act"]


def plain(config):
    """A configuration without its notes, and without the size that a VAE was trained at, which decides nothing."""
    kept = {key: value for key, value in config.items() if not key.startswith("_") and key != "sample_size"}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


@only_sd15
def test_a_folder_of_half_precision_files_is_read(folder, family, tmp_path):
    own = shutil.copytree(folder, tmp_path / "own")
    for path in list(own.rglob("*.safetensors")):
        path.rename(path.with_suffix(".fp16.safetensors"))
    half = tiny.load(own)
    assert differing(weights(half), weights(family)) == set()
    assert half.unet_files == [own / "unet" / "diffusion_pytorch_model.fp16.safetensors"]


@only_sd15
def test_the_files_that_hold_the_unet_are_known(folder, file):
    assert tiny.load(folder).unet_files == [folder / "unet" / "diffusion_pytorch_model.safetensors"]
    assert tiny.load(file).unet_files == [file]


# --- LoRA layers -----------------------------------------------------------------------------------------------------


@every_family
def test_every_layer_of_the_published_table_learns_and_no_other(adapter, name):
    counts = {part: len(group) // 2 for part, group in adapter.groups().items()}
    assert counts == dict(zip(PARTS, LAYERS[name], strict=False))
    table = json.loads((originals.FIXTURES / f"{name}-keys.json").read_text())
    assert set(adapter.layers) == {entry["kohya"] for entry in table.values() if entry["group"] in ("attn", "te")}


@every_family
def test_a_client_of_the_original_layout_gets_the_base_plus_what_was_trained(adapter, family, file, name, tmp_path):
    lora = load_file(export(tmp_path / "lora.safetensors", adapter, "fp32", {}).path)
    save_file(originals.apply_lora_to_original(load_file(file), lora, name), tmp_path / file.name, SAID)
    base, merged = weights(family), weights(tiny.load(tmp_path / file.name))
    deltas = {weight_of(path, family): adapter.layers[kohya].delta() for path, kohya in table_paths(name, adapter)}
    assert differing(base, merged) == set(deltas)
    for key, delta in deltas.items():
        torch.testing.assert_close(merged[key], base[key] + delta, rtol=1e-5, atol=1e-6)


def table_paths(name, adapter):
    """Diffusers' path and kohya's name of each trained layer, by the independent table."""
    table = json.loads((originals.FIXTURES / f"{name}-keys.json").read_text())
    paths = {entry["kohya"]: path for path, entry in table.items()}
    return [(paths[kohya], kohya) for kohya in adapter.layers]


def weight_of(path, family):
    """A table path's tensor in `weights`, whether the installed transformers has a `text_model.` level or not."""
    table_part, rest = path.split(".", 1)
    part = {"unet": "unet", "te1": "text_encoder", "te2": "text_encoder_2"}[table_part]
    if not hasattr(modules(family)[part], "text_model"):
        rest = rest.removeprefix("text_model.")
    return f"{part}.{rest}.weight"


@pytest.mark.parametrize(
    ("name", "versions", "architectures", "client"),
    [
        ("sd15", ("sd_v1", "sd_v1_v"), ("stable-diffusion-v1/lora",) * 2, "SD1"),
        ("sd2", ("sd_v2", "sd_v2_v"), ("stable-diffusion-v2-512/lora", "stable-diffusion-v2-768-v/lora"), "SD2"),
        ("sdxl", ("sdxl_base_v1-0",) * 2, ("stable-diffusion-xl-v1-base/lora",) * 2, "SDXL"),
    ],
)
def test_the_published_builds_have_the_labels_that_clients_know(shelf, name, versions, architectures, client):
    full = shelf.full(name)["unet"].config
    labels = [labels_of(name, full, prediction, "my model") for prediction in ("epsilon", "v_prediction")]
    assert tuple(one.base_model_version for one in labels) == versions
    assert tuple(one.architecture for one in labels) == architectures
    assert {(one.client_version, one.note) for one in labels} == {(client, "")}
    small = labels_of(name, {**full, "block_out_channels": [64, 32, 64]}, "epsilon", "my model")
    assert (small.base_model_version, small.client_version) == ("atelier_my model", "Unknown")


# --- words -----------------------------------------------------------------------------------------------------------


@every_family
def test_captions_are_padded_and_cut_as_the_models_own_tokenizer_does(family, name):
    ids = family.tokenize(CAPTIONS)
    for number, pad in enumerate(PADS[name]):
        words = clip_tokenizer(pad)
        padded = words(CAPTIONS, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
        assert torch.equal(ids[:, number, 0], padded)
    assert ids.shape == (len(CAPTIONS), len(PADS[name]), 1, 77)


def cut_up(row, end, pad):
    """One long padded row as rows of 77, as sd-scripts does it: each begins and ends as a caption of its own."""
    parts = [[row[0], *row[start : start + 75], row[-1]] for start in range(1, len(row) - 2, 75)]
    for part in parts:
        if part[75] not in (end, pad):
            part[76] = end
        if part[1] == pad:
            part[1] = end
    return parts


@pytest.mark.parametrize(("name", "chunks"), [("sd15", 3), ("sd2", 3), ("sdxl", 2)])
def test_long_captions_are_read_in_parts_as_sd_scripts_reads_them(family, name, chunks):
    ids = torch.stack([token_ids(words, CAPTIONS, chunks) for words in family.tokenizers], dim=1)
    for number, pad in enumerate(PADS[name]):
        words = clip_tokenizer(pad)
        rows = words(CAPTIONS, padding="max_length", truncation=True, max_length=75 * chunks + 2).input_ids
        assert ids[:, number].tolist() == [cut_up(row, words.eos_token_id, words.pad_token_id) for row in rows]
    with torch.no_grad():
        whole = family.encode_text(ids)
        parts = [family.encode_text(ids[:, :, chunk : chunk + 1]) for chunk in range(chunks)]
    bodies = torch.cat([part.states[:, 1:76] for part in parts], dim=1)
    joined = torch.cat([parts[0].states[:, :1], bodies, parts[-1].states[:, 76:]], dim=1)
    assert whole.states.shape[1] == 75 * chunks + 2
    torch.testing.assert_close(whole.states, joined)
    if name == "sdxl":
        torch.testing.assert_close(whole.pooled, parts[0].pooled)


@every_family
def test_an_exclamation_mark_is_a_word_even_where_it_pads(family):
    """Diffusers takes it for padding; in the clients, and in the first text encoder, it is the word 256."""
    for own in family.tokenize(["love live !"])[0, :, 0].tolist():
        assert own[:5] == [49406, 793, 1064, 256, 49407]


@only_sd15
def test_what_is_longer_than_can_be_read_is_cut(file, family):
    long = tiny.load(file, dataset={"caption_tokens": 225})
    caption = "word " * 225
    assert torch.equal(long.tokenize([caption + "and more " * 99]), long.tokenize([caption]))
    assert not torch.equal(long.tokenize([caption]), long.tokenize(["word " * 224]))
    assert torch.equal(family.tokenize(["word " * 76]), family.tokenize(["word " * 75]))


@only_sdxl
def test_sdxl_reads_captions_as_the_stock_pipeline_does(family, stock):
    with torch.no_grad():
        ours = family.encode_text(family.tokenize(CAPTIONS))
        states, _, pooled, _ = stock.encode_prompt(CAPTIONS, device="cpu", do_classifier_free_guidance=False)
    torch.testing.assert_close(ours.states, states)
    torch.testing.assert_close(ours.pooled, pooled)


@not_sdxl
def test_stable_diffusion_reads_captions_as_the_stock_pipeline_does(family, stock):
    with torch.no_grad():
        ours = family.encode_text(family.tokenize(CAPTIONS)).states
        theirs, _ = stock.encode_prompt(CAPTIONS, "cpu", 1, do_classifier_free_guidance=False)
    torch.testing.assert_close(ours, theirs)


@only_sd15
@pytest.mark.parametrize("clip_skip", [1, 2])
def test_clip_skip_counts_as_clients_do_one_more_than_diffusers(file, stock, clip_skip, monkeypatch):
    if not hasattr(stock.text_encoder, "text_model"):  # diffusers 0.42 asks for a level that transformers 5.6 dropped
        monkeypatch.setitem(stock.text_encoder.__dict__, "text_model", stock.text_encoder)
    family = tiny.load(file, model={"clip_skip": clip_skip})
    with torch.no_grad():
        ours = family.encode_text(family.tokenize(CAPTIONS)).states
        theirs, _ = stock.encode_prompt(CAPTIONS, "cpu", 1, do_classifier_free_guidance=False, clip_skip=clip_skip - 1)
    torch.testing.assert_close(ours, theirs)


@only_sdxl
def test_a_caption_from_the_cache_is_the_encoders_answer_whole(family, tmp_path):
    for _ in ("made", "read"):
        text = TextStates(family, trained=False)
        text.learn(["ball", ""], torch.float32, TensorCache(tmp_path), lambda *_: None)
        looked_up = text(["", "ball"], torch.device("cpu"))
        with torch.no_grad():
            encoded = family.encode_text(family.tokenize(["", "ball"]))
        torch.testing.assert_close(looked_up.text(), encoded.text())


# --- frames ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (101, 64), (67, 131), (640, 333)])
def test_a_frame_tells_where_the_shown_pixels_lie(size, mirrored, tmp_path):
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    crop = crop_to(*size, Size(64, 64))
    data = EncodedDataset([Item(tmp_path / "x.png", "", *size)], [crop], {})
    height, width, top, left, shown_height, shown_width = data.frame(Sample(0, 0, mirrored, ""))
    assert (height, width, shown_height, shown_width) == (size[1], size[0], 64, 64)

    whole = image.resize((crop.scaled.width, crop.scaled.height), Image.Resampling.LANCZOS, reducing_gap=GAP)
    seen = (ImageOps.mirror(whole) if mirrored else whole).crop((left, top, left + shown_width, top + shown_height))
    encoded = to_pixels(image, crop)
    expected = to_pixels(seen, Crop(Size(64, 64), 0, 0, Size(64, 64)))
    assert torch.equal(encoded.flip(2) if mirrored else encoded, expected)


@only_sdxl
def test_the_unet_is_told_the_frame_in_the_stock_pipelines_order(family, stock):
    told = stock._get_add_time_ids((640, 333), (7, 31), (96, 48), torch.float32, text_encoder_projection_dim=64)
    sample, t = noisy()
    with torch.no_grad():
        said = family.encode_text(family.tokenize(["ball", "box"]))
        ours = family.predict(sample, t, said.framed(torch.tensor([[640, 333, 7, 31, 96, 48]] * 2)))
        added = {"text_embeds": said.pooled, "time_ids": told.repeat(2, 1)}
        theirs = stock.unet(sample, t, said.states, added_cond_kwargs=added).sample
        elsewhere = family.predict(sample, t, said.framed(torch.tensor([[333, 640, 31, 7, 48, 96]] * 2)))
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(ours, elsewhere, atol=1e-4)


# --- VAEs ------------------------------------------------------------------------------------------------------------


def overflowing(file, folder):
    """The model with a VAE like SDXL's: its activations fit float32 and no float16."""
    tensors = {key: tensor.half() for key, tensor in load_file(file).items()}
    for key in ("encoder.conv_in.weight", "decoder.conv_in.weight"):
        tensors[f"first_stage_model.{key}"] *= 2**15
    save_file(tensors, folder / "overflowing.safetensors")
    return folder / "overflowing.safetensors"


@only_sd15
def test_an_image_that_cannot_be_decoded_whole_is_decoded_in_tiles(family, monkeypatch):
    tile_px = 128  # the real size takes half a minute, and the same way
    monkeypatch.setattr(parts, "TILE_PX", tile_px)
    whole, short = twin(family), twin(family)
    per_latent, plain = whole.spec.pixels_per_latent, short.vae.decoder.forward
    latents = torch.randn(1, 4, 192 // per_latent, 160 // per_latent, generator=torch.Generator().manual_seed(0))

    def _small(part, *rest):
        if max(part.shape[-2:]) > tile_px // per_latent:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")
        return plain(part, *rest)

    monkeypatch.setattr(short.vae.decoder, "forward", _small)
    with torch.no_grad():
        expected, made = (np.asarray(one._decode(latents)[0]).astype(float) for one in (whole, short))
    assert made.shape == expected.shape == (192, 160, 3)
    assert np.abs(made - expected).mean() < 0.1 * expected.std()

    short.decode_in_tiles()
    with torch.no_grad():
        assert np.array_equal(np.asarray(short._decode(latents)[0]), made)
    large = torch.rand(1, 3, 160, 144, generator=torch.Generator().manual_seed(1))
    assert torch.equal(short.encode_image(large).mean, whole.encode_image(large).mean)  # encoding is not


@only_sd15
def test_a_vae_that_overflows_in_half_precision_goes_on_in_float32(file, tmp_path):
    path = overflowing(file, tmp_path)
    whole = tiny.load(path)
    half, drawing = twin(whole), twin(whole)
    half.vae.half()
    drawing.vae.half()
    assert not half.vae.decode(noisy()[0][:1, :, :2, :2].half()).sample.isfinite().all()

    small = pixels()[..., :16, :16]
    expected, made = whole.encode_image(small), half.encode_image(small)
    assert torch.equal(made.mean, expected.mean)
    assert torch.equal(made.std, expected.std)
    with torch.no_grad():
        said = whole.encode_text(whole.tokenize(["a ball"]))
    image = np.asarray(drawing.render(said, said, OPTIONS)[0])
    assert np.array_equal(image, np.asarray(whole.render(said, said, OPTIONS)[0]))
    assert image.std() > 1


@pytest.fixture(scope="module")
def other_model():
    return originals.parts("sd15", tiny=True, seed=9)


def _as_folder(model, path):
    model["vae"].save_pretrained(path)
    return path


def _as_diffusers_names_it(model, path):
    save_file(model["vae"].state_dict(), path / "vae.safetensors")
    return path / "vae.safetensors"


def _as_first_published(model, path):
    whole = originals.original("sd15", model)
    own = {key.removeprefix(originals.VAE): t for key, t in whole.items() if key.startswith(originals.VAE)}
    save_file(own | {"loss.logvar": torch.zeros(())}, path / "vae.safetensors")
    return path / "vae.safetensors"


def _within_another_model(model, path):
    save_file(originals.original("sd15", model), path / "model.safetensors")
    return path / "model.safetensors"


@pytest.mark.parametrize("save", [_as_folder, _as_diffusers_names_it, _as_first_published, _within_another_model])
def test_a_vae_is_read_as_it_is_found(other_model, save, tmp_path):
    template = json.loads((CONFIGS / "sd15.json").read_text())["vae"]
    read = load_vae(save(other_model, tmp_path), template, torch.float32)
    assert differing(read.state_dict(), other_model["vae"].state_dict()) == set()


@only_sd15
def test_another_vae_takes_the_place_of_the_models_own(file, family, other_model, tmp_path):
    other = tiny.load(file, model={"vae": str(_as_diffusers_names_it(other_model, tmp_path))})
    ours, own = weights(other), weights(family)
    assert differing(ours, own) == {key for key in own if key.startswith("vae.")}
    assert differing(other.vae.state_dict(), other_model["vae"].state_dict()) == set()
    assert not any(parameter.requires_grad for parameter in other.vae.parameters())
    assert other.encoder_key("vae") != family.encoder_key("vae")


def _nothing(_path):
    pass


def _a_text_file(path):
    path.write_text("not a model")


def _a_lora(path):
    save_file({"lora_unet_x.alpha": torch.zeros(())}, path)


def _an_empty_folder(path):
    path.mkdir()


def _half_a_vae(path):
    tensors = originals.parts("sd15", tiny=True)["vae"].state_dict()
    save_file({key: tensor for key, tensor in tensors.items() if "mid_block" not in key}, path)


def _of_other_latents(path):
    save_file(tiny_vae_of(16).state_dict(), path)


def tiny_vae_of(channels):
    vae = originals.parts("sd15", tiny=True)["vae"]
    return type(vae).from_config({**vae.config, "latent_channels": channels})


@only_sd15
@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (_nothing, "No VAE at"),
        (_a_text_file, "does not begin like"),
        (_a_lora, "holds no VAE"),
        (_an_empty_folder, "no .safetensors file"),
        (_half_a_vae, "lacks 52 tensors"),
        (_of_other_latents, "16"),
    ],
)
def test_a_file_that_is_no_vae_for_this_model_is_named(file, tmp_path, make, seen):
    make(tmp_path / "vae.safetensors")
    with pytest.raises(InvalidSettings, match=seen) as refused:
        tiny.load(file, model={"vae": str(tmp_path / "vae.safetensors")})
    assert str(tmp_path / "vae.safetensors") in refused.value.message
    assert "\n" not in refused.value.message
    assert "model.vae" in refused.value.places


# --- what does not go together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_settings_made_for_another_family_are_refused(file, name):
    other = {"sd15": "sdxl", "sdxl": "sd2"}[name]
    with pytest.raises(InvalidSettings, match=f"made for {NAMES[other]}") as refused:
        tiny.load(file, model={"family": other})
    assert NAMES[name] in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize("name", ["sd2", "sdxl"])
def test_clip_skip_is_refused_where_there_is_none(file):
    with pytest.raises(InvalidSettings, match=r"clip_skip = 2.*no SD 1") as refused:
        tiny.load(file, model={"clip_skip": 2})
    assert "clip_skip 0" in for_console(refused.value.hint)


@pytest.mark.parametrize("name", ["sd2"])
def test_a_model_that_does_not_tell_what_it_predicts_is_asked_about(file, tmp_path):
    save_file(load_file(file), tmp_path / "silent.safetensors")
    with pytest.raises(InvalidSettings, match="epsilon or v") as refused:
        tiny.load(tmp_path / "silent.safetensors")
    assert "--objective.prediction" in for_console(refused.value.hint)


@not_sdxl
def test_only_sdxl_has_a_second_text_encoder_to_train(file):
    with pytest.raises(InvalidSettings, match="one text encoder") as refused:
        tiny.load(file, adapter={"text_encoder_2": True})
    assert "text_encoder_2 false" in for_console(refused.value.hint)
