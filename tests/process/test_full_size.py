"""Stable Diffusion 1.5 at its real size with random weights: `launch.py test -m slow` (5 GB of disk, minutes)."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from trainer.contract import process

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.mark.slow
def test_a_full_size_base_trains_and_its_file_has_every_published_key(new_run, tmp_path_factory):
    import tiny

    base = tiny.full_size(tmp_path_factory.mktemp("sd15") / "sd15 random")
    run = new_run(
        model={"base_model": str(base), "precision": "bf16", "gradient_checkpointing": True},
        dataset={"views": 1, "resolution": 256, "batch_size": 1},
        adapter={"rank": 4, "text_encoder": True},
        preview={"steps": 1, "prompts": ["ball"]},
        output={"name": "full", "files": 1, "checkpoint_every": 1000},
    )
    assert process.start(run).wait() == 0
    table = json.loads((FIXTURES / "sd15-keys.json").read_text())
    names = {entry["kohya"] for entry in table.values() if entry["group"] in ("attn", "te")}
    with safe_open(run.path / "full.safetensors", "pt") as file:
        assert {key.split(".")[0] for key in file.keys()} == names  # noqa: SIM118 - a file handle, not a dict
        assert len(list(file.keys())) == 792
        assert file.metadata()["ss_base_model_version"] == "sd_v1"
        assert file.metadata()["modelspec.architecture"] == "stable-diffusion-v1/lora"


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_graphics_card_trains_in_every_precision(new_run, precision):
    run = new_run(model={"device": "cuda", "precision": precision}, dataset={"views": 20})
    assert process.start(run).wait() == 0
    assert run.status() == "completed"
