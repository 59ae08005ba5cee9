"""Base models at their real size with random weights: `launch.py test -m slow -n 0` (20 GB of disk).

Prints the figures that assets/docs/development/measured.md keeps; run with -s to see them.
"""

import gc
import json
import time
from pathlib import Path

import originals
import psutil
import pytest
import tiny
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from peak import Peak
from safetensors import safe_open

from trainer.contract.events import Phase, Step, read_events
from trainer.planning.estimate import foreseen
from trainer.planning.memory import details
from trainer.runs import process

FIXTURES = Path(__file__).parents[1] / "fixtures"
TENSORS = {"sd15": 792, "sd2": 990, "sdxl": 2958}
LABELS = {
    "sd15": ("sd_v1", "stable-diffusion-v1/lora"),
    "sd2": ("sd_v2", "stable-diffusion-v2-512/lora"),
    "sdxl": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
}
MOST_GIB = {"sd15": 6.0, "sd2": 7.0, "sdxl": 12.0}
LIBRARIES_GIB = 0.3


@pytest.fixture(scope="module", params=["sd15", "sd2", "sdxl"])
def base(request, tmp_path_factory):
    path = originals.write_file(
        tmp_path_factory.mktemp("full") / f"{request.param}.safetensors", request.param, tiny=False,
        metadata={"modelspec.prediction_type": "epsilon"},
    )  # fmt: skip
    yield request.param, path
    path.unlink()


def train(new_run, path, name, text, ready=False, resolution=512, limit=0.0):
    """A run of three steps, its most memory in GiB, seconds to its first step, and those of its steps.

    With `ready`, a trainer stands by with its libraries loaded, as it does while the page is open.
    """
    run = new_run(
        model={"base_model": str(path), "precision": "bf16", "memory_limit": limit},
        dataset={
            "images": str(tiny.images(path.parent / name, count=3)),
            "views": 1,
            "resolution": resolution,
            "batch_size": 1,
            "max_total_views": 3,
        },
        adapter={"rank": 16, "alpha": 8.0, **text},
        preview={"steps": 1, "prompts": ["ball"], "width": 128, "height": 128, "every": 1000},
        output={"name": name, "files": 1, "checkpoint_every": 1000},
    )
    if ready:
        process.stand_by()
        wait_until_idle(psutil.Process(process._ready[0].pid))
    began = time.time()
    peak = Peak(process.start(run))
    assert peak.wait() == 0, run.log_file.read_text()[-2000:]
    events = read_events(run.events_file)[0]
    first = next(event.t for event in events if isinstance(event, Phase) and event.name == "train") - began
    return run, peak.gib, first, [round(event.seconds, 2) for event in events if isinstance(event, Step)]


def wait_until_idle(trainer):
    """Until it has computed nothing for a second."""
    before = -1.0
    while (spent := trainer.cpu_times().user) > before:
        before = spent
        time.sleep(1.0)


@pytest.mark.slow
def test_a_full_size_file_trains_and_stock_diffusers_finds_every_layer_of_its_lora(base, new_run):
    """The text encoders learn too, so nothing of the text is looked up."""
    family, path = base
    run, gib, _, seconds = train(new_run, path, "all", {"text_encoder": True, "text_encoder_2": family == "sdxl"})
    tell(f"{family} 512 px bf16 batch 1, all text encoders trained: {gib:.2f} GiB at most; steps {seconds} s")
    file = run.path / "all.safetensors"
    with safe_open(file, "pt") as opened:
        assert len(list(opened.keys())) == TENSORS[family]
    pipeline = _bare_pipeline(family)
    pipeline.load_lora_weights(file)
    layers = [
        name
        for part in (pipeline.unet, pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None))
        if part is not None
        for name, module in part.named_modules()
        if hasattr(module, "lora_A") and len(module.lora_A)
    ]
    assert len(layers) * 3 == TENSORS[family]
    del pipeline
    gc.collect()


@pytest.mark.slow
def test_a_full_size_file_trains_in_little_memory_and_its_lora_has_every_published_key(base, new_run):
    """SDXL's text encoders put away, as its presets for small cards have it."""
    family, path = base
    text = {"text_encoder": family != "sdxl"}
    _, _, encoding, _ = train(new_run, path, "encoding", text)
    _, _, cold, _ = train(new_run, path, "cold", text)
    run, gib, warm, seconds = train(new_run, path, "full", text, ready=True)
    tell(
        f"{family} 512 px bf16 batch 1: {gib:.2f} GiB at most; ready for the first step after {warm:.1f} s by a "
        f"trainer that stands by, {cold:.1f} s by a new process, {encoding:.1f} s with none encoded; steps {seconds} s"
    )
    assert gib <= MOST_GIB[family]
    table = json.loads((FIXTURES / f"{family}-keys.json").read_text())
    groups = ("attn", "te") if text["text_encoder"] else ("attn",)
    with safe_open(run.path / "full.safetensors", "pt") as opened:
        assert {key.split(".")[0] for key in opened.keys()} == {  # noqa: SIM118 - a file handle, not a dict
            entry["kohya"] for entry in table.values() if entry["group"] in groups
        }
        assert opened.metadata()["ss_base_model_version"] == LABELS[family][0]
        assert opened.metadata()["modelspec.architecture"] == LABELS[family][1]


@pytest.mark.slow
@pytest.mark.parametrize("resolution", [512, 1024])
def test_sdxl_trains_within_6_gib(base, new_run, resolution):
    """With its previews at 128 px; what the libraries hold before anything is loaded does not count."""
    family, path = base
    if family != "sdxl":
        pytest.skip("the others take less")
    run, gib, _, seconds = train(
        new_run, path, f"small{resolution}", {"text_encoder": False}, resolution=resolution, limit=6.0
    )
    plan = foreseen(run.config())
    tell(f"sdxl {resolution} px, limit 6 GiB: {details(plan)}; {gib:.2f} GiB at most with libraries; steps {seconds} s")
    assert plan.fits
    assert gib <= 6.0 + LIBRARIES_GIB


def tell(figures):
    """For the documents; shown with -s."""
    print(f"\n{figures}")  # noqa: T201 - what this suite is for


def _bare_pipeline(family):
    """The family's stock pipeline at full size, without weights of its own: only names and shapes matter here."""
    parts = originals.bare_parts(family, tiny=False)
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    given = {name: part.to_empty(device="cpu").to(torch.bfloat16) for name, part in parts.items()}
    others = (
        {"tokenizer": None, "tokenizer_2": None}
        if family == "sdxl"
        else {
            "tokenizer": None,
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
    )
    return kind(**given, **others, scheduler=DDIMScheduler(clip_sample=False, steps_offset=1))
