"""`python -m trainer.engine.strength_strip RUN FILE`: one LoRA file's strength strip; errors exit with code 2.

A training generates the strip of its last file itself; this makes one for any other file on request.
"""

import sys
from pathlib import Path
from typing import Any

from trainer.contract import stops
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home
from trainer.contract.wording import for_console, setting
from trainer.engine.adapters.lora_file import put_into
from trainer.engine.data.cache import TensorCache
from trainer.engine.device import make_accelerator
from trainer.engine.families.load import load_family
from trainer.engine.prepare import add_adapter, learn_text
from trainer.engine.previews import Renderer, render_strip
from trainer.models.errors import LoraRefused
from trainer.models.lora_layers import read_lora
from trainer.planning.preview_schedule import preview_prompts
from trainer.runs.errors import RunError
from trainer.runs.folder import RunFolder
from trainer.runs.sheets import strip_name


def main(arguments: list[str]) -> int:
    """Generate the strip; 0 when it is there, 2 when there is a reason why not, 130 if it was ended."""
    folder, file = arguments
    try:
        stops.interrupt_once()  # so that no half-written file stays
        generate(RunFolder.find(Home.find(), folder), file)
    except TrainerError as error:
        print(for_console(f"{error.message} {error.hint}"), file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return stops.ENDED_BY_SIGNAL
    return 0


def generate(run: RunFolder, file: str) -> None:
    """Write the strip of a LoRA file beside it; nothing else in the run's folder changes.

    Raises:
        TrainerError: The file is not the run's or does not fit it, there is no prompt, or the base model is gone.
    """
    path = lora_file(run, file)
    config = run.config()
    # The prompts of earlier previews, rather than today's captions: the images may have changed or moved
    prompts = preview_prompts(config, [sample.prompt for sample in run.view().samples])
    if not prompts:
        raise RunError(
            f'The run "{run.path.name}" has no previews, so there is no prompt to generate.',
            hint=f"Start a run with {setting('preview.prompts')}.",
        )
    accelerator, dtype = make_accelerator(config.model)
    family = load_family(config, accelerator.device, dtype)
    cache = TensorCache(run.home.cache / family.spec.name)
    text = learn_text(family, config, prompts, dtype=dtype, cache=cache, progress=lambda _done, _total: None)
    adapter = add_adapter(family, config)
    unet: Any = family.component("unet")
    lacking = put_into(adapter, read_lora(path, unet.config.layers_per_block), family.kohya_name)
    if lacking:
        raise LoraRefused(path, f"lacks {len(lacking)} of the run's layers, first {lacking[0]}")
    adapter.use_dropout(wanted=False)
    renderer = Renderer(config, family, text, prompts, accelerator)
    render_strip(renderer, adapter, run.path / strip_name(file), lambda _done, _total: True)


def lora_file(run: RunFolder, file: str) -> Path:
    """The path of one of the run's LoRA files by its plain name.

    Raises:
        RunError: There is none of that name, or it lies elsewhere.
    """
    if Path(file).name != file or not file.endswith(".safetensors") or not run.inside(file).is_file():
        raise RunError(
            f'The run "{run.path.name}" has no LoRA file called "{file}".',
            hint="Choose one of the .safetensors files that lie in the run's folder.",
        )
    return run.inside(file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
