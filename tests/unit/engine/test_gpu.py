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
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainer.contract.events import RunStarted, Sample, Step, read_events
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.engine.frozen.streaming import StreamedWeight, blocks_of, stream
from trainer.runs import process
from trainer.runs.folder import RunFolder

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
    images = tiny.images(folder / "pictures", count=4)
    files = {name: originals.write_file(folder / f"{name}.safetensors", name) for name in LAYERS}
    runs = {}

    def run_of(name, precision, stream="off"):
        if (name, precision, stream) not in runs:
            run = RunFolder.create(Home(folder / "home"), settings(files[name], images, name, precision, stream))
            code = process.start(run).wait()  # a fork cannot use the card
            assert code == 0, run.log_file.read_text()[-2000:]
            runs[name, precision, stream] = run
        return runs[name, precision, stream]

    return run_of


def settings(file, images, name, precision, stream):
    return validated(
        {
            "model": {"base_model": str(file), "precision": precision, "device": DEVICE, "offload": stream},
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
def test_previews_are_images(trained, name, precision):
    run = trained(name, precision)
    samples = sorted(run.samples.glob("*.png"))
    assert [path.name for path in samples] == ["000000-0.png", "000003-0.png"]
    for path in samples:
        with Image.open(path) as image:
            seen = np.asarray(image.convert("RGB"), dtype=np.float64)
        assert seen.std() > 5
        assert 5 < seen.mean() < 250


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_begins_with_the_loss_of_float32(trained, name, precision):
    assert losses(trained(name, precision))[0] == pytest.approx(losses(trained(name, "fp32"))[0], rel=0.02)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_streamed_base_begins_with_the_same_loss_and_learns_the_same(trained, name, precision):
    streamed, plain = (losses(trained(name, precision, stream)) for stream in ("on", "off"))
    assert streamed[0] == plain[0]
    assert streamed == pytest.approx(plain, rel=1e-3)  # kernels of the backward pass may add up in any order
    assert events(trained(name, precision, "on"), Sample)


class Whole:
    """A UNet of the published size with random weights, on the card in bfloat16, and what it is asked."""

    def __init__(self, name):
        torch.manual_seed(0)
        bare = originals.bare_parts(name, tiny=False)["unet"].to(torch.bfloat16).to_empty(device=DEVICE)
        self.unet = bare.requires_grad_(requires_grad=False).eval()
        for weight in self.unet.parameters():
            weight.fill_(1.0) if weight.ndim == 1 else weight.normal_(0.0, weight[0].numel() ** -0.5)
        config = self.unet.config
        self.states = torch.randn(1, 77, config.cross_attention_dim, device=DEVICE, dtype=torch.bfloat16)
        pooled = (config.projection_class_embeddings_input_dim or 6 * 256) - 6 * 256
        self.added = {
            "text_embeds": torch.randn(1, pooled, device=DEVICE, dtype=torch.bfloat16),
            "time_ids": torch.full((1, 6), 512, device=DEVICE),
        }

    def answers(self, seed):
        """The prediction, and its gradient for what went in."""
        rng = torch.Generator(DEVICE).manual_seed(seed)
        noisy = torch.randn(1, 4, 32, 32, device=DEVICE, dtype=torch.bfloat16, generator=rng).requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):  # other kernels' gradients differ from time to time
            made = self.unet(noisy, 500, self.states, added_cond_kwargs=self.added, return_dict=False)[0]
            return made.detach(), *torch.autograd.grad(made.float().square().mean(), noisy)


def test_a_whole_unet_streamed_answers_the_same_to_the_bit_with_little_of_the_card_s_memory(name, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    whole = Whole(name)
    whole.unet.to(memory_format=torch.channels_last)
    expected = [whole.answers(seed) for seed in range(5)]
    before = torch.cuda.memory_allocated()
    stream(blocks_of(whole.unet), torch.device(DEVICE))
    torch.cuda.empty_cache()
    weights = [weight for weight in whole.unet.parameters() if isinstance(weight, StreamedWeight)]
    assert all(weight.block.room.is_pinned() for weight in weights)
    given_up = sum(len(block.room) for block in {weight.block for weight in weights})
    buffers = sum(len(slot.room) for slot in weights[0].block.buffers.slots)
    assert before - torch.cuda.memory_allocated() == pytest.approx(given_up - buffers, rel=0.01)
    for _ in range(4):  # copies that come too late or too early would show now and then only
        for seed, answers in enumerate(expected):
            assert all(map(torch.equal, whole.answers(seed), answers))
