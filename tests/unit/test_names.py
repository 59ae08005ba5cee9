import json
from pathlib import Path

import pytest

from trainer.contract.home import POCKET
from trainer.families.names import kohya_name, text_slots, unet_slots

FIXTURES = Path(__file__).parents[1] / "fixtures"
SD15_UNET = {
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "cross_attention_dim": 768,
}
SD15_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}


@pytest.fixture(scope="module")
def table():
    return json.loads((FIXTURES / "sd15-keys.json").read_text())


def published(table, groups):
    """Kohya name -> base shape, from the independent table."""
    return {entry["kohya"]: tuple(entry["shape"]) for entry in table.values() if entry["group"] in groups}


def test_sd15s_key_table_is_the_published_one_name_for_name_and_shape_for_shape(table):
    ours = {name: slot.shape for name, slot in unet_slots(SD15_UNET, "attention_mlp").items()}
    assert len(ours) == 192
    assert ours == published(table, {"attn"})


def test_sd15s_text_encoder_table_is_the_published_one(table):
    ours = {name: slot.shape for name, slot in text_slots(SD15_TEXT, "attention_mlp").items()}
    assert len(ours) == 72
    assert ours == published(table, {"te"})


def test_attention_alone_is_the_part_of_the_table_that_holds_attention_projections(table):
    wanted = {name for name in published(table, {"attn"}) if "_attn1_" in name or "_attn2_" in name}
    assert set(unet_slots(SD15_UNET, "attention")) == wanted
    assert len(wanted) == 128
    assert set(text_slots(SD15_TEXT, "attention")) == {n for n in published(table, {"te"}) if "self_attn" in n}


def test_linear_projections_are_two_dimensional():
    slots = unet_slots({**SD15_UNET, "use_linear_projection": True}, "attention_mlp")
    assert slots["lora_unet_mid_block_attentions_0_proj_in"].shape == (1280, 1280)


def test_every_published_path_maps_to_its_kohya_name(table):
    for path, entry in table.items():
        component, rest = path.split(".", 1)
        assert kohya_name("unet" if component == "unet" else "text_encoder", rest) == entry["kohya"]


@pytest.mark.parametrize("path", ["encoder.layers.3.mlp.fc1", "text_model.encoder.layers.3.mlp.fc1"])
def test_the_text_encoders_name_does_not_depend_on_the_installed_transformers(path):
    assert kohya_name("text_encoder", path) == "lora_te_text_model_encoder_layers_3_mlp_fc1"


def test_names_are_a_bijection(table):
    names = [entry["kohya"] for entry in table.values()]
    assert len(set(names)) == len(names)


@pytest.mark.skipif(not (POCKET / "unet").exists(), reason="the built-in model is not built yet")
def test_pockets_key_table_is_the_committed_one():
    unet = json.loads((POCKET / "unet" / "config.json").read_text())
    text = json.loads((POCKET / "text_encoder" / "config.json").read_text())
    ours = unet_slots(unet, "attention_mlp") | text_slots(text, "attention_mlp")
    committed = json.loads((FIXTURES / "pocket-keys.json").read_text())
    assert {name: list(slot.shape) for name, slot in ours.items()} == committed
