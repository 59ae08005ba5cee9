"""Step time and peak memory against two plain diffusers loops, interleaved: `python tests/benchmarks/step.py`.

Ours: bf16 base, frozen convolutions packed, own LoRA function, what is cheap computed again. Plain, as a good first
loop has it: `unet.add_adapter` and bf16 autocast over a base in bf16 (a) or float32 (b), nothing checkpointed. All are
given the same latents and text states, so only the step is compared. Each runs in a process of its own, in turns; the
ratio of medians is what counts, machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from trainer.runs.process import MEMORY_KEPT, SAME_SUMS

SD15_UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
RANK = 16


def make_unet(which: str):
    """Full-size SD 1.5 with random weights, or pocket."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    if which == "pocket":
        return UNet2DConditionModel.from_pretrained(ROOT / "assets" / "pocket", subfolder="unet")
    return UNet2DConditionModel(**SD15_UNET)


def inputs(unet, seed: int, pixels: int):
    """One sample of this size; pocket has 4 px to a latent, others 8."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    side = pixels // (4 if unet.config.cross_attention_dim < 768 else 8)
    latents = torch.randn(1, unet.config.in_channels, side, side, generator=generator)
    states = torch.randn(1, 77, unet.config.cross_attention_dim, generator=generator)
    return latents, states


class Peak:
    """Largest amount of private memory, sampled 50 times a second from `start` on; `before` is the libraries' own."""

    def __init__(self) -> None:
        import accelerate  # noqa: F401
        import diffusers.models.unets.unet_2d_condition  # noqa: F401
        import peft  # noqa: F401

        self.kib, self.before = 0, _private_kib() / 2**20
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._sample, daemon=True)

    def start(self) -> None:
        """Begin: what the set-up needed for a moment does not count."""
        self._watch.start()

    def stop(self) -> float:
        """GiB."""
        self._done.set()
        self._watch.join()
        return self.kib / 2**20

    def _sample(self) -> None:
        while not self._done.wait(0.02):
            self.kib = max(self.kib, _private_kib())


def _private_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def plain(dtype: str, which: str, pixels: int, steps: int, peak: Peak) -> list[float]:
    """Seconds per step of the loop everybody writes first."""
    import torch
    from diffusers import DDPMScheduler
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    unet = make_unet(which).requires_grad_(False).to(getattr(torch, dtype))
    targets = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets))
    cast_training_params(unet)
    trained = [p for p in unet.parameters() if p.requires_grad]
    optimizer, noise_schedule = torch.optim.AdamW(trained, lr=1e-4), DDPMScheduler()
    seconds = []
    peak.start()
    for step in range(steps):
        latents, states = inputs(unet, step, pixels)
        since = time.perf_counter()
        noise, t = torch.randn_like(latents), torch.randint(1000, (1,))
        with torch.autocast("cpu", torch.bfloat16):
            noisy = noise_schedule.add_noise(latents, noise, t).to(unet.dtype)
            prediction = unet(noisy, t, states.to(unet.dtype)).sample
        torch.nn.functional.mse_loss(prediction.float(), noise).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - since)
    return seconds


def ours(_dtype: str, which: str, pixels: int, steps: int, peak: Peak) -> list[float]:
    """Seconds per step of `trainer.engine.loop.update` on the same sizes."""
    import torch
    from accelerate import Accelerator

    from trainer.contract.settings.learning import AdapterSettings, ObjectiveSettings, OptimizerSettings
    from trainer.engine.adapters.lora import attach
    from trainer.engine.families.base import Conditioning, NoiseSpec
    from trainer.engine.frozen.packing import lay_out
    from trainer.engine.objectives import Batch, make_schedule, sample_rng, training_loss
    from trainer.engine.optim import make_optimizer
    from trainer.engine.prepare import keep_less
    from trainer.models.lora_names import kohya_name, unet_slots

    unet = make_unet(which).requires_grad_(False).to(torch.bfloat16, memory_format=torch.channels_last).eval()

    class OnlyUnet:
        """The family protocol's part that a step needs."""

        def component(self, _name):
            return unet

        def lora_slots(self, targets, _text_encoder):
            return unet_slots(unet.config, targets)

        def kohya_name(self, component, path):
            return kohya_name(component, path)

        def predict(self, noisy, t, conditioning):
            return unet(noisy.contiguous(memory_format=torch.channels_last), t, conditioning.states, return_dict=False)[
                0
            ]

    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    family = OnlyUnet()
    adapter = attach(family, AdapterSettings(rank=RANK, alpha=RANK), seed=0)
    lay_out(unet)
    keep_less(family, adapter, 0.0, "none")
    optimizer = accelerator.prepare(make_optimizer(adapter, OptimizerSettings()))
    spec = NoiseSpec(1000, 0.00085, 0.012, "scaled_linear", "epsilon", zero_terminal_snr=False)
    schedule = make_schedule(spec, ObjectiveSettings())
    seconds = []
    peak.start()
    for step in range(steps):
        latents, states = inputs(unet, step, pixels)
        since = time.perf_counter()
        text, captioned = Conditioning(states.to(torch.bfloat16)), torch.zeros(1, dtype=torch.bool)
        batch = Batch(latents, torch.zeros_like(latents), text, captioned)
        with accelerator.autocast():
            loss = training_loss(family.predict, family.predict, batch, schedule, [sample_rng(0, step, 0)]).mean()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(adapter.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - since)
    return seconds


SIDES = {"ours": (ours, ""), "a": (plain, "bfloat16"), "b": (plain, "float32")}


def child(side: str, which: str, pixels: int, steps: int) -> None:
    """Run one side and print its figures."""
    peak = Peak()
    make, dtype = SIDES[side]
    seconds = make(dtype, which, pixels, steps, peak)
    whole = peak.stop()
    json.dump({"seconds": seconds[2:], "gib": whole - peak.before}, sys.stdout)


def measure(which: str, pixels: int, rounds: int, steps: int) -> None:
    """Run the sides in turns and print medians and ratios; memory is counted beyond what the libraries take."""
    figures: dict[str, list[dict]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side, made in figures.items():
            with tempfile.TemporaryFile("w+") as out:
                command = [sys.executable, __file__, "--child", side, "--model", which]
                command += ["--pixels", str(pixels), "--steps", str(steps)]
                as_trainers = MEMORY_KEPT | SAME_SUMS if side == "ours" else {}
                environment = {**os.environ, **as_trainers}
                subprocess.run(command, stdout=out, check=True, env=environment)
                out.seek(0)
                made.append(json.loads(out.read().splitlines()[-1]))
    seconds = {side: statistics.median(s for run in made for s in run["seconds"]) for side, made in figures.items()}
    gib = {side: statistics.median(run["gib"] for run in made) for side, made in figures.items()}
    sys.stdout.write(f"{which} {pixels} px: ours {seconds['ours']:.3f} s/step, {gib['ours']:.2f} GiB")
    for side in ("a", "b"):
        sys.stdout.write(
            f"; ({side}) {seconds[side]:.3f} s, {gib[side]:.2f} GiB: {seconds[side] / seconds['ours']:.2f}x as fast, "
            f"{gib['ours'] / gib[side]:.2f}x the memory"
        )
    sys.stdout.write("\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["sd15", "pocket"])
    parser.add_argument("--pixels", type=int)
    parser.add_argument("--child", choices=list(SIDES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.child, chosen.model, chosen.pixels, chosen.steps)
    else:
        for model, size in (("pocket", 64), ("sd15", 256), ("sd15", 512)):
            if chosen.model in (None, model) and chosen.pixels in (None, size):
                measure(model, size, chosen.rounds, chosen.steps)
