"""`python -m trainer.strength RUN FILE`: the strength strip of one of the run's LoRA files; errors exit with code 2.

A trainer draws the strip of its last file itself; this is for the others, whenever somebody asks.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from trainer.adapters import Adapter
from trainer.assembly import add_adapter, learn_text
from trainer.contract.errors import RunError, TrainerError
from trainer.contract.home import Home
from trainer.contract.runs import RunFolder
from trainer.contract.sheets import strip_name
from trainer.data.cache import TensorCache
from trainer.device import make_accelerator
from trainer.export import LEAVES
from trainer.families.load import load_family
from trainer.previews import Painter, paint_strip, preview_prompts

CHOOSE = "Choose one of the .safetensors files that lie in the run's folder."


def main(arguments: list[str]) -> int:
    """Draw the strip; 0 when it is there, 2 when there is a reason why not."""
    folder, file = arguments
    try:
        draw(RunFolder.find(Home.find(), folder), file)
    except TrainerError as error:
        print(f"{error.message} {error.hint}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


def draw(run: RunFolder, file: str) -> None:
    """Write the strip of a LoRA file beside it; nothing else in the run's folder changes.

    Raises:
        TrainerError: The file is not the run's or does not fit it, there is no prompt, or the base model is gone.
    """
    path = lora_file(run, file)
    config = run.config()
    # What was drawn before, rather than today's captions: the pictures may have changed or moved
    prompts = preview_prompts(config, [sample.prompt for sample in run.view().samples])
    if not prompts:
        raise RunError(
            f'The run "{run.path.name}" has no previews, so there is no prompt to draw.',
            hint="Start a run that has --preview.prompts.",
        )
    accelerator, dtype = make_accelerator(config.model)
    family = load_family(config.model, accelerator.device, dtype)
    cache = TensorCache(run.home.cache / family.spec.name)
    text = learn_text(family, config, prompts, dtype=dtype, cache=cache, progress=lambda _done, _total: None)
    adapter = add_adapter(family, config)
    put_into(adapter, path)
    adapter.use_dropout(wanted=False)
    painter = Painter(config, family, text, prompts, accelerator)
    paint_strip(painter, adapter, run.path / strip_name(file), lambda _done, _total: True)


def lora_file(run: RunFolder, file: str) -> Path:
    """The path of one of the run's LoRA files by its plain name.

    Raises:
        RunError: There is none of that name, or it lies elsewhere.
    """
    if Path(file).name != file or not file.endswith(".safetensors") or not run.inside(file).is_file():
        raise RunError(f'The run "{run.path.name}" has no LoRA file called "{file}".', hint=CHOOSE)
    return run.inside(file)


@torch.no_grad()
def put_into(adapter: Adapter, path: Path) -> None:
    """Give the adapter a LoRA file's weights, so that its updates are those that a client computes from the file.

    Raises:
        RunError: It is no LoRA file, or one of other layers or another rank.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path.name} cannot be read: {error}.", hint=CHOOSE) from error
    odd = sorted(tensors.keys() ^ {f"{name}.{leaf}" for name in adapter.layers for leaf in LEAVES})
    if odd:
        raise RunError(f"{path.name} has other layers than the run: {len(odd)} differ, first {odd[0]}.", hint=CHOOSE)
    for name, live in adapter.layers.items():
        alpha, down, up = (tensors[f"{name}.{leaf}"] for leaf in LEAVES)
        if (down.shape, up.shape) != (live.down.shape, live.up.shape):
            seen, wanted = tuple(down.shape), tuple(live.down.shape)
            raise RunError(f"{path.name} does not fit the run: {name} is {seen}, not {wanted}.", hint=CHOOSE)
        live.down.copy_(down)
        live.up.copy_(up.float() * (float(alpha) / down.shape[0] / live.scaling))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
