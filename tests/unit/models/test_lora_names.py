import json
from pathlib import Path

import pytest

from trainer.contract.home import POCKET
from trainer.models.lora_names import TWO_ENCODERS, kohya_name, sgm_path, text_slots, unet_slots

FIXTURES = Path(__file__).parents[2] / "fixtures"
SD15_UNET = {
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "cross_attention_dim": 768,
}
SD15_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
SD2_UNET = {**SD15_UNET, "cross_attention_dim": 1024, "use_linear_projection": True}
SD2_TEXT = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23}
SDXL_UNET = {
    "block_out_channels": [320, 640, 1280],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 2, 10],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
}
SDXL_TEXTS = {
    "text_encoder": SD15_TEXT,
    "text_encoder_2": {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32},
}
COMPONENTS = {"unet": "unet", "te1": "text_encoder", "te2": "text_encoder_2"}  # by the tables' names


@pytest.fixture(scope="module")
def table():
    return read("sd15")


def read(family):
    return json.loads((FIXTURES / f"{family}-keys.json").read_text())


def shapes(slots):
    return {name: slot.shape for name, slot in slots.items()}


def published(table, groups):
    """Kohya name -> base shape, from the independent table."""
    return {entry["kohya"]: tuple(entry["shape"]) for entry in table.values() if entry["group"] in groups}


def test_sd15s_key_table_is_the_published_one_name_for_name_and_shape_for_shape(table):
    ours = shapes(unet_slots(SD15_UNET, "attention_mlp"))
    assert len(ours) == 192
    assert ours == published(table, {"attn"})


def test_sd15s_text_encoder_table_is_the_published_one(table):
    ours = shapes(text_slots(SD15_TEXT, "attention_mlp"))
    assert len(ours) == 72
    assert ours == published(table, {"te"})


def test_sd2s_key_tables_are_the_published_ones():
    unet, text = unet_slots(SD2_UNET, "attention_mlp"), text_slots(SD2_TEXT, "attention_mlp")
    assert (len(unet), len(text)) == (192, 138)
    assert shapes(unet) == published(read("sd2"), {"attn"})
    assert shapes(text) == published(read("sd2"), {"te"})


def test_sdxls_key_tables_are_the_published_ones_in_its_original_spelling():
    unet = unet_slots(SDXL_UNET, "attention_mlp", sgm=True)
    texts = [text_slots(config, "attention_mlp", part, TWO_ENCODERS[part]) for part, config in SDXL_TEXTS.items()]
    assert (len(unet), *map(len, texts)) == (722, 72, 192)
    assert shapes(unet) == published(read("sdxl"), {"attn"})
    assert shapes(texts[0] | texts[1]) == published(read("sdxl"), {"te"})
    for part, slots in zip(SDXL_TEXTS, texts, strict=True):
        assert {slot.component for slot in slots.values()} == {part}


def test_attention_alone_is_the_part_of_the_table_that_holds_attention_projections(table):
    wanted = {name for name in published(table, {"attn"}) if "_attn1_" in name or "_attn2_" in name}
    assert set(unet_slots(SD15_UNET, "attention")) == wanted
    assert len(wanted) == 128
    assert set(text_slots(SD15_TEXT, "attention")) == {n for n in published(table, {"te"}) if "self_attn" in n}


def test_linear_projections_are_two_dimensional():
    slots = unet_slots({**SD15_UNET, "use_linear_projection": True}, "attention_mlp")
    assert slots["lora_unet_mid_block_attentions_0_proj_in"].shape == (1280, 1280)


@pytest.mark.parametrize("family", ["sd15", "sd2"])
def test_every_published_path_maps_to_its_kohya_name(family):
    for path, entry in read(family).items():
        part, rest = path.split(".", 1)
        assert kohya_name(COMPONENTS[part], rest) == entry["kohya"]


def test_every_published_path_of_sdxl_that_learns_maps_to_its_original_name():
    for path, entry in read("sdxl").items():
        part, rest = path.split(".", 1)
        spelled = sgm_path(rest, 2) if part == "unet" else rest
        if entry["group"] == "attn":
            assert spelled == entry["ldm"]
        if entry["group"] in ("attn", "te"):
            assert kohya_name(COMPONENTS[part], spelled, TWO_ENCODERS) == entry["kohya"]


@pytest.mark.parametrize("path", ["encoder.layers.3.mlp.fc1", "text_model.encoder.layers.3.mlp.fc1"])
def test_the_text_encoders_name_does_not_depend_on_the_installed_transformers(path):
    assert kohya_name("text_encoder", path) == "lora_te_text_model_encoder_layers_3_mlp_fc1"


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_names_are_a_bijection(family):
    names = [entry["kohya"] for entry in read(family).values()]
    assert len(set(names)) == len(names)


@pytest.mark.skipif(not (POCKET / "unet").exists(), reason="the built-in model is not built yet")
def test_pockets_key_table_is_the_committed_one():
    unet = json.loads((POCKET / "unet" / "config.json").read_text())
    text = json.loads((POCKET / "text_encoder" / "config.json").read_text())
    ours = unet_slots(unet, "attention_mlp") | text_slots(text, "attention_mlp")
    committed = json.loads((FIXTURES / "pocket-keys.json").read_text())
    assert {name: list(slot.shape) for name, slot in ours.items()} == committed
