"""A finished LoRA for others: a copy in a WebUI's LoRA folder, and a text for Civitai."""

import errno
import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path, PurePath

from trainer.contract.errors import ExportError
from trainer.contract.events import Lora
from trainer.contract.files import sync_folder
from trainer.contract.settings.config import TrainConfig
from trainer.models.errors import ModelError
from trainer.models.headers import read_header
from trainer.models.lora_names import trained_components
from trainer.runs.folder import RunFolder
from trainer.runs.told import digest_of, for_others, no_such_lora, tags_in

SIDECARS = (".json", ".preview.png")
TOP_TAGS = 20
ENCODERS = {"text_encoder": "text encoder", "text_encoder_2": "second text encoder"}
# What Civitai calls the base models, by how a LoRA file says it
BASES = {"sd_v1": "SD 1.5", "sd_v2": "SD 2.1", "sd_v2_v": "SD 2.1 768", "sdxl_base_v1-0": "SDXL 1.0"}


def copy_lora(run: RunFolder, file: str, folder: Path) -> Path:
    """Copy a LoRA file and its sidecars into a folder; returns the copy's path.

    Nothing is overwritten: the same file already there is the result, and where another one has the name, the copy
    is numbered ("ana-2.safetensors"), sidecars likewise. Files appear whole or not at all.

    Raises:
        ExportError: The run has no such file, or the folder cannot take it; nothing is left behind.
    """
    source = for_others(run, file)
    if not folder.is_dir():
        raise ExportError(f"There is no folder {folder}.", hint="Give the folder your WebUI reads LoRAs from.")
    beside = {ending: run.inside(PurePath(file).with_suffix(ending).name) for ending in SIDECARS}
    sources = {ending: path for ending, path in beside.items() if path.is_file()} | {".safetensors": source}
    try:
        target = _target(source, folder)
        if not target.exists():
            _place(sources, target)
    except OSError as error:
        raise _refused(folder, error) from error
    return target


def _target(source: Path, folder: Path) -> Path:
    """The first name that is free with all its sidecars, or under which this very file lies there already."""
    stems = (source.stem if number == 1 else f"{source.stem}-{number}" for number in count(1))
    return next(target for stem in stems if _fits(source, target := folder / f"{stem}{source.suffix}"))


def _fits(source: Path, target: Path) -> bool:
    if target.exists():
        return filecmp.cmp(source, target, shallow=False)
    return not any(target.with_suffix(ending).exists() for ending in SIDECARS)


def _place(sources: dict[str, Path], target: Path) -> None:
    """Copy files beside each other: first all under passing names, then each under its own, the LoRA last."""
    fresh: dict[str, Path] = {}
    try:
        for ending, source in sources.items():
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=".atelier-", suffix=".part")
            fresh[ending] = Path(name)
            with os.fdopen(handle, "wb") as copy, source.open("rb") as original:
                shutil.copyfileobj(original, copy, 2**20)
                copy.flush()
                os.fsync(copy.fileno())
            fresh[ending].chmod(0o644)  # mkstemp's 0600 would hide it from a WebUI of another user
        for ending, part in fresh.items():
            part.replace(target.with_suffix(ending))
    finally:
        for part in fresh.values():
            part.unlink(missing_ok=True)
    sync_folder(target.parent)


def _refused(folder: Path, error: OSError) -> ExportError:
    """Returns the system's refusal in plain words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ExportError(f"No space is left in {folder}.", hint="Free some, or choose a folder on another disk.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ExportError(f"{folder} cannot be written to.", hint="Choose another folder, or allow writing to it.")
    return ExportError(
        f"The LoRA could not be copied to {folder}: {error.strerror or error}.", hint="Choose another folder."
    )


def civitai_text(run: RunFolder, file: str) -> str:
    """Plain text to paste at Civitai: what the LoRA is, how to use it, how it was trained, its hashes.

    Raises:
        ExportError: The run has written no such file.
    """
    config, loras = run.config(), {lora.file: lora for lora in run.view().loras}
    if file not in loras:
        raise no_such_lora(run, file, sorted(loras))
    lora, source = loras[file], run.inside(file)
    if source.is_file() and (less := for_others(run, file)) != source:
        lora, source = lora.model_copy(update={"sha256": digest_of(less)}), less
    header = _header(source)
    parts = [_use(config, lora, header), _training(config, lora, header), _tags(header), _hashes(lora, header)]
    texts = ["\n".join(lines) for lines in parts]
    return "\n\n".join(text for text in texts if text) + "\n\nTrained with Atelier\n"


def _use(config: TrainConfig, lora: Lora, header: dict[str, str]) -> Iterator[str]:
    """Title, base model, trigger words, strength."""
    stem = PurePath(lora.file).stem
    yield config.output.name or stem
    yield f"Version: {stem}, {lora.step} steps"
    if config.model.base_model == "pocket":
        yield "Base model: pocket, the miniature built into Atelier"
        yield "This LoRA fits only that model; it does nothing for Stable Diffusion in a WebUI."
    else:
        name = PurePath(config.model.base_model).name
        base = BASES.get(header.get("ss_base_model_version", ""))
        yield f"Base model: {base}, trained on {name}" if base else f"Base model: {name}"
    yield f"Type: LoRA, {config.goal}"
    yield f"Trigger words: {config.dataset.trigger_word or 'none'}"
    yield "Suggested strength: 1 (0.6 to 1 together with other LoRAs)"
    yield f"In AUTOMATIC1111, Forge and SD.Next: <lora:{stem}:1>"


def _training(config: TrainConfig, lora: Lora, header: dict[str, str]) -> Iterator[str]:
    """Images, views, steps, and the settings that decide what is learned."""
    dataset, adapter, optimizer, objective = config.dataset, config.adapter, config.optimizer, config.objective
    batch = dataset.batch_size * dataset.accumulation
    yield "Training"
    images = _whole(header.get("ss_num_train_images"))
    if images:
        yield f"Images: {images}, each shown about {lora.step * batch / images:.4g} times"
    yield f"Steps: {lora.step} at batch {dataset.batch_size}" + (
        f" × {dataset.accumulation} (accumulation)" if dataset.accumulation > 1 else ""
    )
    yield f"Resolution: {dataset.resolution} px"
    yield f"Rank: {adapter.rank}, alpha: {adapter.alpha:g}"
    encoders = [ENCODERS[part] for part in trained_components(adapter) if part in ENCODERS]
    text = f"{' and '.join(encoders)} {optimizer.text_learning_rate:g}" if encoders else "text encoder not trained"
    yield f"Learning rate: UNet {optimizer.learning_rate:g}, {text}"
    yield f"Optimizer: AdamW, weight decay {optimizer.weight_decay:g}"
    yield f"Schedule: {optimizer.lr_scheduler}, warm-up {optimizer.warmup:.0%} of the steps"
    extras = {
        "min-SNR gamma": objective.min_snr_gamma,
        "noise offset": objective.noise_offset,
        "caption dropout": dataset.caption_dropout,
        "LoRA dropout": adapter.dropout,
    }
    named = [f"{name} {value:g}" for name, value in extras.items() if value]
    named += ["tags shuffled"] * dataset.shuffle_tags + ["images mirrored"] * dataset.flip
    if named:
        yield f"Also: {', '.join(named)}"
    yield f"Seed: {config.model.seed}"


def _tags(header: dict[str, str]) -> Iterator[str]:
    """The most frequent tags of the captions, from the file's metadata."""
    most = list(tags_in(header).items())[:TOP_TAGS]
    if most:
        yield "Most frequent tags"
        yield ", ".join(f"{tag} ({times})" for tag, times in most)


def _hashes(lora: Lora, header: dict[str, str]) -> Iterator[str]:
    """Hashes under the names Civitai gives them."""
    yield "Hashes"
    yield f"AutoV2: {lora.sha256[:10].upper()}"
    if header.get("sshs_model_hash"):
        yield f"AutoV3: {header['sshs_model_hash'][:12].upper()}"
    yield f"SHA-256: {lora.sha256.upper()}"


def _header(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; nothing where it cannot be read."""
    try:
        return read_header(path).metadata
    except ModelError:
        return {}


def _whole(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
