"""Base models in one file, trained by real processes: what comes out fits the stock pipelines; nothing is fetched."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import originals
import pytest
import tiny
import torch
import warm
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from peft.tuners.lora import LoraLayer
from PIL import Image
from safetensors import safe_open

from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.engine.families.parts import clip_tokenizer
from trainer.runs.folder import RunFolder

CHECKOUT = Path(__file__).parents[2]
STEPS, SEED = 2, 77
MARKS = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
# What each single file tells of itself, how such models are drawn as published, and how many layers learn
FILES = {"sd15": {}, "sd2": {"metadata": {"modelspec.prediction_type": "v"}}, "sdxl": {"extra": MARKS}}
VELOCITY = {"prediction_type": "v_prediction"}
SCHEDULERS = {
    "sd15": PNDMScheduler(**originals.NOISE, skip_prk_steps=True, steps_offset=1),
    "sd2": DDIMScheduler(**originals.NOISE, **VELOCITY, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    "sdxl": EulerDiscreteScheduler(
        **originals.NOISE, **VELOCITY, rescale_betas_zero_snr=True, timestep_spacing="trailing"
    ),
}
LAYERS = {"sd15": 192 + 72, "sd2": 192 + 138, "sdxl": 722 + 72 + 192}
# Trains without a way out and writes down who looks for one; in the end it does so itself, or this would prove nothing
GUARDED = """
import socket, sys
from contextlib import suppress

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"):
        with open(sys.argv[2], "a") as file:
            print(event, arguments[0], file=file)
        raise OSError("there is no network")

sys.addaudithook(refuse)
from trainer.__main__ import main

code = main([sys.argv[1]])
with suppress(OSError):
    socket.create_connection(("our.own.try", 80))
sys.exit(code)
"""


def train_without_network(run, tries):
    """Train in a process of its own that has no network, as far as the system lets us take it away."""
    alone = ["unshare", "--map-root-user", "--net"]
    may = shutil.which("unshare") and subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0
    command = [*(alone if may else []), sys.executable, "-c", GUARDED, str(run.path), str(tries)]
    told = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    surroundings = {**told, "HF_HOME": str(tries.parent / "nothing here"), "OMP_NUM_THREADS": "1"}
    with run.log_file.open("wb") as log:
        return subprocess.run(command, cwd=CHECKOUT, env=surroundings, stdout=log, stderr=log, check=False).returncode


def settings(name, file, images):
    return validated(
        {
            "model": {"base_model": str(file), "precision": "fp32", "device": "cpu"},
            "dataset": {
                "images": str(images),
                "views": 1,
                "batch_size": 2,
                "resolution": 64,
                "flip": True,
                "caption_dropout": 0.3,
            },
            "adapter": {"rank": 4, "alpha": 2.0, "text_encoder": True, "text_encoder_2": name == "sdxl"},
            "optimizer": {"learning_rate": 0.02, "text_learning_rate": 0.01, "lr_scheduler": "constant", "warmup": 0.0},
            "objective": {"keep_uncaptioned": True},
            "preview": {"steps": STEPS, "seed": SEED, "prompts": ["ball number"], "guidance_scale": 3.0, "every": 999},
            "output": {"name": "lora", "files": 1, "dtype": "fp32", "checkpoint_every": 999},
        }
    )


@pytest.fixture(scope="module", params=FILES)
def trained(request, tmp_path_factory):
    """A finished run on a tiny single file; SDXL's without a network."""
    name, folder = request.param, tmp_path_factory.mktemp("base")
    file = originals.write_file(folder / f"{name}.safetensors", name, **FILES[name])
    images = tiny.images(folder / "pictures", count=3, size=(101, 67))
    run = RunFolder.create(Home(folder / "home"), settings(name, file, images))
    tries = folder / "tries.txt"
    code = train_without_network(run, tries) if name == "sdxl" else warm.start(run).wait()
    assert code == 0, run.log_file.read_text()[-2000:]
    return SimpleNamespace(name=name, file=file, run=run, lora=run.path / "lora.safetensors", tries=tries)


def stock_pipeline(trained, folder):
    """The stock reader of single files, which is told the architecture by a folder's configurations."""
    pads = {"sd15": ["<|endoftext|>"], "sd2": ["!"], "sdxl": ["<|endoftext|>", "!"]}[trained.name]
    words = {f"tokenizer{'_2' if number else ''}": clip_tokenizer(pad) for number, pad in enumerate(pads)}
    config = originals.write_folder(folder / "config", trained.name, tokenizers=words)
    kind = StableDiffusionXLPipeline if trained.name == "sdxl" else StableDiffusionPipeline
    made = kind.from_single_file(str(trained.file), config=str(config), local_files_only=True)
    made.to(torch.float32)  # half of a text encoder stays as the file has it otherwise
    made.scheduler = SCHEDULERS[trained.name]
    made.set_progress_bar_config(disable=True)
    return made


def draw(pipeline):
    """The run's preview as the stock pipeline draws it, (64, 64, 3) float."""
    zero_snr = bool(pipeline.scheduler.config.get("rescale_betas_zero_snr"))
    made = pipeline(
        "ball number",
        negative_prompt="",
        guidance_scale=3.0,
        guidance_rescale=0.7 if zero_snr else 0.0,
        num_inference_steps=STEPS,
        width=64,
        height=64,
        generator=torch.Generator().manual_seed(SEED),
    )
    return np.asarray(made.images[0], dtype=np.float64)


def preview(trained, which):
    with Image.open(which(trained.run.samples.glob("*-0.png"))) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers' Euler makes arrays of tensors
def test_the_stock_pipeline_reads_file_and_lora_and_draws_the_trainers_previews(trained, tmp_path):
    pipeline = stock_pipeline(trained, tmp_path)
    before = draw(pipeline)
    pipeline.load_lora_weights(trained.lora.parent, weight_name=trained.lora.name)
    after = draw(pipeline)

    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    loaded = [layer for part in parts for layer in part.modules() if isinstance(layer, LoraLayer)]
    assert len(loaded) == LAYERS[trained.name]
    assert {scale for layer in loaded for scale in layer.scaling.values()} == {0.5}
    same = max(np.abs(before - preview(trained, min)).mean(), np.abs(after - preview(trained, max)).mean())
    assert same <= 1
    assert np.abs(after - before).mean() >= 5 * max(same, 0.2)
    assert before.std() > 5


def test_the_file_tells_what_its_base_model_is(trained):
    with safe_open(trained.lora, "pt") as file:
        told = file.metadata()
        assert len(list(file.keys())) == 3 * LAYERS[trained.name]
    velocity = trained.name != "sd15"
    assert told["modelspec.prediction_type"] == ("v" if velocity else "epsilon")
    assert told["ss_zero_terminal_snr"] == str(trained.name == "sdxl")
    # Published builds have labels that clients know; none of them shall take a tiny one's LoRA for theirs
    assert told["ss_base_model_version"] == f"atelier_{trained.name}"
    assert told["modelspec.architecture"] == f"atelier-{trained.name}/lora"
    assert (told["ss_v2"], told["ss_sd_model_name"]) == ("False", f"{trained.name}.safetensors")
    assert trained.run.status() == "completed"


@pytest.mark.parametrize("trained", ["sdxl"], indirect=True)
def test_a_training_from_a_single_file_never_asks_the_network(trained):
    assert trained.tries.read_text().splitlines() == ["socket.getaddrinfo our.own.try"]
