"""The exported file in another reader: stock diffusers draws what the trainer previewed."""

import numpy as np
import pytest
import torch
import warm
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

STEPS, SEED = 8, 77


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def trained(request, tmp_path_factory, tiny_model, images):
    from trainer.contract.home import Home
    from trainer.contract.settings.config import validated
    from trainer.runs.folder import RunFolder

    config = validated(
        {
            "model": {"base_model": str(tiny_model), "precision": request.param, "device": "cpu"},
            "dataset": {"images": str(images), "views": 16, "batch_size": 2, "resolution": 64},
            "adapter": {"rank": 8, "alpha": 4.0, "text_encoder": True},
            "optimizer": {"learning_rate": 0.02, "text_learning_rate": 0.01},
            "preview": {"steps": STEPS, "seed": SEED, "prompts": ["ball number"], "guidance_scale": 3.0},
            "output": {"name": "parity", "files": 1, "dtype": "fp32"},
        }
    )
    run = RunFolder.create(Home(tmp_path_factory.mktemp("home")), config)
    assert warm.start(run).wait() == 0
    return run


def draw(tiny_model, lora_file):
    """The preview's prompt and seed by the stock pipeline, (64, 64, 3) float."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    if lora_file:
        pipeline.load_lora_weights(lora_file.parent, weight_name=lora_file.name)
    generator = torch.Generator().manual_seed(SEED)
    made = pipeline(
        "ball number", guidance_scale=3.0, num_inference_steps=STEPS, width=64, height=64, generator=generator
    )
    return np.asarray(made.images[0], dtype=np.float64)


def test_the_stock_pipeline_draws_the_trainers_preview(trained, tiny_model, tmp_path):
    file = trained.path / "parity.safetensors"
    with Image.open(max(trained.samples.glob("*-0.png"))) as image:
        preview = np.asarray(image.convert("RGB"), dtype=np.float64)
    doubled = tmp_path / "doubled.safetensors"
    tensors = load_file(file)
    save_file({n: t * 2 if n.endswith(".alpha") else t for n, t in tensors.items()}, doubled)

    same = np.abs(draw(tiny_model, file) - preview).mean()
    without = np.abs(draw(tiny_model, None) - preview).mean()
    twice = np.abs(draw(tiny_model, doubled) - preview).mean()
    assert same <= 2
    assert without >= 5 * max(same, 0.2)
    assert twice >= 5 * max(same, 0.2)
