import json

import originals
import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from diffusers.models import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file

PARAMETERS = {  # as published
    "sd15": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sd2": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sdxl": {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    },
}
LORA_MODULES = {"sd15": (192, 72), "sd2": (192, 138), "sdxl": (722, 72 + 192)}
every_family = pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])


@pytest.fixture(scope="module")
def parts():
    """The tiny parts of a family, made once."""
    made = {}

    def tiny(family):
        if family not in made:
            made[family] = originals.parts(family, tiny=True)
        return made[family]

    return tiny


def table(family):
    return json.loads((originals.FIXTURES / f"{family}-keys.json").read_text())


def weight(parts, path):
    """The weight at a key table's path, whether the installed transformers has a `text_model.` level or not."""
    part, rest = path.split(".", 1)
    module = parts[{"unet": "unet", "te1": "text_encoder", "te2": "text_encoder_2"}[part]]
    if not hasattr(module, "text_model"):
        rest = rest.removeprefix("text_model.")
    return module.get_submodule(rest).weight


def random_lora(parts, family, rank=2, alpha=3.0):
    """A LoRA for every layer that the key table has, kohya's names and shapes."""
    rng = torch.Generator().manual_seed(1)
    made = {}
    for path, entry in table(family).items():
        out, *inner = weight(parts, path).shape
        made[f"{entry['kohya']}.lora_down.weight"] = torch.randn((rank, *inner), generator=rng)
        made[f"{entry['kohya']}.lora_up.weight"] = torch.randn((out, rank, *(1 for _ in inner[1:])), generator=rng)
        made[f"{entry['kohya']}.alpha"] = torch.tensor(alpha)
    return made


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@every_family
def test_the_full_builds_have_the_published_numbers_of_parameters(family):
    full = originals.bare_parts(family, tiny=False)
    assert {part: sum(p.numel() for p in module.parameters()) for part, module in full.items()} == PARAMETERS[family]


@every_family
def test_every_layer_of_the_key_table_lies_in_the_full_file_at_its_published_shape(family):
    file = originals.original(family, originals.bare_parts(family, tiny=False))
    places = originals.lora_places(family)
    for path, entry in table(family).items():
        key, third = places[entry["kohya"]]
        rows, *inner = file[key].shape
        assert [rows if third is None else rows // 3, *inner] == entry["shape"], path


@every_family
def test_every_matrix_of_the_original_unet_is_in_the_key_table_under_its_name(parts, family):
    file = originals.original(family, parts(family))
    names = {f"{originals.UNET}{entry['ldm']}.weight" for entry in table(family).values() if entry["ldm"]}
    assert {key for key, tensor in file.items() if key.startswith(originals.UNET) and tensor.ndim > 1} == names


@every_family
def test_a_tiny_build_has_as_many_places_for_lora_as_the_full_one(parts, family):
    groups = {group: [p for p, e in table(family).items() if e["group"] == group] for group in ("attn", "te")}
    assert (len(groups["attn"]), len(groups["te"])) == LORA_MODULES[family]
    linears = [
        name
        for part, module in parts(family).items()
        if part.startswith("text_encoder")
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear) and name != "text_projection"
    ]
    assert len(linears) == LORA_MODULES[family][1]


@every_family
def test_diffusers_reads_the_same_unet_and_vae_back(parts, family):
    made = parts(family)
    file = originals.original(family, made)
    assert_same(convert_ldm_unet_checkpoint(file, made["unet"].config), made["unet"].state_dict())
    assert_same(convert_ldm_vae_checkpoint(file, made["vae"].config), made["vae"].state_dict())


@every_family
def test_diffusers_reads_the_same_text_encoders_back(parts, family):
    made = parts(family)
    file = originals.original(family, made)
    for text in originals.TEXTS[family]:
        module = made[text.part]
        if text.open_clip:
            read = convert_open_clip_checkpoint(module, file, prefix=text.prefix)
        else:
            read = convert_ldm_clip_checkpoint(file)
            assert torch.equal(read.pop("text_model.embeddings.position_ids"), module.embeddings.position_ids)
        if not hasattr(module, "text_model"):  # transformers 5.6 took this level from CLIPTextModel
            read = {name.removeprefix("text_model."): tensor for name, tensor in read.items()}
        assert_same(read, module.state_dict())


@every_family
def test_a_lora_added_to_the_original_is_the_lora_folded_into_diffusers_modules(family):
    made = originals.parts(family, tiny=True)
    before = {key: tensor.clone() for key, tensor in originals.original(family, made).items()}
    lora = random_lora(made, family)
    with torch.no_grad():
        for path, entry in table(family).items():
            up, down = (lora[f"{entry['kohya']}.lora_{side}.weight"] for side in ("up", "down"))
            folded = torch.einsum("or,r...->o...", up.flatten(1), down) * (3.0 / 2)
            weight(made, path).add_(folded)
    expected = originals.original(family, made)
    if family == "sd2":  # the layer that SD 2.x never runs is made anew from the one before it
        expected |= {key: before[key] for key in expected if ".23." in key or key.endswith("text_projection")}
    added = originals.apply_lora_to_original(before, lora, family)
    assert added.keys() == expected.keys()
    torch.testing.assert_close(added, expected)
    changed = {key for key in before if not torch.equal(before[key], added[key])}
    assert changed == {key for key, _ in originals.lora_places(family).values()}


def test_a_lora_for_another_family_is_refused(parts):
    lora = random_lora(parts("sd15"), "sd15")
    with pytest.raises(KeyError, match="lora_te_text_model"):
        originals.apply_lora_to_original(originals.original("sdxl", parts("sdxl")), lora, "sdxl")


@every_family
def test_file_and_folder_hold_the_same_weights(tmp_path, family):
    file = originals.write_file(
        tmp_path / "model.safetensors", family, metadata={"a": "b"}, extra={"v_pred": torch.zeros(1)}
    )
    folder = originals.write_folder(tmp_path / "folder", family, prediction="v_prediction")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float16)
    tensors = load_file(file)
    assert_same(convert_ldm_unet_checkpoint(tensors, unet.config), unet.state_dict())
    assert {tensor.dtype for key, tensor in tensors.items() if key.startswith(originals.UNET)} == {torch.float16}
    assert "v_pred" in tensors
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"a": "b"}
    assert json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["prediction_type"] == "v_prediction"


@every_family
def test_random_weights_give_finite_numbers_of_ordinary_size(parts, family):
    made = parts(family)
    ids = torch.tensor([[49406, 320, 49407, *[49407] * 74]])
    with torch.no_grad():
        texts = [made[text.part](ids, output_hidden_states=True) for text in originals.TEXTS[family]]
        states = torch.cat([text.hidden_states[-2] for text in texts], dim=-1)
        size = {"text_embeds": getattr(texts[-1], "text_embeds", None), "time_ids": torch.full((1, 6), 64)}
        noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        predicted = made["unet"](noise, torch.tensor([500]), states, added_cond_kwargs=size).sample
        image = made["vae"].decode(noise).sample
        latents = made["vae"].encode(image).latent_dist.mean
    for made_up in (predicted, image, latents):
        assert 0.05 < made_up.std() < 5
