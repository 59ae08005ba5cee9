"""A graphics card trains single files in every precision: run by hand with -m gpu."""

import math
import re

import numpy as np
import originals
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file

from trainer.contract import process
from trainer.contract.events import RunStarted, Step, read_events
from trainer.contract.home import Home
from trainer.contract.runs import RunFolder
from trainer.contract.settings import validated

DEVICE = "cuda"
LAYERS = {"sd15": 192 + 72, "sdxl": 722 + 72 + 192}
PARTS = {"sd15": {"unet", "te"}, "sdxl": {"unet", "te1", "te2"}}
PRECISIONS = ("fp32", "bf16", "fp16")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics card"),
    pytest.mark.parametrize("name", LAYERS),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Finished runs of 3 steps, each made when it is first asked for."""
    folder = tmp_path_factory.mktemp("gpu")
    images = tiny.pictures(folder / "pictures", count=4)
    files = {name: originals.write_file(folder / f"{name}.safetensors", name) for name in LAYERS}
    runs = {}

    def run_of(name, precision):
        if (name, precision) not in runs:
            run = RunFolder.create(Home(folder / "home"), settings(files[name], images, name, precision))
            code = process.start(run).wait()  # a fork cannot use the card
            assert code == 0, run.log_file.read_text()[-2000:]
            runs[name, precision] = run
        return runs[name, precision]

    return run_of


def settings(file, images, name, precision):
    return validated(
        {
            "model": {"base_model": str(file), "precision": precision, "device": DEVICE},
            "dataset": {
                "images": str(images),
                "max_total_views": 12,
                "batch_size": 2,
                "accumulation": 2,
                "resolution": 64,
            },
            "adapter": {"rank": 4, "alpha": 2.0, "text_encoder": True, "text_encoder_2": name == "sdxl"},
            "preview": {"steps": 4, "prompts": ["ball number"], "every": 999},
            "output": {"name": f"{name}-{precision}", "files": 1, "checkpoint_every": 999},
        }
    )


def events(run, kind):
    return [event for event in read_events(run.events_file)[0] if isinstance(event, kind)]


def losses(run):
    return [event.loss for event in events(run, Step)]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_card_trains_a_single_file_to_a_proved_lora(trained, name, precision):
    run = trained(name, precision)
    assert events(run, RunStarted)[0].device == f"{DEVICE} {precision}"
    assert len(losses(run)) == 3
    assert all(math.isfinite(loss) for loss in losses(run))
    # Export has read the file back and compared it with what was trained, or the run would have failed
    tensors = load_file(run.path / f"{name}-{precision}.safetensors")
    assert len(tensors) == 3 * LAYERS[name]
    learnt = [key for key, tensor in tensors.items() if key.endswith("lora_up.weight") and tensor.any()]
    assert {re.match(r"lora_(unet|te\d?)", key)[1] for key in learnt} == PARTS[name]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_previews_are_pictures(trained, name, precision):
    run = trained(name, precision)
    samples = sorted(run.samples.glob("*.png"))
    assert [path.name for path in samples] == ["000000-0.png", "000003-0.png"]
    for path in samples:
        with Image.open(path) as picture:
            seen = np.asarray(picture.convert("RGB"), dtype=np.float64)
        assert seen.std() > 5
        assert 5 < seen.mean() < 250


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_begins_with_the_loss_of_float32(trained, name, precision):
    assert losses(trained(name, precision))[0] == pytest.approx(losses(trained(name, "fp32"))[0], rel=0.02)
