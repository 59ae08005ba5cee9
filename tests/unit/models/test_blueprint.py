"""The list of tensors that a part must hold is what the libraries themselves build."""

import json

import originals
import pytest

from trainer.contract.home import POCKET
from trainer.models import blueprint
from trainer.models.headers import read_header


def built(config):
    """A library's configuration as it lies in a folder."""
    return json.loads(json.dumps(dict(config), default=str))


@pytest.mark.parametrize("tiny", [True, False], ids=["tiny", "full"])
@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_in_folders(family, tiny):
    parts = originals.bare_parts(family, tiny)
    assert blueprint.unet(built(parts["unet"].config)) == parts["unet"].state_dict().keys()
    assert blueprint.vae(built(parts["vae"].config)) == parts["vae"].state_dict().keys()
    for name in parts.keys() - {"unet", "vae"}:
        wanted = {key.removeprefix("text_model.") for key in blueprint.clip(parts[name].config.num_hidden_layers)}
        theirs = {key.removeprefix("text_model.") for key in parts[name].state_dict()} - {"text_projection.weight"}
        assert wanted == theirs


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_in_files(family):
    parts = originals.bare_parts(family, tiny=False)
    names = originals.original(family, parts).keys()
    unet = blueprint.unet_in_original(blueprint.unet(built(parts["unet"].config)))
    vae = blueprint.vae_in_original(blueprint.vae(built(parts["vae"].config)))
    assert {f"model.diffusion_model.{name}" for name in unet} == {n for n in names if n.startswith("model.diff")}
    assert {f"first_stage_model.{name}" for name in vae} == {n for n in names if n.startswith("first_stage")}


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_in_the_built_in_model(part):
    names = {name for file in (POCKET / part).glob("*.safetensors") for name in read_header(file).tensors}
    wanted = getattr(blueprint, part)(json.loads((POCKET / part / "config.json").read_text()))
    assert wanted <= names
    assert {name.split(".")[0] for name in names - wanted} <= {"add_embedding"}  # of its own kind


@pytest.mark.parametrize("part", ["unet", "vae"])
@pytest.mark.parametrize(
    "config",
    [
        {"down_block_types": ["SimpleCrossAttnDownBlock2D"]},
        {"down_block_types": 5},
        {"up_block_types": [["UpBlock2D"]]},
        {"layers_per_block": "two"},
        {"layers_per_block": -1},
        {"layers_per_block": 10**9},  # it would never end
    ],
)
def test_other_builds_and_damaged_configurations_are_not_judged(part, config):
    assert getattr(blueprint, part)(config) is None
